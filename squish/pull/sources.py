"""What a model name stands for: the id that it is installed under, where it comes from, and which files make the model.

It makes no connection and writes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from squish.errors import HubError, InvalidName, ModelNotFound, Offline, UnsupportedModel
from squish.hub.client import HubFile, Snapshot
from squish.models import catalog
from squish.models.catalog import CatalogEntry, packaged_file
from squish.models.manifest import is_inside
from squish.names import LocalPath, RepoName, ShortName, parse
from squish.text import clean

# Weights and what a tokenizer needs. Never code (.py) and never pickles (.bin, .pt), which run code when loaded.
_TAKEN = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "tokenizer*.txt", "merges.txt", "vocab.txt")
_LONGEST_NAME = 200  # bytes; a disk takes 255, and the parts of a download add to it
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on the Hub."""

    repo: RepoName

    def __str__(self) -> str:
        return f"hub:{self.repo.repo_id}"


@dataclass(frozen=True, slots=True)
class FileSource:
    """A GGUF file on this machine. label: as the manifest names it."""

    path: Path
    label: str

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True)
class DirectorySource:
    """A model directory on this machine."""

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A name, resolved. as_published: the catalog chose this repository for the bits that it has."""

    id: str
    source: HubSource | FileSource | DirectorySource
    license: str | None = None
    as_published: bool = False


def resolve(name: str, *, as_name: str | None = None, offline: bool = False) -> Plan:
    """What a name means: under which id it is installed, and from where.

    Raises InvalidName, ModelNotFound, UnsupportedModel and, where offline leaves no source, Offline.
    """
    ref = parse(name)
    wanted = None if as_name is None else _checked_id(as_name)
    match ref:
        case ShortName():
            entry = catalog.lookup(ref)
            if entry is None:
                raise _unknown(name)
            return Plan(wanted or entry.id, _entry_source(entry, offline), entry.license, as_published=True)
        case RepoName():
            return Plan(wanted or str(ref), HubSource(ref))
        case LocalPath():
            return _local_plan(ref, wanted)


def local_id(path: Path) -> str:
    """The id that a file or directory gets when none is asked for: its name in lower case, within the grammar."""
    # Decomposed, so that é is the same name however the file system spells it.
    name = unicodedata.normalize("NFKD", path.name).encode("ascii", "ignore").decode().lower()
    name = name.removesuffix(".gguf")
    name = re.sub(r"[^a-z0-9._-]+", "-", name)
    name = re.sub(r"([.-])[.-]+", r"\1", name).strip("._-")[:100].rstrip("._-")
    return name or "model"


def _checked_id(name: str) -> str:
    ref = parse(name)
    if isinstance(ref, LocalPath):
        raise InvalidName(f"{name!r} is a path and cannot name an installed model.", param="name")
    return str(ref)


def _unknown(name: str) -> ModelNotFound:
    near = catalog.nearest(name)
    hint = (
        f"Names like it: {', '.join(near)}."
        if near
        else "`squish search` looks on the Hub. A repository is written org/repo, a file ./model.gguf."
    )
    return ModelNotFound(f"{name} is not in the catalog.", hint=hint, param="model")


def _entry_source(entry: CatalogEntry, offline: bool) -> HubSource | FileSource:
    """The package that carries the model if it is there, else the Hub."""
    if entry.package is not None:
        path = packaged_file(entry.package)
        if path is not None:
            return FileSource(path, f"package:{entry.package.module}/{entry.package.file}")
        if offline:
            raise Offline(
                f"SQUISH_OFFLINE forbids the connection to the Hub, and the Python package {entry.package.module}, "
                f"which carries {entry.id}, is not installed.",
                hint="Install the package, or unset SQUISH_OFFLINE.",
            )
    repo = parse(entry.repo)
    if not isinstance(repo, RepoName):
        raise InvalidName(f"The catalog names {entry.repo!r} as a repository.", param="model")
    return HubSource(repo)


def _local_plan(ref: LocalPath, wanted: str | None) -> Plan:
    path = ref.path.expanduser().absolute()
    id = wanted or local_id(path)
    if path.is_dir():
        return Plan(id, DirectorySource(path))
    if not path.exists():
        raise ModelNotFound(f"{ref} does not exist.", hint="Check the path.", param="model")
    if not path.is_file():
        raise UnsupportedModel(f"{ref} is no regular file and no directory.", param="model")
    if path.suffix.lower() != ".gguf":
        raise UnsupportedModel(f"{ref} is no .gguf file and no model directory.", param="model")
    return Plan(id, FileSource(path, f"file:{path}"))


def inside(directory: Path, name: str) -> Path:
    """The file that a name of a local directory means, links followed.

    A link may lead to another file of the directory and, from a snapshot of a Hub cache, to the cache's blobs.
    Raises UnsupportedModel where it leads elsewhere.
    """
    root, target = directory.resolve(), (directory / name).resolve()
    cache = root.parent.parent
    blobs = [cache / "blobs"] if root.parent.name == "snapshots" and cache.name.startswith("models--") else []
    if not target.is_file() or not any(target.is_relative_to(each) for each in (root, *blobs)):
        raise UnsupportedModel(
            f"{clean(name)} in {directory} is a link to something outside of it.",
            hint="Put the file itself there, if it belongs to the model.",
            param="model",
        )
    return target


def is_model_file(name: str) -> bool:
    """Whether a file at the top of a repository belongs to an MLX or safetensors model."""
    return "/" not in name and not name.startswith(".") and any(fnmatchcase(name, pattern) for pattern in _TAKEN)


def choose(snapshot: Snapshot, tag: str | None) -> tuple[HubFile, ...]:
    """The files to take: the one .gguf file that a tag means, else the safetensors model.

    Raises UnsupportedModel, ModelNotFound (no such variant), HubError (a name that is not safe on a disk).
    """
    taken = _chosen(snapshot, tag)
    for file in taken:
        _require_safe(file.path, snapshot.repo_id)
    if len({file.path.casefold() for file in taken}) < len(taken):  # one file on a disk that takes a for A
        raise HubError(f"{snapshot.repo_id} has two files whose names differ only in upper and lower case.")
    return taken


def _require_safe(path: str, repo: str) -> None:
    """Refuse a name that leaves the directory, or that a disk or a terminal reads in its own way."""
    parts = path.split("/")
    plain = path.isprintable() and clean(path) == path and not re.match(r"[A-Za-z]:", path)
    if plain and is_inside(path) and all(len(part.encode()) <= _LONGEST_NAME for part in parts):
        return
    shown = "".join(each if each.isprintable() else "?" for each in clean(path))
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    raise HubError(
        f"{repo} has a file whose name is not safe to store: {shown!r}.",
        hint="Nothing was downloaded. Take the model from another repository.",
        param="model",
    )


def _without_others(files: tuple[HubFile, ...], weights: list[str]) -> tuple[HubFile, ...]:
    """Of several kinds of weights, an adapter or the same in another layout beside the model, the model's alone."""
    main = [path for path in weights if path.startswith("model")]
    main = main or [path for path in weights if not path.startswith("consolidated")] or weights
    return tuple(file for file in files if file.path in main or file.path not in weights)


def _chosen(snapshot: Snapshot, tag: str | None) -> tuple[HubFile, ...]:
    ggufs = [file for file in snapshot.files if file.path.lower().endswith(".gguf")]
    taken = tuple(file for file in snapshot.files if is_model_file(file.path))
    weights = [file.path for file in taken if file.path.endswith(".safetensors")]
    if tag is None and weights:
        return _without_others(taken, weights)
    variant = re.compile(rf"(?:^|[-._/]){re.escape(tag)}\.gguf$", re.IGNORECASE) if tag is not None else None
    found = [file for file in ggufs if variant is None or variant.search(file.path)]
    if len(found) == 1 and not _SHARD.search(found[0].path):
        return (found[0],)
    repo = snapshot.repo_id
    if not ggufs and tag is None:
        raise UnsupportedModel(f"{repo} has no .safetensors and no .gguf weights.", param="model")
    if found and _SHARD.search(found[0].path):
        raise UnsupportedModel(f"{repo} keeps this variant in several .gguf files.", param="model")
    variants = sorted(file.path for file in ggufs)
    if not variants:
        hint = f"It has no .gguf files. Its safetensors weights: squish pull {repo}, or {repo}:8bit with other bits."
        raise ModelNotFound(f"{repo} has no {tag!r}.", hint=hint, param="model")
    example = re.split(r"[-./]", variants[0][: -len(".gguf")])[-1]
    raise ModelNotFound(
        f"{repo} has no single .gguf file for {tag!r}." if tag is not None else f"{repo} has several .gguf files.",
        hint=f"Name one as {repo}:{example}. Files there: {', '.join(variants[:12])}.",
        param="model",
    )
