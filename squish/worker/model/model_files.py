"""Owns how an MLX model directory meets mlx-lm: the config.json that it builds from, and what its errors mean.

What may be in a directory is judged by format/model_directory.py.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx_lm.utils

from squish.errors import CorruptModel
from squish.format import embedding, model_directory


def read_config(path: Path) -> dict[str, Any]:
    """config.json as the architecture's code reads it. Raises CorruptModel, UnsupportedModel."""
    name = model_directory.display_name(path)
    config, modules = model_directory.read_config(path, name), embedding.reader(path)(embedding.MODULES)
    return model_directory.require_config(config, name, _tensors(path), modules)


def kind_of(path: Path, config: dict[str, Any]) -> embedding.ModelKind:
    """Whether a directory with this config.json holds an embedding model."""
    return embedding.kind_of(config, embedding.reader(path)(embedding.MODULES))


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
    """Names of the weights that are here; None where there are none yet, or not all can be read."""
    name, files = model_directory.display_name(path), sorted(path.glob(model_directory.WEIGHTS))
    try:
        found = [tensor.name for file in files for tensor in model_directory.read_header(file, name)]
    except CorruptModel:
        return None
    return frozenset(found) if files else None


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
        f"The weights and config.json of {model_directory.display_name(path)} do not fit together: {reason}",
        hint="They were published that way: take the model from another repository.",
    )
