"""Models of other programs on this machine: LM Studio's, those in the Hugging Face cache, Ollama's.

Safetensors models are used where they lie; GGUF files are imported. It reads directories and small files, opens no
connection, and changes nothing of what the other programs have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace as with_fields

from squish.errors import CorruptModel, InvalidName, SquishError
from squish.files import read_regular
from squish.format import model_directory
from squish.format.model_directory import INDEX, TOKENIZER_CONFIG
from squish.hub.snapshot import HubFile, Snapshot
from squish.models import recipes
from squish.models.manifest import Manifest
from squish.names import LocalPath, ModelId, RepoName, as_word, parse, without_latest
from squish.pull.repository import is_model_file, is_model_gguf, is_weights, shortest_tag, variants
from squish.text import clean

Program = Literal["lmstudio", "hf", "ollama"]
TITLES: Mapping[Program, str] = {"lmstudio": "LM Studio", "hf": "the Hugging Face cache", "ollama": "Ollama"}
_LARGEST = 64 << 20  # bytes of a small file
_MOST = 10_000  # entries of one directory
_OLLAMA_REGISTRY = ("registry.ollama.ai", "library")


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A model of another program.

    ref: what it is installed under; path: a directory, or a GGUF file; repo: on the Hub, where it is known to be a
    copy of one at `revision`; linked: its files are used where they lie; sha256: of its file, where the program says
    it; problem: why it cannot be taken; beside: it belongs to another model and is taken only where it is named.
    """

    program: Program
    ref: ModelId
    path: Path
    size: int
    linked: bool
    repo: str | None = None
    revision: str | None = None
    sha256: str | None = None
    problem: str | None = None
    beside: bool = False

    @property
    def judged_by_header(self) -> bool:
        """Whether its GGUF file is still to be judged."""
        return not self.linked and self.problem is None

    @property
    def id(self) -> str:
        return str(self.ref)

    def is_installed_as(self, manifest: Manifest) -> bool:
        """Whether this is what was imported from here, or pulled from the repository that it is a copy of."""
        copies = f"hub:{self.ref.repo_id}" if isinstance(self.ref, RepoName) else None
        return manifest.id == self.id and manifest.source in (f"file:{self.path}", copies)


def find(program: Program, environment: Mapping[str, str], home: Path) -> list[Neighbor]:
    """Every model of a program, sorted by id; where two have one id, the first. environment: the user's variables."""
    finders: Mapping[Program, Callable[[Mapping[str, str], Path], Iterator[Neighbor]]] = {
        "lmstudio": _lm_studio, "hf": _hugging_face, "ollama": _ollama,
    }  # fmt: skip
    found: dict[str, Neighbor] = {}
    for each in finders[program](environment, home):
        found.setdefault(each.id, each)
    return sorted(found.values(), key=lambda each: each.id)


def at(path: Path, environment: Mapping[str, str], home: Path) -> Neighbor | None:
    """The model of another program at an absolute path, or the only one in the directory there."""
    roots: Mapping[Program, list[Path]] = {
        "lmstudio": _lm_studio_roots(home),
        "hf": [_hub_cache(environment, home)],
        "ollama": [_ollama_root(environment, home)],
    }
    for program in (each for each, places in roots.items() if any(map(path.is_relative_to, places))):
        found = [each for each in find(program, environment, home) if path in (each.path, each.path.parent)]
        exact = [each for each in found if each.path == path]
        within = [each for each in found if not each.linked and not each.beside]
        if exact or len(within) == 1:
            return (exact or within)[0]
    return None


# ---- LM Studio


def _lm_studio_roots(home: Path) -> list[Path]:
    roots = [home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"]
    with suppress(OSError, ValueError):
        pointer = read_regular(home / ".lmstudio-home-pointer", 4096).decode().strip()
        roots.insert(0, Path(pointer) / "models")
    return [*dict.fromkeys(roots)]


def _lm_studio(environment: Mapping[str, str], home: Path) -> Iterator[Neighbor]:
    """Directories of models as publisher/repository/files."""
    for root in _lm_studio_roots(home):
        for publisher in _entries(root):
            for directory in _entries(publisher):
                if (repo := _repo(publisher.name, directory.name)) is not None:
                    yield from _in_directory("lmstudio", repo, directory)


# ---- Hugging Face


def _hugging_face(environment: Mapping[str, str], home: Path) -> Iterator[Neighbor]:
    """Repositories of the Hub's cache, each at the commit that was downloaded last."""
    for cache in _entries(_hub_cache(environment, home)):
        kind, _, name = cache.name.partition("--")
        org, _, repo_name = name.partition("--")
        if kind != "models" or (repo := _repo(org, repo_name)) is None:
            continue
        snapshots = {path.name: path for path in _entries(cache / "snapshots")}
        with suppress(OSError, ValueError):
            main = read_regular(cache / "refs" / "main", 4096).decode().strip()
            snapshots = {main: snapshots[main]} if main in snapshots else snapshots
        if snapshots:
            directory = max(snapshots.values(), key=lambda path: path.stat().st_mtime)
            for each in _in_directory("hf", repo, directory):
                yield replace(each, repo=repo.repo_id, revision=directory.name)


def _hub_cache(environment: Mapping[str, str], home: Path) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := environment.get(name):
            return Path(value).expanduser()
    if value := environment.get("HF_HOME"):
        return Path(value).expanduser() / "hub"
    return Path(environment.get("XDG_CACHE_HOME") or home / ".cache").expanduser() / "huggingface" / "hub"


# ---- Ollama


def _ollama_root(environment: Mapping[str, str], home: Path) -> Path:
    root = Path(environment.get("OLLAMA_MODELS") or home / ".ollama" / "models").expanduser()
    if not root.is_dir() and not environment.get("OLLAMA_MODELS"):
        return Path("/usr/share/ollama/.ollama/models")  # of a service on Linux
    return root


def _ollama(environment: Mapping[str, str], home: Path) -> Iterator[Neighbor]:
    """Manifests as host/namespace/model/tag, and blobs that they name by hash."""
    root = _ollama_root(environment, home)
    manifests = root / "manifests"
    for path in sorted(manifests.glob("*/*/*/*"))[:_MOST] if manifests.is_dir() else ():
        host, namespace, name, tag = path.relative_to(manifests).parts
        ref = _ollama_ref(host, namespace, name, tag)
        if ref is not None and path.is_file():
            yield _of_manifest(ref, path, root / "blobs")


def _ollama_ref(host: str, namespace: str, name: str, tag: str) -> ModelId | None:
    official = (host, namespace) == _OLLAMA_REGISTRY
    return _ref(f"{name}:{tag}" if official else f"{namespace}/{name}:{tag}")


def _of_manifest(ref: ModelId, path: Path, blobs: Path) -> Neighbor:
    model = Neighbor("ollama", ref, blobs, 0, linked=False)
    try:
        layers = [each for each in _object(path).get("layers", ()) if isinstance(each, dict)]
    except (CorruptModel, TypeError):
        return replace(model, problem=f"its manifest {path} cannot be read")
    kinds = {str(each.get("mediaType", "")).rpartition(".")[2]: each for each in layers}
    if "adapter" in kinds:
        return replace(model, problem="it is a model with an adapter, which only Ollama joins")
    digest = str(kinds.get("model", {}).get("digest", ""))
    hash = digest.removeprefix("sha256:")
    if not (digest.startswith("sha256:") and len(hash) == 64 and hash.isalnum()):
        return replace(model, problem="it has no weights here; it may run on Ollama's servers")
    blob = blobs / f"sha256-{hash}"
    if not blob.is_file():
        return replace(model, problem=f"its blob {blob} is missing")
    return replace(model, path=blob, size=blob.stat().st_size, sha256=hash)


# ---- what they have in common


def _in_directory(program: Program, repo: RepoName, directory: Path) -> Iterator[Neighbor]:
    """The models in a directory: one of safetensors, and those in GGUF files."""
    names = [path.relative_to(directory).as_posix() for path in sorted(directory.rglob("*"))[:_MOST] if path.is_file()]
    sizes = {name: (directory / name).stat().st_size for name in names}
    if any(is_weights(name) for name in names):
        size = sum(sizes[name] for name in names if is_model_file(name))
        model = Neighbor(program, repo, directory, size, linked=True)
        try:
            config = _judged(directory, names, repo.repo_id)
        except SquishError as error:
            yield replace(model, problem=error.message)
        else:
            full = not (config.get("quantization") or config.get("quantization_config"))
            yield replace(model, ref=with_fields(repo, tag=recipes.tag(None))) if full else model
    for name in names:
        if name.lower().endswith(".gguf") and not is_model_gguf(name):
            ref = _ref(f"{repo}:{as_word(name[: -len('.gguf')])}") or repo
            model = Neighbor(program, ref, directory / name, sizes[name], linked=False, beside=True)
            yield replace(model, problem="it belongs to a model, such as its projector for images, and holds none")
    listed = tuple(HubFile(name, "", sizes[name], None, None) for name in names)
    ggufs = variants(Snapshot(repo.repo_id, "", None, listed))
    for each in ggufs:
        ref = _ref(f"{repo}:{shortest_tag(each, ggufs)}") or repo
        problem = None if each.whole else f"{len(each.files)} of its {each.parts} files are there"
        yield Neighbor(program, ref, directory / each.files[0].path, each.size, linked=False, problem=problem)


def _judged(directory: Path, names: list[str], name: str) -> dict[str, Any]:
    """config.json of a model that we run, as far as small files tell. Raises UnsupportedModel, CorruptModel."""
    config = model_directory.read_config(directory, name)
    modules = _content(directory, "modules.json", names)
    model_directory.require_config(config, name, modules=modules)
    model_directory.require_tokenizer(names, _content(directory, TOKENIZER_CONFIG, names), name)
    model_directory.require_shards(names, _content(directory, INDEX, names), name)
    return config


def _content(directory: Path, name: str, names: list[str]) -> bytes | None:
    if name not in names:
        return None
    try:
        return read_regular(directory / name, _LARGEST, follow=True)
    except OSError:
        return b""


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(path, 1 << 20, follow=True))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptModel(f"{path} cannot be read.") from error
    return found if isinstance(found, dict) else {}


def _entries(directory: Path) -> list[Path]:
    """The directories in a directory, sorted; none where it cannot be read."""
    try:
        return sorted(path for path in list(directory.iterdir())[:_MOST] if path.is_dir() and path.name[0] != ".")
    except OSError:
        return []


def _repo(org: str, name: str) -> RepoName | None:
    found = _ref(f"{org}/{name}")
    return found if isinstance(found, RepoName) else None


def _ref(text: str) -> ModelId | None:
    """The id that a name stands for, with what the grammar does not have replaced; None for what cannot be one."""
    words = "/".join(":".join(as_word(word) for word in part.split(":")) for part in clean(text).split("/"))
    try:
        ref = parse(words)
    except InvalidName:
        return None
    return None if isinstance(ref, LocalPath) else without_latest(ref)
