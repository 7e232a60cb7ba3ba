"""A small GGUF version 3 writer for the tests: metadata, tensors, and the block formats the importer keeps packed.

Written from the format's description; it shares no code with the importer, so that the two check each other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

F32, F16, Q4_0, Q4_1, Q8_0 = 0, 1, 2, 3, 8
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9

Value = bool | int | float | str | list[str] | list[int] | list[float] | list[bool]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Blob:
    """One tensor as it lies in the file: `shape` outermost first, `data` already in the format of `kind`."""

    shape: tuple[int, ...]
    kind: int
    data: bytes

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.data)

    def content(self) -> bytes:
        return self.data


def pack(values: Floats, kind: int) -> Blob:
    """Encode float32 values in one of F32, F16, Q4_0, Q4_1, Q8_0."""
    return Blob(values.shape, kind, _ENCODERS[kind](values.astype(np.float32)))


def unpack(blob: Blob) -> Floats:
    """The float32 values that a reader of the format must see in `blob`."""
    return _DECODERS[blob.kind](blob.data).astype(np.float32).reshape(blob.shape)


def write_gguf(path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, Blob]) -> Path:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(_text(key) + _value(value) for key, value in metadata.items())
    offset = 0
    for name, blob in tensors.items():
        dims = struct.pack(f"<I{len(blob.shape)}Q", len(blob.shape), *reversed(blob.shape))
        head += _text(name) + dims + struct.pack("<IQ", blob.kind, offset)
        offset += blob.size + -blob.size % 32
    with path.open("wb") as file:
        file.write(head + b"\0" * (-len(head) % 32))
        for blob in tensors.values():
            file.write(blob.content() + b"\0" * (-blob.size % 32))
    return path


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _U32, value)
        case float():
            return struct.pack("<If", _F32, value)
        case str():
            return struct.pack("<I", _STRING) + _text(value)
        case list():
            if value and isinstance(value[0], str):
                return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(_text(str(item)) for item in value)
            if value and isinstance(value[0], float):
                numbers = struct.pack(f"<{len(value)}f", *map(float, value))
                return struct.pack("<IIQ", _ARRAY, _F32, len(value)) + numbers
            if value and isinstance(value[0], bool):
                return struct.pack("<IIQ", _ARRAY, _BOOL, len(value)) + struct.pack(f"<{len(value)}?", *value)
            return struct.pack("<IIQ", _ARRAY, _I32, len(value)) + struct.pack(f"<{len(value)}i", *map(int, value))


def _half(values: Floats) -> Floats:
    """Rounded to what a float16 can hold."""
    return values.astype(np.float16).astype(np.float32)


def _nibbles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Weight i and weight i + 16 share a byte; the first takes the low half."""
    return codes[:, :16] | (codes[:, 16:] << np.uint8(4))


def _spread(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _blocks(*columns: NDArray[np.generic]) -> bytes:
    """Join per-block columns, each of shape (blocks, n), byte by byte."""
    return np.concatenate([np.ascontiguousarray(column).view(np.uint8) for column in columns], axis=1).tobytes()


def _encode_q8_0(values: Floats) -> bytes:
    rows = values.reshape(-1, 32)
    scale = _half(np.abs(rows).max(axis=1, keepdims=True) / 127)
    return _blocks(
        scale.astype(np.float16),
        np.clip(np.round(rows / scale), -127, 127).astype(np.int8),
    )


def _decode_q8_0(data: bytes) -> Floats:
    raw = np.frombuffer(data, np.uint8).reshape(-1, 34)
    return raw[:, :2].copy().view(np.float16).astype(np.float32) * raw[:, 2:].copy().view(np.int8)


def _encode_q4_0(values: Floats) -> bytes:
    rows = values.reshape(-1, 32)
    scale = _half(np.abs(rows).max(axis=1, keepdims=True) / 7)
    codes = np.clip(np.round(rows / scale) + 8, 0, 15).astype(np.uint8)
    return _blocks(scale.astype(np.float16), _nibbles(codes))


def _decode_q4_0(data: bytes) -> Floats:
    raw = np.frombuffer(data, np.uint8).reshape(-1, 18)
    return raw[:, :2].copy().view(np.float16).astype(np.float32) * (_spread(raw[:, 2:]).astype(np.float32) - 8)


def _encode_q4_1(values: Floats) -> bytes:
    rows = values.reshape(-1, 32)
    low = _half(rows.min(axis=1, keepdims=True))
    scale = _half((rows.max(axis=1, keepdims=True) - low) / 15)
    codes = np.clip(np.round((rows - low) / scale), 0, 15).astype(np.uint8)
    return _blocks(scale.astype(np.float16), low.astype(np.float16), _nibbles(codes))


def _decode_q4_1(data: bytes) -> Floats:
    raw = np.frombuffer(data, np.uint8).reshape(-1, 20)
    scale, low = (raw[:, at : at + 2].copy().view(np.float16).astype(np.float32) for at in (0, 2))
    return scale * _spread(raw[:, 4:]) + low


_ENCODERS: dict[int, Callable[[Floats], bytes]] = {
    F32: lambda values: values.tobytes(),
    F16: lambda values: values.astype(np.float16).tobytes(),
    Q4_0: _encode_q4_0,
    Q4_1: _encode_q4_1,
    Q8_0: _encode_q8_0,
}
_DECODERS: dict[int, Callable[[bytes], NDArray[np.floating]]] = {
    F32: lambda data: np.frombuffer(data, np.float32),
    F16: lambda data: np.frombuffer(data, np.float16),
    Q4_0: _decode_q4_0,
    Q4_1: _decode_q4_1,
    Q8_0: _decode_q8_0,
}
