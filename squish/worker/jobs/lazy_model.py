"""The model that is compressed, as a graph of unevaluated arrays: what has arrived is read lazily, the rest stands in.

Building it reads no weights; evaluating an array does, and memory has it for as long as somebody holds that array.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_map_with_path
from mlx_lm.convert import MODEL_CONVERSION_DTYPES
from mlx_lm.utils import _get_classes

from squish.errors import CorruptModel, UnsupportedModel
from squish.worker.model.model_files import MISFITS, kind_of, mismatch, read_config

_DTYPES = {
    "F64": mx.float32, "F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16, "I64": mx.int64, "I32": mx.int32,
    "I16": mx.int16, "I8": mx.int8, "U64": mx.uint64, "U32": mx.uint32, "U16": mx.uint16, "U8": mx.uint8,
    "BOOL": mx.bool_, "F8_E4M3": mx.uint8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shards:
    """The files of a model. source: directory with config.json and those that arrived; headers: of all, by name."""

    source: Path
    headers: dict[str, Path]
    arrived: frozenset[str]

    @property
    def complete(self) -> bool:
        """Whether all of the model is here."""
        return self.headers.keys() <= self.arrived

    def weights(self) -> tuple[dict[str, mx.array], dict[str, str]]:
        """Every tensor of the model, those of arrived shards read when they are needed; and the shard of each.

        Raises CorruptModel, UnsupportedModel.
        """
        weights: dict[str, mx.array] = {}
        origin: dict[str, str] = {}
        for shard, path in self.headers.items():
            if shard in self.arrived:
                found = _load(self.source, shard)
            else:
                header = json.loads(path.read_bytes())
                found = {name: _stand_in(name, entry) for name, entry in header.items() if name != "__metadata__"}
            weights.update(found)
            origin.update(dict.fromkeys(found, shard))
        return weights, origin

    def model(self) -> Any:
        """The model with all its weights unread."""
        return original(self.source, self.weights()[0])[0]


def writes_text(source: Path) -> bool:
    """Whether it is a model that reads tokens and predicts the next one."""
    return kind_of(source, read_config(source)) == "chat"


def original(source: Path, weights: dict[str, mx.array]) -> tuple[Any, dict[str, Any]]:
    """The model before it is compressed, its parameters unevaluated, and its config.json."""
    config = read_config(source)
    try:
        model_class, arguments = _classes(source, config)
        model = model_class(arguments.from_dict(config))
        sanitized = model.sanitize(dict(weights)) if hasattr(model, "sanitize") else dict(weights)
        model.load_weights(list(sanitized.items()), strict=True)
    except MISFITS as error:
        raise mismatch(source, error) from error
    _cast(model, config)
    return model, config


def _classes(source: Path, config: dict[str, Any]) -> tuple[Any, Any]:
    if kind_of(source, config) != "chat":
        from squish.worker.embedding import loading

        return loading.classes(config)
    model_class, arguments = _get_classes(config)
    return model_class, arguments


def _cast(model: Any, config: dict[str, Any]) -> None:
    """What config.json calls the model's number format, all weights get that mlx-lm would give it."""
    text_config = config.get("text_config") or {}
    places = [each.get(key) for each in (config, text_config) for key in ("torch_dtype", "dtype")]
    named = next((each for each in places if each), "")
    if named not in MODEL_CONVERSION_DTYPES:
        return
    dtype, wanted = getattr(mx, named), getattr(model, "cast_predicate", lambda _: True)

    def cast(name: str, array: mx.array) -> mx.array:
        return array.astype(dtype) if wanted(name) and mx.issubdtype(array.dtype, mx.floating) else array

    model.update(tree_map_with_path(cast, model.parameters()))


def _load(source: Path, shard: str) -> dict[str, mx.array]:
    try:
        found: Any = mx.load(str(source / shard))
    except RuntimeError as error:
        raise CorruptModel(f"{shard} cannot be read: {error}.", param=shard) from error
    return cast(dict[str, mx.array], found)


def _stand_in(name: str, entry: dict[str, Any]) -> mx.array:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise UnsupportedModel(f"{name} is stored as {entry['dtype']}, which cannot be compressed.")
    return mx.zeros(entry["shape"], dtype)
