"""The GGUF container: header, metadata and the table of tensors, read with every length checked against the file.

It knows the format (versions 2 and 3, little-endian); the sizes of block formats are in formats.py. It knows no model:
what a key or a tensor means is decided in plan.py and tokenizer.py. Nothing is read by C code, so a hostile file can do
no more than be refused; and the file is opened for reading only (MLX's own reader asks for write permission).
"""

from __future__ import annotations

import difflib
import itertools
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from squish.errors import CorruptModel, ModelNotFound, UnsupportedModel
from squish.worker.gguf.formats import FORMATS, REFUSED, BlockFormat

Scalar = bool | int | float | str
Value = Scalar | list[bool] | list[int] | list[float] | list[str]
Ranges = tuple[tuple[int, int], ...]
"""Bytes of a file: from, and up to but without."""

# Far above any published model, low enough that a false count cannot cost memory.
_MAX_ENTRIES = 1 << 16
_MAX_ELEMENTS = 1 << 22
_MAX_HEADER_BYTES = 1 << 28
_MAX_DIMENSIONS = 4

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
OTHER_FORMAT = "Look for the same model in the safetensors format."
"""What to do about a file of a model that mlx-lm can run."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its shape outermost dimension first, and where its bytes lie in which file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    format: BlockFormat
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Everything in the file before the tensor data. The getters raise CorruptModel for a value of the wrong type.

    present: the bytes of the file that are there, None for all of them.
    """

    path: Path
    metadata: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]
    present: Ranges | None = None

    def corrupt(self, reason: str) -> CorruptModel:
        return corrupt(self.path, reason)

    def unsupported(self, what: str, hint: str | None = OTHER_FORMAT) -> UnsupportedModel:
        """hint: what to do; that the same model runs in another format, unless it does not."""
        return UnsupportedModel(f"{self.path.name} cannot be imported: {what}.", hint=hint, param=str(self.path))

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise self.corrupt(f"{key} is not a string")
        return value

    def integer(self, key: str) -> int | None:
        value = self.metadata.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.corrupt(f"{key} is not a whole number")
        return value

    def number(self, key: str) -> float | None:
        """A float32 value as the shortest decimal that means it: 1e-05, not 9.99999974e-06."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.corrupt(f"{key} is not a number")
        return float(f"{value:.7g}")

    def flag(self, key: str) -> bool | None:
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.corrupt(f"{key} is not true or false")
        return value

    def strings(self, key: str) -> list[str]:
        value = self.metadata.get(key)
        if not isinstance(value, list):
            raise self.corrupt(f"{key} is missing or not a list")
        found = [item for item in value if isinstance(item, str)]
        if len(found) != len(value):
            raise self.corrupt(f"{key} is not a list of strings")
        return found

    def integers(self, key: str) -> list[int]:
        value = self.metadata.get(key)
        if not isinstance(value, list):
            raise self.corrupt(f"{key} is missing or not a list")
        found = [item for item in value if isinstance(item, int)]
        if len(found) != len(value):
            raise self.corrupt(f"{key} is not a list of whole numbers")
        return found


def nearest(name: str | None, known: Iterable[str]) -> str:
    """What to say of a name that is not among those known: those like it, and where all are listed."""
    alike = difflib.get_close_matches(name or "", sorted(known), cutoff=0.5)
    start = f"names like it are {', '.join(alike)}, and " if alike else ""
    return f"{start}docs/reference/gguf.md lists all that are"


def corrupt(path: Path, reason: str) -> CorruptModel:
    return CorruptModel(
        f"{path.name} is not a usable GGUF file: {reason}.", hint="Download the file again.", param=str(path)
    )


class Incomplete(Exception):
    """Bytes are needed that are not there yet. start, end: these; metadata: what was read before."""

    def __init__(self, start: int, end: int, metadata: Mapping[str, Value]) -> None:
        super().__init__(start, end)
        self.start, self.end, self.metadata = start, end, metadata


def read_header(source: Path, size: int | None = None, present: Ranges | None = None) -> GgufHeader:
    """Read and check the header of `source`. Costs time in proportion to the vocabulary, not to the weights.

    size: of the whole file in bytes, and present: what of it is there, where that is not all.
    Raises ModelNotFound, CorruptModel for damaged or truncated files, UnsupportedModel for GGUF we do not read, and
    Incomplete, which asks for as much again as is there.
    """
    try:
        with source.open("rb") as file:
            here = file.seek(0, 2)
            file.seek(0)
            return _Reader(source, file, here if size is None else size, present).header()
    except FileNotFoundError:
        raise ModelNotFound(f"The file {source} does not exist.", param=str(source)) from None
    except OSError as error:
        raise corrupt(source, f"it cannot be read ({error.strerror})") from None


def require_present(header: GgufHeader, info: TensorInfo) -> None:
    """Raises Incomplete where the bytes of a tensor are not there yet."""
    start, end = info.start, info.start + info.nbytes
    if header.present is not None and not any(first <= start and end <= last for first, last in header.present):
        raise Incomplete(start, end, header.metadata)


def read_tensor(info: TensorInfo) -> bytes:
    """The stored bytes of one tensor; CorruptModel when its file has become shorter than its header said."""
    try:
        with info.path.open("rb") as file:
            file.seek(info.start)
            data = file.read(info.nbytes)
    except OSError as error:
        raise corrupt(info.path, f"it cannot be read ({error.strerror})") from None
    if len(data) != info.nbytes:
        raise corrupt(info.path, f"it ends inside tensor {info.name}")
    return data


def _without_gap(present: Ranges) -> int:
    """Bytes from the start of the file up to the first that is missing."""
    end = 0
    for start, stop in sorted(present):
        if start > end:
            break
        end = max(end, stop)
    return end


class _Reader:
    """A cursor over the header that never reads past the file or the header budget."""

    def __init__(self, path: Path, file: BinaryIO, size: int, present: Ranges | None) -> None:
        self._path = path
        self._file = file
        self._size = size
        self._present = present
        self._here = size if present is None else _without_gap(present)
        self._budget = min(size, _MAX_HEADER_BYTES)
        self._at = 0
        self._metadata: dict[str, Value] = {}

    def header(self) -> GgufHeader:
        if self._size == 0:
            raise corrupt(self._path, "it is empty")
        if self._size < 24 or self._take(4) != b"GGUF":
            raise corrupt(self._path, "it does not begin like a GGUF file")
        version = self._integer("<I")
        if not version & 0xFFFF:
            raise UnsupportedModel(
                f"{self._path.name} is a big-endian GGUF file, made for another kind of processor.",
                hint="Take a little-endian file of the same model.",
                param=str(self._path),
            )
        if version not in (2, 3):
            raise UnsupportedModel(f"{self._path.name} is GGUF version {version}; versions 2 and 3 can be imported.")
        tensor_count, entry_count = (self._count(_MAX_ENTRIES, "tensors"), self._count(_MAX_ENTRIES, "entries"))
        metadata = self._metadata
        for _ in range(entry_count):
            key = self._string()
            if key in metadata:
                raise corrupt(self._path, f"the key {key} appears twice")
            metadata[key] = self._value(key)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 16:
            raise corrupt(self._path, "its alignment is not usable")
        entries = [self._tensor_entry() for _ in range(tensor_count)]
        data_start = -(-self._at // alignment) * alignment
        return GgufHeader(self._path, metadata, self._place(entries, data_start, alignment), self._present)

    def _place(
        self, entries: list[tuple[str, tuple[int, ...], BlockFormat, int]], data_start: int, alignment: int
    ) -> dict[str, TensorInfo]:
        tensors: dict[str, TensorInfo] = {}
        for name, shape, kind, offset in entries:
            nbytes = math.prod(shape) // kind.weights * kind.size
            if name in tensors:
                raise corrupt(self._path, f"tensor {name} appears twice")
            if offset % alignment or data_start + offset + nbytes > self._size:
                raise corrupt(self._path, f"tensor {name} lies outside the file; it may be cut off")
            tensors[name] = TensorInfo(self._path, name, shape, kind, data_start + offset, nbytes)
        placed = sorted(tensors.values(), key=lambda info: info.start)
        for before, after in itertools.pairwise(placed):
            if before.start + before.nbytes > after.start:
                raise corrupt(self._path, f"tensors {before.name} and {after.name} overlap")
        return tensors

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], BlockFormat, int]:
        name = self._string()
        rank = self._integer("<I")
        if not 1 <= rank <= _MAX_DIMENSIONS:
            raise corrupt(self._path, f"tensor {name} has {rank} dimensions")
        shape = tuple(reversed([self._integer("<Q") for _ in range(rank)]))
        kind, offset = self._integer("<I"), self._integer("<Q")
        if kind not in FORMATS:
            raise UnsupportedModel(
                f"{self._path.name}: tensor {name} is stored as {REFUSED.get(kind, f'format number {kind}')}, "
                "which cannot be imported.",
                hint=f"Look for a file in one of {', '.join(item.name for item in FORMATS.values())}.",
                param=str(self._path),
            )
        if 0 in shape or shape[-1] % FORMATS[kind].weights:
            raise corrupt(self._path, f"tensor {name} has the impossible shape {list(shape)}")
        return name, shape, FORMATS[kind], offset

    def _value(self, key: str) -> Value:
        kind = self._integer("<I")
        if kind != _ARRAY:
            return self._scalar(kind, key)
        element = self._integer("<I")
        count = self._count(_MAX_ELEMENTS, f"elements of {key}")
        if element == _ARRAY:
            raise UnsupportedModel(f"{self._path.name}: {key} is a list of lists, which cannot be imported.")
        if element == _STRING:
            return [self._string() for _ in range(count)]
        if element not in _SCALARS:
            raise corrupt(self._path, f"{key} has the unknown type {element}")
        code = _SCALARS[element]
        return list(struct.unpack(f"<{count}{code[1]}", self._take(count * struct.calcsize(code))))

    def _scalar(self, kind: int, key: str) -> Scalar:
        if kind == _STRING:
            return self._string()
        if kind not in _SCALARS:
            raise corrupt(self._path, f"{key} has the unknown type {kind}")
        value: Scalar = struct.unpack(_SCALARS[kind], self._take(struct.calcsize(_SCALARS[kind])))[0]
        return value

    def _string(self) -> str:
        raw = self._take(self._integer("<Q"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise corrupt(self._path, f"a text before byte {self._at} is not UTF-8") from None

    def _count(self, limit: int, what: str) -> int:
        count = self._integer("<Q")
        if count > limit:
            raise corrupt(self._path, f"it claims {count} {what}")
        return count

    def _integer(self, code: str) -> int:
        value: int = struct.unpack(code, self._take(struct.calcsize(code)))[0]
        return value

    def _take(self, count: int) -> bytes:
        if count > self._budget - self._at:
            raise corrupt(self._path, f"its header asks for {count} bytes at byte {self._at}, more than the file has")
        if self._at + count > self._here:
            raise Incomplete(self._here, min(2 * self._here, self._size), self._metadata)
        self._at += count
        data = self._file.read(count)
        if len(data) != count:
            raise corrupt(self._path, "it ends inside the header")
        return data
