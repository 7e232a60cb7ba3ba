"""What a model name stands for: the id that the model is installed under, and where it comes from.

It makes no connection and writes nothing.
"""

from __future__ import annotations

import shlex
import unicodedata
from pathlib import Path

import msgspec
from msgspec.structs import replace

from squish.config.settings import resolve as resolve_settings
from squish.errors import ModelNotFound, Offline, UnsupportedModel
from squish.models import catalog
from squish.models.catalog import CatalogEntry, packaged_file
from squish.names import LocalPath, ModelId, ModelRef, RepoName, ShortName, as_word, file_tag
from squish.pull.repository import PART, gguf_parts
from squish.text import clean, require_utf8

_GGUF_MAGIC = b"GGUF"


class HubSource(msgspec.Struct, frozen=True):
    """A repository on the Hub."""

    repo: RepoName

    def __str__(self) -> str:
        return f"hub:{self.repo.repo_id}"


class FileSource(msgspec.Struct, frozen=True):
    """A GGUF file on this machine. label: as the manifest names it."""

    path: Path
    label: str

    def __str__(self) -> str:
        return self.label


class DirectorySource(msgspec.Struct, frozen=True):
    """A model directory on this machine.

    linked: its files are used where they lie. repo, revision: of the Hub, where it is known to be a copy of that.
    """

    path: Path
    linked: bool = False
    repo: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return f"file:{self.path}" if self.repo is None else f"hub:{self.repo}"


Source = HubSource | FileSource | DirectorySource


class ResolvedModel(msgspec.Struct, frozen=True):
    """A name, resolved. as_published: the catalog chose this repository for the bits that it has."""

    ref: ModelId
    source: Source
    license: str | None = None
    as_published: bool = False


def resolve(ref: ModelRef, *, id: ModelId | None = None, offline: bool = False) -> ResolvedModel:
    """What a name means: under which id it is installed, that of the source unless another is wanted, and from where.

    Raises ModelNotFound, UnsupportedModel and, where offline leaves no source, Offline.
    """
    if not isinstance(ref, LocalPath) and ref.adapter:
        problem = f"{ref} is a model with an adapter, which has no place of its own."
        model = replace(ref, adapter=None)
        hint = f"Run: squish pull {model}, then: squish pull ADAPTER --base {model} --name {ref.adapter}"
        raise ModelNotFound(problem, hint=hint, param="model")
    match ref:
        case ShortName():
            entry = catalog.lookup(ref)
            if entry is None:
                raise _unknown(ref)
            return ResolvedModel(id or entry.ref, _entry_source(entry, offline), entry.license, as_published=True)
        case RepoName():
            return ResolvedModel(id or ref, HubSource(ref))
        case LocalPath():
            path = ref.path.expanduser().absolute()
            return ResolvedModel(id or ShortName(local_id(path)), _local_source(ref, path))


def local_id(path: Path) -> str:
    """The id that a file or directory gets when none is asked for: its name in lower case, within the grammar."""
    # Decomposed, so that é is the same name however the file system spells it.
    name = unicodedata.normalize("NFKD", path.name).encode("ascii", "ignore").decode().lower()
    return as_word(PART.sub("", name.removesuffix(".gguf")))[:100].rstrip("._-") or "model"


def _unknown(ref: ShortName) -> ModelNotFound:
    near = catalog.nearest(str(ref))
    hint = (
        f"Names like it: {', '.join(near)}."
        if near
        else "`squish search` looks on the Hub. A repository is written org/repo, a file ./model.gguf."
    )
    missing = catalog.unfetched(resolve_settings().settings)
    return ModelNotFound(f"{ref} is not in the catalog.", hint=missing or hint, param="model")


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
    return HubSource(entry.repo_name)


def _local_source(ref: LocalPath, path: Path) -> FileSource | DirectorySource:
    require_utf8(str(path), "The path")
    if path.is_dir():
        return DirectorySource(path)
    if not path.exists():
        raise ModelNotFound(f"{ref} does not exist.", hint=_hint_for_missing(ref), param="model")
    if not path.is_file():
        raise UnsupportedModel(f"{ref} is neither a regular file nor a directory.", param="model")
    if not is_gguf(path):
        hint = f"To import the model that it belongs to: squish pull {shlex.quote(str(path.parent))}"
        raise UnsupportedModel(
            f"{ref} is not a GGUF file.", hint=hint if path.suffix == ".safetensors" else None, param="model"
        )
    first = gguf_parts(path)[0]  # whichever part is named, it is the same model
    return FileSource(first, f"file:{first}")


def _hint_for_missing(ref: LocalPath) -> str:
    parts = ref.path.parts
    if not ref.path.is_absolute() and len(parts) == 3 and (tag := file_tag(parts[2])):
        return f"Check the path. A file of a repository on the Hub is written {parts[0]}/{parts[1]}:{tag}."
    return "Check the path."


def is_gguf(path: Path) -> bool:
    """Whether a file is, or by its name claims to be, a GGUF file. Ollama names its files by their hash alone."""
    if path.suffix.lower() == ".gguf":
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC
    except OSError:
        return False


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
