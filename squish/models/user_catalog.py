"""A newer catalog, out of a file that the user names or that was fetched from an address: read with every bound.

It can say which repository a name means and what is known of the model there, and nothing else: no file of this
machine, no code, no address outside the Hub. What is pulled is judged like any other repository.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from squish.errors import ConfigError, InvalidName
from squish.files import read_regular
from squish.models.manifest import directory_name
from squish.names import RepoName, ShortName, parse
from squish.text import clean

LARGEST = 1 << 20  # bytes
_MOST = 5_000  # entries

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class UserShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As CacheDimensions of catalog.py."""

    layers: _Count
    kv_heads: _Count
    head: _Count
    hidden: _Count
    intermediate: _Count
    vocabulary: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]
    window_layers: _Count = 0
    window: _Count = 0
    kv_choice: bool = False


class UserEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As CatalogEntry of catalog.py, without a package."""

    id: _Word
    repo: _Word
    parameters: Annotated[int, msgspec.Meta(ge=1, le=10**14)]
    bits: Annotated[float, msgspec.Meta(gt=0, le=64)]
    context: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]
    license: _Word
    kind: str = "chat"
    tools: bool = False
    default: bool = False
    shape: UserShape | None = None


class _UserCatalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: tuple[UserEntry, ...]


def read(path: Path, kinds: tuple[str, ...]) -> tuple[UserEntry, ...]:
    """The entries of a file. kinds: that there are. Raises ConfigError naming the file and what is wrong in it."""
    try:
        content = read_regular(path, LARGEST, follow=True)
    except FileNotFoundError:
        raise _wrong(path, "does not exist") from None
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from error
    return decoded(content, path, kinds)


def decoded(content: bytes, place: Path | str, kinds: tuple[str, ...]) -> tuple[UserEntry, ...]:
    """The entries in the content of a file. place: where it is from, for errors. Raises ConfigError."""
    try:
        found = msgspec.convert(tomllib.loads(content.decode("utf-8-sig")), _UserCatalog).model
    except RecursionError:
        raise _wrong(place, "is nested too deeply") from None
    except ValueError as error:  # of tomllib, msgspec and UTF-8
        raise _wrong(place, f"cannot be read: {clean(str(error)).removesuffix('.')}") from error
    if len(found) > _MOST:
        raise _wrong(place, f"has {len(found):,} models, and {_MOST:,} are the most")
    seen: set[str] = set()
    for entry in found:
        if problem := _problem(entry, kinds) or ("is there twice" if entry.id in seen else None):
            raise _wrong(place, f"is wrong: {clean(entry.id)[:80]!r} {problem}")
        seen.add(entry.id)
    return found


def _problem(entry: UserEntry, kinds: tuple[str, ...]) -> str | None:
    try:
        ref, repo = parse(entry.id), parse(entry.repo)
        directory_name(entry.id)
    except InvalidName:
        return f"or its repository {clean(entry.repo)[:80]!r} is not a name"
    if not isinstance(ref, ShortName) or ref.tag is None or entry.id != entry.id.lower():
        return "is not a name like qwen3:8b, in lower case"
    if not isinstance(repo, RepoName) or str(repo) != entry.repo or repo.tag or repo.revision:
        return f"has the repository {clean(entry.repo)[:80]!r}, which is not like org/repo"
    if entry.kind not in kinds:
        return f"has the kind {clean(entry.kind)[:40]!r}; there are {', '.join(kinds)}"
    if clean(entry.license) != entry.license:
        return "has a license with characters that cannot be shown"
    return None


def _wrong(place: Path | str, what: str) -> ConfigError:
    hint = "Correct it, or take `catalog` out of config.toml and SQUISH_CATALOG out of the environment."
    return ConfigError(f"The catalog {place} {what}.", hint=hint, param="catalog")
