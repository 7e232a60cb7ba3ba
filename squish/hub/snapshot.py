"""A repository at one commit, as the Hub's API describes it. It makes no connection."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from squish.text import clean

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo
    from huggingface_hub.hf_api import RepoSibling

_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
Size = Annotated[int, msgspec.Meta(ge=0)]


class HubFile(msgspec.Struct, frozen=True):
    """A file at a commit. size in bytes; sha256 of a large file, the git blob id of a small one."""

    path: str
    url: str
    size: int
    sha256: str | None
    git_blob: str | None


class Snapshot(msgspec.Struct, frozen=True):
    """A repository at one commit. now: its name today, where it was renamed since."""

    repo_id: str
    commit: str
    license: str | None
    files: tuple[HubFile, ...]
    now: str | None = None


class _LargeFile(msgspec.Struct, rename="camel"):
    sha256: str
    size: Size
    pointer_size: Size = 0


class _Sibling(msgspec.Struct, rename="camel"):
    rfilename: str
    size: Size | None = None
    blob_id: str | None = None
    lfs: _LargeFile | None = None


class _Description(msgspec.Struct, rename="camel"):
    sha: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z]+\Z")]
    siblings: list[_Sibling]
    id: Any = None
    tags: Any = None
    card_data: Any = None


def checked(content: bytes, repo_id: str) -> bytes:
    """The Hub's answer with nothing but what is read of it, in the form that the library expects.

    Raises msgspec.DecodeError, and other ValueErrors.
    """
    found = msgspec.json.decode(content, type=_Description)
    found.id = found.id if isinstance(found.id, str) and _NAME.fullmatch(found.id) else repo_id
    found.tags = [tag for tag in found.tags if isinstance(tag, str)] if isinstance(found.tags, list) else []
    named = found.card_data.get("license") if isinstance(found.card_data, dict) else None
    found.card_data = {"license": named} if isinstance(named, str) else None
    return msgspec.json.encode(found)


def read(info: ModelInfo, repo_id: str, endpoint: str) -> Snapshot:
    """The repository of an answer that was checked."""
    assert info.sha is not None and info.siblings is not None
    commit = info.sha
    files = tuple(_file(each, repo_id, commit, endpoint) for each in info.siblings)
    now = info.id if info.id.lower() != repo_id.lower() else None
    return Snapshot(repo_id, commit, _license(info), files, now)


def _file(sibling: RepoSibling, repo_id: str, commit: str, endpoint: str) -> HubFile:
    from huggingface_hub import hf_hub_url

    path, large = sibling.rfilename, sibling.lfs
    url = hf_hub_url(repo_id, path, revision=commit, endpoint=endpoint)
    if large is not None:
        return HubFile(path, url, large.size, large.sha256, None)
    return HubFile(path, url, sibling.size or 0, None, sibling.blob_id)


def _license(info: ModelInfo) -> str | None:
    """The license that the card or, without one, the tags name."""
    named = info.card_data.license if info.card_data is not None else None
    tagged = next((tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None)
    found = named if isinstance(named, str) else tagged
    return clean(found) if found else None
