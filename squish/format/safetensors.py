"""The header of a safetensors file: which tensors lie in it, checked against the size that was announced.

A file begins with the header's length (8 bytes, little endian) and the header, a JSON object. The tensors follow, one
after another without a gap, to the end of the file. None of them is read here.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any

import msgspec

from squish.errors import CorruptModel
from squish.files import open_regular
from squish.text import clean

PREFIX = 8
_LARGEST_HEADER = 100 * 1024 * 1024
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
}  # fmt: skip


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Tensor(msgspec.Struct, frozen=True):
    """A tensor of a file: its dtype as safetensors names it, its shape, and the bytes it takes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes; a dtype that is not known is taken for one of four bytes."""
        return self.count * _BITS.get(self.dtype, 32) // 8


def header_length(start: bytes, file: str) -> int:
    """Bytes of the header that follows the first 8 bytes of a file. Raises CorruptModel."""
    length = struct.unpack("<Q", start[:PREFIX])[0] if len(start) >= PREFIX else 0
    if not 2 <= length <= _LARGEST_HEADER:
        raise CorruptModel(f"{file} is not a safetensors file.")
    return int(length)


def parse(header: bytes, file: str, size: int) -> tuple[Tensor, ...]:
    """The tensors of a header, in its order. size: of the whole file, in bytes. Raises CorruptModel."""
    return _parsed(header, file, size)[0]


def read(path: Path, file: str) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """The tensors of a file on this machine, and what its header says besides. Raises CorruptModel, OSError."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        length = header_length(stream.read(PREFIX), file)
        if length > size - PREFIX:
            raise CorruptModel(f"{file} is cut off in its header.")
        return _parsed(stream.read(length), file, size)


def _parsed(header: bytes, file: str, size: int) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    try:
        found = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        about = msgspec.json.decode(found.pop("__metadata__", msgspec.Raw(b"{}")))  # null, where MLX has nothing to say
        entries = {name: msgspec.json.decode(raw, type=_Entry) for name, raw in found.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptModel(f"The header of {file} cannot be read: {error}.") from error
    room, end = size - PREFIX - len(header), 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        start, stop = entry.data_offsets
        bits = _BITS.get(entry.dtype)
        fits = start == end and start <= stop <= room and all(each >= 0 for each in entry.shape)
        if not fits or (bits is not None and (stop - start) * 8 != math.prod(entry.shape) * bits):
            raise CorruptModel(f"The header of {file} says of {clean(name[:80])!r} what the file cannot hold.")
        end = stop
    if end != room:
        raise CorruptModel(f"{file} has {size} bytes, but its header describes {PREFIX + len(header) + end}.")
    spans = {name: each.data_offsets[1] - each.data_offsets[0] for name, each in entries.items()}
    tensors = tuple(Tensor(name, each.dtype, each.shape, spans[name]) for name, each in entries.items())
    return tensors, about if isinstance(about, dict) else {}
