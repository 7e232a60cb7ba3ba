"""The use case of finding a model: the catalog, what is installed, and what the Hub has that can be run here.

MLX repositories come first, then safetensors of architectures that mlx-lm runs, then GGUF files that can be imported,
and where something was asked for, embedding models.
It knows no terminal.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from squish.config.model_defaults import kv_bits_by_name
from squish.config.settings import Settings
from squish.errors import InvalidName
from squish.format import architectures
from squish.hub.client import Hub
from squish.hub.rows import HubModel, Kind
from squish.memory import fit, machine
from squish.models import catalog
from squish.models.catalog import CatalogEntry, packaged_file
from squish.models.manifest import Installed, read_json
from squish.models.store import Store
from squish.names import RepoName, parse

Sort = Literal["downloads", "likes", "updated", "size", "parameters", "name"]

_BYTES = {"F64": 8.0, "I64": 8.0, "U64": 8.0, "F32": 4.0, "I32": 4.0, "U32": 4.0, "F4": 0.5, "U8": 1.0, "I8": 1.0}
_NAMED_BITS = re.compile(r"(?:^|[-_.])(?:int|q)?([2-8])[-_]?bits?(?:$|[-_.])|(?:mxfp|nvfp)(4|8)", re.IGNORECASE)
_NAMED_SIZE = re.compile(r"(?:^|[-_.])(\d+(?:\.\d+)?)(b|m)(?:$|[-_.])", re.IGNORECASE)
_GGUF_BITS = 4.8
_COMPRESSED_BITS = 4.5
_MOST_BITS = 32.5  # more is the header of a file that holds next to no weights


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is searched. context: tokens that the fit is for; fits: only what fits; sort None keeps our own order."""

    query: str
    context: int = fit.USUAL_CONTEXT
    fits: bool = False
    sort: str | None = None
    limit: int = 20


@dataclass(frozen=True, slots=True)
class _Here:
    """The machine that models are to fit. kv_bits: those that are set for a model."""

    machine: fit.Machine
    kv_bits: Callable[[str], int | None]

    def with_kv_bits_of(self, name: str) -> fit.Machine:
        return replace(self.machine, kv_bits=self.kv_bits(name))


def _here(settings: Settings) -> _Here:
    return _Here(machine.read(), kv_bits_by_name(settings))


@dataclass(frozen=True, slots=True)
class Found:
    """A model that can be pulled by this name; 0 and None where it is not known.

    size: bytes on disk once it is installed; bits: per weight, so that a repository of full precision, which is
    compressed while it is pulled, has the bits it gets; download: bytes that a pull fetches, None where that is not
    known; context_length: tokens that it was made for; memory: bytes needed at the context that was asked for;
    shape: what memory rests on, guessed where not
    exact; updated: `2026-01-31`; kv_bits: those that are set for its KV cache.
    """

    name: str
    repo: str
    author: str
    kind: Kind | Literal["installed"]
    parameters: int
    bits: float | None
    size: int
    memory: int
    fits: fit.Fits | None
    shape: fit.Shape | None = None
    downloads: int | None = None
    likes: int | None = None
    updated: str | None = None
    gated: bool = False
    download: int | None = None
    context_length: int | None = None
    kv_bits: int | None = None


async def everywhere(wanted: SearchQuery, settings: Settings) -> list[Found]:
    """The catalog beside what the Hub has. Raises Offline, HubUnreachable, HubError."""
    here, hub = await asyncio.to_thread(_here, settings), Hub(settings)
    listed: dict[str, Found] = {}
    kinds: tuple[Kind, ...] = ("mlx", "safetensors", "gguf", "embedding")
    for kind in kinds if wanted.query else kinds[:3]:  # the most popular of all are embedding models
        for model in await hub.search(wanted.query, kind, limit=max(50, wanted.limit)):
            if model.repo_id not in listed and _runs(model):
                listed[model.repo_id] = _from_hub(model, wanted.context, here)
    found = [
        _with_popularity(_from_catalog(entry, wanted.context, here), listed.pop(entry.repo, None))
        for entry in catalog.matching(wanted.query)
    ]
    if not wanted.query:  # nothing was asked for: what is popular comes first, from every source
        rest = sorted([*found, *listed.values()], key=lambda each: -(each.downloads or 0))
        return _chosen([each for each in rest if each.downloads], wanted)
    return _chosen([*found, *listed.values()], wanted)


def offline(wanted: SearchQuery, settings: Settings) -> list[Found]:
    """What is known without a connection: installed models and the catalog."""
    here = _here(settings)
    words = wanted.query.lower().split()
    installed = {
        each.manifest.id: _from_store(each, wanted.context, here)
        for each in Store(settings.cache_dir).installed()
        if all(word in f"{each.manifest.id} {each.manifest.source}".lower() for word in words)
    }
    rest = [each for each in catalog.matching(wanted.query) if each.id not in installed]
    return _chosen([*installed.values(), *(_from_catalog(each, wanted.context, here) for each in rest)], wanted)


def _chosen(found: Iterable[Found], wanted: SearchQuery) -> list[Found]:
    rows = [each for each in found if not wanted.fits or each.fits in ("yes", "tight")]
    return ordered(rows, wanted.sort)[: wanted.limit]


def ordered(found: Sequence[Found], sort: str | None) -> list[Found]:
    """Sorted as asked; what is not known comes last. None leaves our own order."""
    match sort:
        case "downloads" | "likes":
            return sorted(found, key=lambda each: -(getattr(each, sort) or 0))
        case "updated":
            return sorted(found, key=lambda each: each.updated or "", reverse=True)
        case "size" | "parameters":
            return sorted(found, key=lambda each: (not getattr(each, sort), getattr(each, sort), each.name))
        case "name":
            return sorted(found, key=lambda each: each.name.lower())
    return list(found)


def merged(known: Sequence[Found], hub: Iterable[Found]) -> list[Found]:
    """What is known here, with the Hub's figures where it has some; then what only the Hub has."""
    there = {each.name: each for each in hub}
    repos = {each.repo: each for each in there.values()}
    here = [_with_hub(each, there.pop(each.name, None), repos.get(each.repo)) for each in known]
    taken = {each.repo for each in here}
    return here + [each for each in there.values() if each.repo not in taken]


def exact(query: str, found: Sequence[Found]) -> list[Found]:
    """The repository that a query names in full, when it is not among those found: it can be pulled all the same."""
    try:
        ref = parse(query)
    except InvalidName:
        return []
    if not isinstance(ref, RepoName) or any(each.name == str(ref) for each in found):
        return []
    return [Found(str(ref), ref.repo_id, ref.org, "safetensors", 0, None, 0, 0, None)]


def _with_hub(known: Found, same: Found | None, of_repo: Found | None) -> Found:
    """same: what the Hub says of this name. What is installed is known from its files."""
    if same is None or known.kind == "installed":
        found = _with_popularity(known, same or of_repo)
        return replace(found, bits=found.bits or same.bits) if same else found
    return same


def _with_popularity(entry: Found, listed: Found | None) -> Found:
    if listed is None:
        return entry
    return replace(entry, downloads=listed.downloads, likes=listed.likes, updated=listed.updated, gated=listed.gated)


def _runs(model: HubModel) -> bool:
    """Whether we can run it, as far as the Hub says; an MLX repository that says nothing is believed."""
    if model.kind == "gguf":
        return model.architecture in architectures.GGUF
    known = architectures.supported()
    return model.architecture in known or (model.kind == "mlx" and model.architecture is None)


def _from_hub(model: HubModel, context: int, here: _Here) -> Found:
    bits = float(model.bits) if model.bits else _named_bits(model.repo_id)
    stored = int(sum(_BYTES.get(name, 2.0 if "16" in name else 1.0) * n for name, n in model.tensors.items()))
    parameters = _parameters(model, bits)
    download = stored or None
    if model.kind == "gguf":
        bits, stored, download = None, int(parameters * _GGUF_BITS / 8), None
    elif not bits and parameters and "U32" not in model.tensors and model.kind != "embedding":
        # Full precision: what pulling makes of it.
        bits, stored = _COMPRESSED_BITS, int(parameters * _COMPRESSED_BITS / 8)
    elif not bits and stored and parameters:
        bits = round(8 * stored / parameters, 1)
    return _weighed(
        Found(
            name=model.repo_id,
            repo=model.repo_id,
            author=model.repo_id.partition("/")[0],
            kind=model.kind,
            parameters=parameters,
            bits=bits,
            size=stored or int(parameters * (bits or 16) / 8),
            memory=0,
            fits=None,
            downloads=model.downloads,
            likes=model.likes,
            updated=model.updated,
            gated=model.gated,
            download=download,
        ),
        context,
        here,
    )


def _from_catalog(entry: CatalogEntry, context: int, here: _Here) -> Found:
    size = int(entry.parameters * entry.bits / 8)
    author = entry.repo.partition("/")[0]
    kind: Literal["mlx", "embedding"] = "embedding" if entry.kind == "embedding" else "mlx"
    found = Found(entry.id, entry.repo, author, kind, entry.parameters, entry.bits, size, 0, None, download=size)
    found = replace(found, context_length=entry.context)
    package = entry.package
    if package and (file := packaged_file(package)):  # which a pull takes, and connects to nothing
        size = file.stat().st_size
        bits = round(8 * size / entry.parameters, 1)
        found = replace(found, repo=f"package:{package.module}/{package.file}", author="", kind="gguf")
        found = replace(found, bits=bits, size=size, download=0)
    return _weighed(replace(found, shape=shape_of(entry)), context, here)


def shape_of(entry: CatalogEntry) -> fit.Shape:
    """What the catalog knows of a model's memory, as its config.json would say it."""
    known = entry.shape
    if known is None:
        return replace(fit.guessed(entry.parameters), widened=fit.widened(entry.bits))
    return fit.with_dimensions(known, entry.parameters, fit.widened(entry.bits))


def _from_store(installed: Installed, context: int, here: _Here) -> Found:
    manifest = installed.manifest
    bits = manifest.bits or 0
    where = manifest.source.removeprefix("hub:")
    author = where.partition("/")[0] if manifest.source.startswith("hub:") else ""
    shape = fit.shape_of(read_json(installed.path / "config.json"), manifest.parameters)
    found = Found(manifest.id, where, author, "installed", manifest.parameters, None, manifest.size, 0, None, shape)
    found = replace(found, bits=bits if 0 < bits <= _MOST_BITS else None, context_length=manifest.context_length)
    return _weighed(found, context, here)


def _weighed(found: Found, context: int, here: _Here) -> Found:
    """With the memory it needs and whether that is there; unknown without a number of parameters."""
    if not found.parameters:
        return found
    shape = found.shape or replace(fit.guessed(found.parameters), widened=fit.widened(found.bits or 0))
    machine = here.with_kv_bits_of(found.name)
    needs = fit.estimate(shape, found.size, context, machine)
    fits = fit.verdict(needs, machine)
    return replace(found, shape=shape, memory=needs.needed, fits=fits, kv_bits=machine.kv_bits)


def _parameters(model: HubModel, bits: float | None) -> int:
    """All weights: packed words counted as what they hold; where the Hub says nothing, what the name says."""
    if model.tensors and (words := model.tensors.get("U32")) and bits:
        return int(words * 32 / bits)
    if model.parameters:
        return model.parameters
    named = _NAMED_SIZE.search(model.repo_id.partition("/")[2])
    return int(float(named[1]) * (1e9 if named[2].lower() == "b" else 1e6)) if named else 0


def _named_bits(repo_id: str) -> float | None:
    found = _NAMED_BITS.search(repo_id.partition("/")[2])
    return float(found[1] or found[2]) if found else None
