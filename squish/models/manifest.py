"""What the store keeps of a model: its manifest, a TOML file beside the files that it names.

It knows the names of directories and the shape of a manifest, not which models there are.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from squish.errors import CorruptModel, InvalidInput, InvalidName, ModelNotFound
from squish.files import read_regular, write_whole
from squish.format import abilities, model_directory
from squish.format.embedding import ModelKind
from squish.generation import ChatPrompt, Prompt
from squish.models import recipes
from squish.names import LocalPath, parse

MANIFEST = "manifest.toml"
_FORMAT = 1
_LARGEST = 16 << 20  # bytes; a model of ten thousand files needs two


def is_inside(path: str) -> bool:
    """Whether a relative file name, with / between its parts, stays inside the directory that it is joined to."""
    parts = path.split("/")
    return not any(part in ("", ".", "..") or "\\" in part or "\x00" in part for part in parts)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a model: path relative to the model's directory with / between its parts, size in bytes."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if not is_inside(self.path):
            raise ValueError(f"{self.path!r} leaves the model's directory")
        if self.size < 0:
            raise ValueError(f"{self.path!r} has {self.size} bytes")


class Loss(msgspec.Struct, frozen=True):
    """What compressing cost on the text that comes with Squish: perplexities of the original and of the model.

    divergence: the mean KL divergence of its predictions from those of the original, in nats a token.
    """

    original: float
    perplexity: float
    divergence: float

    @property
    def label(self) -> str:
        """For people: `perplexity 23.94 → 25.11, KL divergence 0.052`."""
        return f"perplexity {self.original:.2f} → {self.perplexity:.2f}, KL divergence {self.divergence:.3f}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model is and where it came from.

    source: `hub:org/repo`, `package:module/file.gguf` or `file:/path`; revision: the commit on the Hub.
    pulled: the name that gives it when it is pulled once more; an older Squish kept none.
    kind: what it is for; quantization: for people; context_length in tokens; installed_at in UTC.
    base: of an adapter, the id of the model that it changes. loss: what compressing it cost, where that was measured.
    linked: the directory of another program, on another file system, that its weights are links to.
    unmeasured: why the bits of its matrices were chosen without knowing what each matters to its predictions.
    recipe: the tag of how a directory of this machine was compressed, which `pulled` does not say, such as 4.5bpw.
    """

    id: str
    source: str
    revision: str | None
    architecture: str
    quantization: str
    parameters: int
    context_length: int
    license: str | None
    installed_at: datetime
    files: tuple[StoredFile, ...] = ()
    pulled: str | None = None
    kind: ModelKind = "chat"
    linked: str | None = None
    base: str | None = None
    loss: Loss | None = None
    unmeasured: str = ""
    recipe: str | None = None

    def __post_init__(self) -> None:
        for name in ("parameters", "context_length"):
            if not 0 <= (value := getattr(self, name)) < 1 << 63:
                raise ValueError(f"its {name} is {value}")

    def require(self, kind: ModelKind) -> None:
        """Raises InvalidInput where it is not what is asked for: to write answers, or to compute embeddings."""
        if self.kind == kind or (kind == "chat" and self.writes):
            return
        if self.kind == "rerank":
            problem = f"{self.id} is a reranking model: it scores how well texts answer a query, and does nothing else."
            hint = "Ask it with POST /v1/rerank."
        elif kind == "chat":
            problem = f"{self.id} is an embedding model: it turns texts into vectors, and writes no answers."
            hint = f"Its vectors: squish embed {self.id} TEXT, or POST /v1/embeddings."
        elif kind == "rerank":
            problem = f"{self.id} is not a reranking model: it does not score how well a text answers a query."
            hint = "`squish list` shows which models do."
        else:
            problem = f"{self.id} is not an embedding model: it writes answers, and computes no embeddings."
            hint = "`squish list` shows which models are."
        raise InvalidInput(problem, hint=hint, param="model")

    def require_chat(self) -> None:
        """Raises InvalidInput where it cannot answer a conversation; nothing is loaded to find that out."""
        self.require("chat")
        if self.kind == "completion":
            problem = f"{self.id} has no chat template: it continues text and does not chat."
            hint = "Use an instruct model, or POST /v1/completions."
            raise InvalidInput(problem, hint=hint, param="messages")

    def require_for(self, prompts: Sequence[Prompt]) -> None:
        """Raises InvalidInput where it cannot go on from these: a text, or a conversation."""
        self.require_chat() if any(isinstance(each, ChatPrompt) for each in prompts) else self.require("chat")

    @property
    def writes(self) -> bool:
        """Whether it writes text, in a chat or by continuing one."""
        return self.kind in ("chat", "completion")

    @property
    def pull_command(self) -> str:
        """The command that installs it again, in place of what is there."""
        if self.base is not None:
            name = self.id.rpartition("+")[2]
            return f"squish pull --force {shlex.quote(self.pulled or '')} --base {self.base} --name {name}"
        named = "" if self.pulled in (None, self.id) else f" --name {self.id}"
        how = recipes.flags(self.recipe) if self.recipe else ""
        return f"squish pull --force {shlex.quote(self.pulled or self.id)}{named}{how}"

    @property
    def size(self) -> int:
        """Bytes of all files, those of the tokenizer too."""
        return sum(file.size for file in self.files)

    @property
    def weights(self) -> int:
        """Bytes of the weights alone, on disk; in memory they may take less or more."""
        return sum(file.size for file in self.files if file.path.endswith(".safetensors"))

    @property
    def bits(self) -> float | None:
        """Bits a weight on disk, scales included, to a tenth; None where the number of weights is not known."""
        return round(8 * self.weights / self.parameters, 1) if self.parameters else None

    @property
    def created(self) -> int:
        """When it was installed, in Unix seconds."""
        return int(self.installed_at.timestamp())


@dataclass(frozen=True, slots=True)
class Installed:
    """A model on disk. path is its directory."""

    manifest: Manifest
    path: Path

    @property
    def damaged(self) -> str | None:
        """The first file that is gone or has another size than when it was installed. Nothing is read."""
        for file in self.manifest.files:
            try:
                if (self.path / file.path).stat().st_size != file.size:
                    return file.path
            except OSError:
                return file.path
        return None

    @property
    def extra(self) -> str | None:
        """The first file that was put beside those of the model, hidden ones left out."""
        known = {MANIFEST, *(file.path for file in self.manifest.files)}
        names = (each.relative_to(self.path).as_posix() for each in sorted(self.path.rglob("*")) if not each.is_dir())
        return next((name for name in names if name not in known and not name.rpartition("/")[2].startswith(".")), None)


class DamagedModel(msgspec.Struct, frozen=True):
    """A directory of the store that is not a usable model, and why."""

    path: Path
    reason: str


def directory_name(id: str) -> str:
    """The one directory name that stands for an id. Raises InvalidName when the id is a path or no name at all."""
    ref = parse(id)
    if isinstance(ref, LocalPath) or str(ref) != id:
        raise InvalidName(f"{id[:80]!r} cannot name an installed model.", param="name")
    return model_directory.directory_name(id)


def read_manifest(path: Path) -> Manifest:
    """The manifest in a model's directory. Raises CorruptModel, ModelNotFound when the directory is gone."""
    try:
        values = tomllib.loads(read_regular(path / MANIFEST, _LARGEST).decode())
        if (format := values.get("format", _FORMAT)) != _FORMAT:
            raise ValueError(f"it has format {format!r}, and this Squish reads format {_FORMAT}; update Squish")
        manifest = msgspec.convert({"revision": None, "license": None} | values, Manifest)
        if directory_name(manifest.id).casefold() != path.name.casefold():
            raise ValueError(f"it is the manifest of {manifest.id}")
    except (OSError, ValueError, RecursionError, InvalidName) as error:  # tomllib, msgspec, unicode: ValueErrors
        if not path.exists():
            raise ModelNotFound(f"{path.name} is not installed anymore.") from None
        problem = str(error.strerror if isinstance(error, OSError) else error)
        if isinstance(error, RecursionError):
            problem = "it is nested too deeply"
        reason = f"{path / MANIFEST} cannot be read: {problem.removesuffix('.')}."
        raise CorruptModel(reason, hint="Pull the model again with --force.") from error
    return with_kind(manifest, path)


def with_kind(manifest: Manifest, directory: Path) -> Manifest:
    """The manifest with what the model is for, as its files say it; of an adapter it is left as it is."""
    if manifest.base is not None:
        return manifest
    return replace(manifest, kind=abilities.kind_in(directory, manifest.kind))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model, empty where there is none that can be read."""
    try:
        return model_directory.read_object(path, path.parent.name)
    except (FileNotFoundError, CorruptModel):
        return {}


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write a model's manifest, durably. Raises OSError."""
    values = msgspec.to_builtins(manifest, builtin_types=(datetime,))
    text = tomli_w.dumps({"format": _FORMAT} | {key: value for key, value in values.items() if value is not None})
    write_whole(directory / MANIFEST, text)
