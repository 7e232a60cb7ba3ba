"""Which files of a repository, or of a directory, make the model: the safetensors ones, or one of its GGUF variants.

It makes no connection and writes nothing.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from squish.errors import HubError, ModelNotFound, SquishError, UnsupportedModel
from squish.format.embedding import is_folder
from squish.hub.snapshot import HubFile, Snapshot
from squish.models import recipes
from squish.models.manifest import is_inside
from squish.names import as_word
from squish.text import clean

# Weights and what a tokenizer needs. Never code (.py) and never pickles (.bin, .pt), which run code when loaded.
_TAKEN = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "tokenizer*.txt", "merges.txt", "vocab.txt")
_OF_STEPS = ("config.json", "model.safetensors")
_LONGEST_NAME = 200  # bytes; a disk takes 255, and the parts of a download add to it
PART = re.compile(r"-\d{5}-of-(\d{5})$")
# What lies beside a model in GGUF files of its own: the projector of a vision model, the statistics of a quantization.
_BESIDE = re.compile(r"(?:^|[-._/])(?:mmproj|imatrix)(?:[-._]|$)", re.IGNORECASE)
_ELSEWHERE = "Take the model from another repository: `squish search` lists models that run."


class GgufVariant(msgspec.Struct, frozen=True):
    """One model among the .gguf files of a repository.

    stem: its path without the suffix; files: by name; parts: how many files it is in, of which some may be missing.
    """

    stem: str
    files: tuple[HubFile, ...]
    parts: int

    @property
    def whole(self) -> bool:
        return len(self.files) == self.parts

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def answers_to(self, tag: str) -> bool:
        """Whether a tag is the end of the name, as Q8_0 is of model-Q8_0."""
        name, wanted = as_word(self.stem).lower(), PART.sub("", tag).lower()
        return name == wanted or name.endswith(tuple(f"{mark}{wanted}" for mark in "-._"))


def is_model_file(name: str) -> bool:
    """Whether a file of a repository belongs to an MLX or safetensors model.

    It lies at the top, or is of a step of an embedding model: 2_Dense/model.safetensors.
    """
    folder, slash, file = name.rpartition("/")
    if slash:
        return is_folder(folder) and file in _OF_STEPS
    return not name.startswith(".") and any(fnmatchcase(name, pattern) for pattern in _TAKEN)


def is_weights(name: str) -> bool:
    """Whether a file holds weights of the model itself, and not of a step after it."""
    return "/" not in name and name.endswith(".safetensors")


def is_model_gguf(name: str) -> bool:
    """Whether a .gguf file of this name holds a model, and not what lies beside one."""
    return name.lower().endswith(".gguf") and not _BESIDE.search(name[: -len(".gguf")])


def gguf_parts(path: Path) -> list[Path]:
    """The files of a model of which this one is a part, those that are there, sorted; the file itself if it is none."""
    stem = path.name[: -len(".gguf")] if path.name.lower().endswith(".gguf") else path.name
    found = PART.search(stem)
    if found is None:
        return [path]
    suffix = path.name[len(stem) :]
    names = [f"{stem[: found.start()]}-{number:05}-of-{found[1]}{suffix}" for number in range(1, int(found[1]) + 1)]
    return [path.with_name(name) for name in names if path.with_name(name).is_file()] or [path]


def choose(snapshot: Snapshot, tag: str | None) -> tuple[HubFile, ...]:
    """The files to take: the one .gguf file that a tag means, else the safetensors model.

    A tag that names a compression, such as 8bit, means the safetensors model, where there is one.
    Raises UnsupportedModel, ModelNotFound (no such variant), HubError (a name that is not safe on a disk).
    """
    taken = tuple(file for file in snapshot.files if is_model_file(file.path))
    weights = [file.path for file in taken if is_weights(file.path)]
    whole = weights and (tag is None or recipes.from_tag(tag) is not None)
    chosen = _without_others(taken, weights) if whole else _choose_gguf(snapshot, tag)
    for file in chosen:
        require_safe_name(file.path, snapshot.repo_id)
    if len({file.path.casefold() for file in chosen}) < len(chosen):  # one file on a disk that takes a for A
        raise HubError(f"{snapshot.repo_id} has two files whose names differ only in upper and lower case.")
    return chosen


def variants(snapshot: Snapshot) -> tuple[GgufVariant, ...]:
    """The models among the .gguf files, sorted by name."""
    files: dict[str, list[HubFile]] = {}
    parts: dict[str, int] = {}
    for file in snapshot.files:
        if is_model_gguf(file.path):
            stem = file.path[: -len(".gguf")]
            if found := PART.search(stem):
                stem = stem[: found.start()]
                parts[stem] = int(found[1])
            files.setdefault(stem, []).append(file)
    return tuple(
        GgufVariant(stem, tuple(sorted(found, key=lambda file: file.path)), parts.get(stem, 1))
        for stem, found in sorted(files.items())
    )


def shortest_tag(variant: GgufVariant, among: tuple[GgufVariant, ...]) -> str:
    """The shortest end of a variant's name that means no other one: `Q8_0`."""
    name = as_word(variant.stem)
    ends = [name[match.end() :] for match in re.finditer(r"[-.]", name)]
    # A tag such as 8bit says how to compress, where there is something to compress.
    usable = (end for end in reversed(ends) if as_word(end) == end and recipes.from_tag(end) is None)
    return next((end for end in usable if _meant(end, among) == [variant]), name)


def is_safe_name(path: str) -> bool:
    """Whether a name stays in its directory, and no disk and no terminal reads it in a way of its own."""
    parts = path.split("/")
    plain = path.isprintable() and clean(path) == path and not re.match(r"[A-Za-z]:", path)
    return plain and is_inside(path) and all(len(part.encode()) <= _LONGEST_NAME for part in parts)


def require_safe_name(path: str, place: str) -> None:
    """Raises HubError for the name of a file that is not safe to store. place: where it is."""
    if is_safe_name(path):
        return
    shown = "".join(each if each.isprintable() else "?" for each in path)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    raise HubError(
        f"{place} has a file whose name is not safe to store: {shown!r}.",
        hint="Nothing was downloaded. Take the model from another repository.",
        param="model",
    )


def _without_others(files: tuple[HubFile, ...], weights: list[str]) -> tuple[HubFile, ...]:
    """Of several kinds of weights, an adapter or the same in another layout beside the model, the model's alone."""
    main = [path for path in weights if path.startswith("model")]
    main = main or [path for path in weights if not path.startswith("consolidated")] or weights
    return tuple(file for file in files if file.path in main or file.path not in weights)


def _choose_gguf(snapshot: Snapshot, tag: str | None) -> tuple[HubFile, ...]:
    among = variants(snapshot)
    found = list(among) if tag is None else _meant(tag, among)
    if len(found) == 1 and found[0].whole:
        return found[0].files
    raise _not_one(snapshot, tag, found, among)


def _meant(tag: str, among: tuple[GgufVariant, ...]) -> list[GgufVariant]:
    """The variants that a tag may mean; the one whose whole name it is, where there is one."""
    found = [each for each in among if each.answers_to(tag)]
    return [each for each in found if as_word(each.stem).lower() == PART.sub("", tag).lower()] or found


def _not_one(
    snapshot: Snapshot, tag: str | None, found: list[GgufVariant], among: tuple[GgufVariant, ...]
) -> SquishError:
    """The error for a repository and a tag that do not mean one model. What it advises works."""
    repo = snapshot.repo_id
    names = [f"{repo}:{shortest_tag(each, among)}" for each in among if each.whole]
    hint = f"What can be pulled there: {', '.join(names[:12])}." if names else None
    if len(found) == 1:
        stem, parts, there = clean(found[0].stem), found[0].parts, len(found[0].files)
        problem = f"{repo} keeps {stem} in {parts} files, of which {there} are there."
        return UnsupportedModel(problem, hint=hint or _ELSEWHERE, param="model")
    if among and not names:
        problem = f"{repo} has GGUF files that are parts of a model only, and others of them are missing."
        return UnsupportedModel(problem, hint=_ELSEWHERE, param="model")
    if not among:
        return _no_gguf(snapshot, tag)
    problem = f"{repo} has no single .gguf file for {tag!r}." if tag is not None else f"{repo} has several .gguf files."
    return ModelNotFound(problem, hint=hint, param="model")


def _no_gguf(snapshot: Snapshot, tag: str | None) -> SquishError:
    """The error for a repository without a model in a .gguf file."""
    repo = snapshot.repo_id
    if any(file.path.lower().endswith(".gguf") for file in snapshot.files):
        problem = f"The .gguf files of {repo} belong to a model, such as its projector for images, but hold none."
        return UnsupportedModel(problem, hint=_ELSEWHERE, param="model")
    if tag is None:
        return UnsupportedModel(f"{repo} has no .safetensors and no .gguf weights.", param="model")
    hint = "It has no .gguf files."
    if any(file.path.endswith(".safetensors") for file in snapshot.files):
        hint += f" Its safetensors weights: squish pull {repo}, or {repo}:8bit with other bits."
    return ModelNotFound(f"{repo} has no {tag!r}.", hint=hint, param="model")
