"""Whether what the catalog says of a model is what its repository says on the Hub. No weights are downloaded."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from squish import figures
from squish.config.settings import Settings
from squish.download.remote_file import RemoteFile
from squish.download.transfer import Download
from squish.errors import CorruptModel, GatedRepo, ModelNotFound, UnsupportedModel
from squish.format import abilities, embedding
from squish.format.architectures import ENCODERS
from squish.format.config import context_length, text_of
from squish.hub.client import Hub
from squish.hub.snapshot import HubFile, Snapshot
from squish.memory import fit
from squish.models.catalog import CatalogEntry
from squish.models.recipes import with_scales
from squish.pull import eligible
from squish.pull.repository import choose, is_weights

_SMALL = (eligible.CONFIG, eligible.TOKENIZER_CONFIG, eligible.INDEX, eligible.MODULES, "chat_template.jinja")
_LARGEST = 64 << 20  # bytes of a small file
_APART = 0.15  # by which sizes may differ: embeddings and norms have other bits than the rest
_ROUNDED = 0.1  # bits of a weight: the catalog may round them, and count norms
_DTYPES = {"float32": 32.0, "float16": 16.0, "bfloat16": 16.0}


async def problems(entry: CatalogEntry, settings: Settings) -> tuple[str, ...]:
    """What is not as the catalog says, each a sentence without its full stop; nothing where all is right.

    Raises Offline, HubUnreachable, HubError and StoreError, which say nothing about the entry.
    """
    hub = Hub(settings)
    try:
        snapshot = await hub.snapshot(entry.repo)
    except (ModelNotFound, GatedRepo) as error:
        return (error.message.removesuffix("."),)
    found = [f"{entry.repo} is called {snapshot.now} now"] if snapshot.now else []
    try:
        files = choose(snapshot, None)
        contents = await _small_files(files, hub)
        config = _judged(files, contents, entry.repo)
    except GatedRepo:
        return (*found, f"{entry.repo} has a license to accept")
    except (ModelNotFound, UnsupportedModel, CorruptModel) as error:
        return (*found, error.message.removesuffix("."))
    return (*found, *_differences(entry, snapshot, files, config, contents))


async def _small_files(files: tuple[HubFile, ...], hub: Hub) -> dict[str, bytes]:
    wanted = [file for file in files if file.path in _SMALL and file.size <= _LARGEST]
    remote = tuple(RemoteFile(each.url, each.path, each.size, each.sha256, each.git_blob) for each in wanted)
    with tempfile.TemporaryDirectory() as folder:
        download = Download(remote, Path(folder), headers=hub.headers())
        await download.run()
        return {each.path: (download.directory / each.path).read_bytes() for each in wanted}


def _judged(files: tuple[HubFile, ...], contents: dict[str, bytes], repo: str) -> dict[str, Any]:
    """config.json of a repository that can be pulled. Raises UnsupportedModel, CorruptModel."""
    names = [file.path for file in files]
    config = eligible.read_config(contents.get(eligible.CONFIG), repo)
    eligible.require(config, repo, contents.get(eligible.MODULES))
    eligible.require_tokenizer(contents.get(eligible.TOKENIZER_CONFIG), names, repo)
    eligible.require_shards(contents.get(eligible.INDEX), names, repo)
    return config


def _differences(
    entry: CatalogEntry,
    snapshot: Snapshot,
    files: tuple[HubFile, ...],
    config: dict[str, Any],
    contents: dict[str, bytes],
) -> list[str]:
    size = sum(file.size for file in files if is_weights(file.path))
    kind = embedding.kind_of(config, contents.get(eligible.MODULES))
    pairs = [
        ("context", f"{entry.context:,} tokens", f"{context_length(config):,} tokens"),
        ("license", entry.license, snapshot.license or "not stated"),
        ("kind", "embedding" if entry.kind == "embedding" else "chat", kind),
    ]
    if abs(size - entry.size) > _APART * entry.size:
        pairs.append(("size", figures.size(entry.size), figures.size(size)))
    pairs += _shape_pairs(entry, config)
    if bits := _bits_of(config):
        low, high = bits
        if not low - _ROUNDED <= entry.bits <= high + _ROUNDED:
            pairs.append(("bits", f"{entry.bits:g}", f"{low:g}" if low == high else f"{low:g} to {high:g}"))
    if kind == "chat":
        pairs.append(("tools", _yes(entry.tools), _yes(_tools(contents))))
    apart = [pair for pair in pairs if pair[1] != pair[2]]
    return [f"{what} on the Hub: {there}; in the catalog: {here}" for what, here, there in apart]


def _shape_pairs(entry: CatalogEntry, config: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Each field of the shape, here and there. Encoders keep no cache, and an entry need not say its shape."""
    there = fit.dimensions(config)
    if entry.shape is None or config.get("model_type") in ENCODERS:
        return []
    if there is None:
        return [("shape", "known", "not stated in config.json")]
    said = asdict(there)
    return [(f"shape.{name}", _said(value), _said(said[name])) for name, value in asdict(entry.shape).items()]


def _bits_of(config: dict[str, Any]) -> tuple[float, float] | None:
    """The fewest and the most bits a weight of a matrix, scales included; None where config.json does not say.

    They are the same unless matrices differ.
    """
    found = config.get("quantization") or config.get("quantization_config")
    if not isinstance(found, Mapping):
        dtype = text_of(config).get("dtype") or text_of(config).get("torch_dtype") or config.get("torch_dtype")
        bits = _DTYPES.get(str(dtype))
        return None if bits is None else (bits, bits)
    own = [found, *(each for each in found.values() if isinstance(each, Mapping))]
    sizes = [size for each in own if (size := _with_scales({**found, **each})) is not None]
    return (min(sizes), max(sizes)) if sizes else None


def _with_scales(said: Mapping[str, Any]) -> float | None:
    """Bits a weight of a matrix that config.json says this of, scales included; None where it says too little."""
    mode, bits, group = said.get("mode", "affine"), said.get("bits"), said.get("group_size", 64)
    if not isinstance(bits, int) or not isinstance(group, int) or group < 1:
        return None
    return with_scales(bits, group, str(mode))


def _said(value: object) -> str:
    return _yes(value) if isinstance(value, bool) else f"{value:,}"


def _tools(contents: dict[str, bytes]) -> bool:
    """Whether the chat template shows how tools are called."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (eligible.TOKENIZER_CONFIG, "chat_template.jinja"):
            if name in contents:
                (Path(folder) / name).write_bytes(contents[name])
        return abilities.judge(abilities.chat_template(Path(folder)), b"").tools


def _yes(value: bool) -> str:
    return "yes" if value else "no"
