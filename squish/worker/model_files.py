"""Owns reading and checking the files of an MLX model directory, before anything is built from them."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx_lm.utils
from mlx_lm.utils import MODEL_REMAPPING

from squish.errors import CorruptModel, UnsupportedModel
from squish.format import model_directory
from squish.format.config import normalized

_LARGEST_HEADER = 100 << 20
_MOST_LAYERS = 10_000  # building more would take all memory before anything is read
# While a model is being pulled, its files lie one directory deeper.
_IN_PROGRESS = ("files", "compressed")


def read_config(path: Path) -> dict[str, Any]:
    """config.json as the architecture's code reads it. Raises CorruptModel, UnsupportedModel."""
    config = model_directory.read_config(path, display_name(path))
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise CorruptModel(f"config.json of {display_name(path)} names no model_type.", param="config.json")
    if config.get("model_file") is not None:
        raise UnsupportedModel(
            f"{display_name(path)} wants to run its own code ({config['model_file']!r}).", param="config.json"
        )
    module = MODEL_REMAPPING.get(kind, kind)
    if not module.isidentifier() or importlib.util.find_spec(f"mlx_lm.models.{module}") is None:
        own_code = " It wants to run its own code, which Squish never does." if "auto_map" in config else ""
        raise UnsupportedModel(
            f"The architecture {kind!r} of {display_name(path)} is not supported.{own_code}", param="config.json"
        )
    text = config.get("text_config")
    layers = (text if isinstance(text, dict) else config).get("num_hidden_layers")
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise CorruptModel(
            f"config.json of {display_name(path)} says that the model has {layers:,} layers.", param="config.json"
        )
    return normalized(config, display_name(path), _tensors(path))


@contextmanager
def given(config: dict[str, Any]) -> Iterator[None]:
    """mlx-lm builds from this config.json, instead of reading the file again in a way of its own."""
    own = mlx_lm.utils.load_config
    mlx_lm.utils.load_config = lambda _: copy.deepcopy(config)
    try:
        yield
    finally:
        mlx_lm.utils.load_config = own


def _tensors(path: Path) -> frozenset[str] | None:
    """Names of the weights that are here; None where there are none yet."""
    headers = [safetensors_header(file) for file in path.glob("model*.safetensors")]
    return frozenset(name for header in headers for name in header or ()) if headers and all(headers) else None


def check_weight_files(path: Path) -> None:
    """Every shard is there and whole. mlx would name neither the missing nor the damaged one."""
    shards = {file.name for file in path.glob("model*.safetensors")}
    index = path / "model.safetensors.index.json"
    if index.exists():
        try:
            named = set(json.loads(index.read_text())["weight_map"].values())
            if any(Path(name).name != name for name in named):
                raise ValueError("it names files outside of the directory")
            shards |= named
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CorruptModel(f"{index.name} of {display_name(path)} cannot be read.", param=index.name) from error
    if not shards:
        raise CorruptModel(f"{display_name(path)} has no weights (model*.safetensors).", param="model.safetensors")
    for name in sorted(shards):
        if not (path / name).is_file():
            raise CorruptModel(
                f"{name} of {display_name(path)} is missing.", hint="Download the model again.", param=name
            )
        if safetensors_header(path / name) is None:
            raise CorruptModel(
                f"{name} of {display_name(path)} is damaged.", hint="Download the model again.", param=name
            )


def safetensors_header(file: Path) -> dict[str, Any] | None:
    """The header of a safetensors file; None when it cannot be read or does not describe exactly the bytes after it."""
    try:
        with file.open("rb") as stream:
            length: int = struct.unpack("<Q", stream.read(8))[0]
            if length > _LARGEST_HEADER:
                return None
            header: dict[str, Any] = json.loads(stream.read(length))
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        return header if file.stat().st_size == 8 + length + end else None
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


# What mlx-lm raises while it builds a model from a config.json that is not of these weights.
MISFITS = (ValueError, TypeError, LookupError, AttributeError, NameError, ArithmeticError, RuntimeError)


def mismatch(path: Path, error: Exception) -> CorruptModel:
    """The error for what building a model met: config.json asks for other weights than there are, or makes no sense."""
    reason = " ".join(str(error).split())[:300]
    if isinstance(error, KeyError):
        reason = f"{reason} is missing."
    elif found := re.search(r"__init__\(\) missing \d+ required .*?arguments?: (.*)", reason):
        reason = f"config.json lacks {found[1]}."
    elif not isinstance(error, ValueError | RuntimeError | OSError):
        reason = f"a value in config.json is of the wrong kind ({reason})."
    return CorruptModel(
        f"The weights and config.json of {display_name(path)} do not fit together: {reason}",
        hint="They were made so: take the model from another repository.",
    )


def display_name(path: Path) -> str:
    """What a user calls the model in this directory: the store spells `org/repo:tag` in a way that a disk takes."""
    path = path.parent if path.name in _IN_PROGRESS else path
    return path.name.partition("~")[0].replace("--", "/").replace("+", ":")
