"""A repository at one commit, as the Hub's API describes it. It makes no connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import msgspec

from squish.text import clean

Size = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file at a commit. size in bytes; sha256 of a large file, the git blob id of a small one."""

    path: str
    url: str
    size: int
    sha256: str | None
    git_blob: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository at one commit."""

    repo_id: str
    commit: str
    license: str | None
    files: tuple[HubFile, ...]


class _LargeFile(msgspec.Struct):
    sha256: str
    size: Size


class _Sibling(msgspec.Struct, rename="camel"):
    rfilename: str
    size: Size | None = None
    blob_id: str | None = None
    lfs: _LargeFile | None = None


class _ModelInfo(msgspec.Struct, rename="camel"):
    sha: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z]+\Z")]
    siblings: list[_Sibling]
    tags: Any = None
    card_data: Any = None


def decode(content: bytes, repo_id: str, endpoint: str) -> Snapshot:
    """What the Hub's answer says of a repository. Raises msgspec.DecodeError, and other ValueErrors."""
    info = msgspec.json.decode(content, type=_ModelInfo)
    base = f"{endpoint}/{repo_id}/resolve/{info.sha}"
    return Snapshot(repo_id, info.sha, _license(info), tuple(_file(each, base) for each in info.siblings))


def _file(sibling: _Sibling, base: str) -> HubFile:
    url, large = f"{base}/{quote(sibling.rfilename)}", sibling.lfs
    if large is not None:
        return HubFile(sibling.rfilename, url, large.size, large.sha256, None)
    return HubFile(sibling.rfilename, url, sibling.size or 0, None, sibling.blob_id)


def _license(info: _ModelInfo) -> str | None:
    """The license that the card or, without one, the tags name."""
    named = info.card_data.get("license") if isinstance(info.card_data, dict) else None
    tags = [tag for tag in info.tags if isinstance(tag, str)] if isinstance(info.tags, list) else []
    tagged = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    found = named if isinstance(named, str) else tagged
    return clean(found) if found else None
