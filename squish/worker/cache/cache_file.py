"""KV caches as safetensors, the format of mlx_lm's load_prompt_cache: laid out by MLX's thread, written by any other.

`lay_out` does all that needs MLX: afterwards there are bytes in memory, which `CacheImage` gives without copying them.
A cache that can be cut at any token may be laid out in parts, which `joined` puts together again. It knows no files.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import CacheList

_DTYPES = {
    mx.bool_: "BOOL", mx.uint8: "U8", mx.uint16: "U16", mx.uint32: "U32", mx.uint64: "U64", mx.int8: "I8",
    mx.int16: "I16", mx.int32: "I32", mx.int64: "I64", mx.float16: "F16", mx.bfloat16: "BF16", mx.float32: "F32",
    mx.float64: "F64", mx.complex64: "C64",
}  # fmt: skip
_UNSIGNED = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}  # numpy has no bfloat16, and bytes no dtype


@dataclass(frozen=True, slots=True)
class CacheImage:
    """A file's header, and its tensors as unsigned numbers, in the memory in which MLX holds them."""

    header: bytes
    tensors: list[np.ndarray]

    @property
    def nbytes(self) -> int:
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)

    def pieces(self, largest: int) -> Iterator[memoryview]:
        """The file's bytes in order, at most `largest` at once."""
        yield from _cut(memoryview(self.header), largest)
        for tensor in self.tensors:
            yield from _pieces(tensor, largest)


def lay_out(caches: list[Any], about: dict[str, str]) -> CacheImage:
    """A file of these caches, one per layer; about: what its header is to say besides. Evaluates what is not yet."""
    arrays: dict[str, mx.array] = {}
    kinds: list[Any] = [""]
    for name, item in dict(tree_flatten([cache.state for cache in caches])).items():
        arrays[name], kind = _as_array(item)
        if kind:
            kinds.append((name, kind))
    raw = {name: array.view(_UNSIGNED[array.itemsize]) for name, array in arrays.items()}
    mx.eval(raw)
    metadata = dict(tree_flatten([about, [type(cache).__name__ for cache in caches], kinds]))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype], "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    tensors = [np.array(array, copy=False) for array in raw.values()]
    return CacheImage(len(text).to_bytes(8, "little") + text, tensors)


def _as_array(item: Any) -> tuple[mx.array, str]:
    """A part of a cache's state, and what mlx_lm calls its kind; "" is an array."""
    if isinstance(item, mx.array):
        return item, ""
    if item is None:
        return mx.array([]), "none"
    if isinstance(item, str):
        return mx.array([ord(character) for character in item]), "string"
    return mx.array(item), "scalar"


def _pieces(tensor: Any, largest: int) -> Iterator[memoryview]:
    if not tensor.size:
        return
    if tensor.flags.c_contiguous:
        yield from _cut(memoryview(tensor).cast("B"), largest)
    elif tensor.ndim == 1:
        yield from _cut(memoryview(np.ascontiguousarray(tensor).tobytes()), largest)
    else:
        for part in tensor:
            yield from _pieces(part, largest)


def _cut(data: memoryview, largest: int) -> Iterator[memoryview]:
    for at in range(0, len(data), largest):
        yield data[at : at + largest]


def part(cache: Any, start: int, end: int) -> Any:
    """What a cache that can be trimmed holds of the tokens from `start` to `end`, as a cache, on the same arrays."""
    made = copy.copy(cache)
    if type(cache) is CacheList:
        made.caches = tuple(part(each, start, end) for each in cache.caches)
    elif cache.keys is not None:
        made.keys, made.values = _sliced(cache.keys, start, end), _sliced(cache.values, start, end)
        made.offset = end - start
    return made


def _sliced(arrays: Any, start: int, end: int) -> Any:
    """arrays: one of (…, tokens, size), or several where it is quantized."""
    if isinstance(arrays, mx.array):
        return arrays[..., start:end, :]
    return tuple(each[..., start:end, :] for each in arrays)


def joined(parts: Sequence[Any]) -> Any:
    """One cache of parts that follow each other."""
    made = copy.copy(parts[0])
    if type(made) is CacheList:
        made.caches = tuple(joined(each) for each in zip(*(part.caches for part in parts), strict=True))
    elif made.keys is not None:
        made.keys, made.values = _concatenated([p.keys for p in parts]), _concatenated([p.values for p in parts])
        made.offset = sum(part.offset for part in parts)
    return made


def _concatenated(parts: list[Any]) -> Any:
    if isinstance(parts[0], mx.array):
        return mx.concatenate(parts, axis=-2)
    return tuple(mx.concatenate(list(each), axis=-2) for each in zip(*parts, strict=True))
