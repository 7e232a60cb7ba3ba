"""The settings of a GGUF file below its architecture's name, each checked while it is read and remembered as known.

It knows no family: who asks for a key knows what it means.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from squish.worker.gguf.file import GgufHeader, Scalar

_LARGEST = 1 << 31
# Below the architecture's name, and without influence on what is computed.
_NEUTRAL = frozenset({"vocab_size", "tensor_data_layout", "rope.dimension_sections", "rope.scaling.finetuned"})
# What all of these models do, whether a file says so or not.
_USUAL = {"attention.causal": True}
# Values with which any other setting changes nothing; strings are looked at by who knows them.
_OFF = (0, 0.0, False)


class ModelKeys:
    """Settings by their name without the architecture, such as `attention.head_count`.

    A list with one number for each layer counts as that number where all are the same.
    """

    def __init__(self, header: GgufHeader, architecture: str) -> None:
        self.header = header
        self.architecture = architecture
        self._seen: set[str] = set()

    def has(self, name: str) -> bool:
        self._seen.add(name)
        return self._key(name) in self.header.metadata

    def count(self, name: str) -> int | None:
        """A whole number, at least 0. Raises CorruptModel."""
        value = self._alike(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
            raise self.header.corrupt(f"{self._key(name)} is not a usable number")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number above 0. Raises CorruptModel where it is missing and there is no default."""
        value = self.count(name)
        value = default if value is None else value
        if not value:
            raise self.header.corrupt(f"{self._key(name)} is missing or not usable")
        return value

    def number(self, name: str) -> float | None:
        """A float32 value as the shortest decimal that means it. Raises CorruptModel."""
        self._seen.add(name)
        return self.header.number(self._key(name))

    def flag(self, name: str) -> bool | None:
        self._seen.add(name)
        return self.header.flag(self._key(name))

    def text(self, name: str) -> str | None:
        self._seen.add(name)
        return self.header.text(self._key(name))

    def numbers(self, name: str) -> list[int] | None:
        """A list of whole numbers or of true and false; None where the file has none, or one number for all."""
        self._seen.add(name)
        if not isinstance(self.header.metadata.get(self._key(name)), list):
            return None
        found = self.header.integers(self._key(name))
        if not all(0 <= each < _LARGEST for each in found):
            raise self.header.corrupt(f"{self._key(name)} holds a number that is not usable")
        return found

    def floats(self, name: str) -> list[float] | None:
        """A list of numbers; infinity is one, since some files have it. None where the file has none."""
        self._seen.add(name)
        value = self.header.metadata.get(self._key(name))
        if value is None:
            return None
        found = [float(each) for each in value if isinstance(each, int | float)] if isinstance(value, list) else []
        if not isinstance(value, list) or len(found) != len(value) or any(math.isnan(each) for each in found):
            raise self.header.corrupt(f"{self._key(name)} is not a list of numbers")
        return found

    def per_layer(self, name: str, layers: int) -> list[int] | None:
        """One number for each layer, however the file says it; None where it says none."""
        listed = self.numbers(name)
        if listed is None:
            one = self.count(name)
            return None if one is None else [one] * layers
        if len(listed) < layers:
            raise self.header.corrupt(f"{self._key(name)} holds {len(listed)} numbers for {layers} layers")
        return listed[:layers]

    def unknown(self) -> str | None:
        """The first key that nobody asked for and that may change what the model computes."""
        prefix = f"{self.architecture}."
        for key, value in self.header.metadata.items():
            name = key.removeprefix(prefix)
            if not key.startswith(prefix) or name in self._seen or name in _NEUTRAL:
                continue
            if value != _USUAL[name] if name in _USUAL else value not in _OFF:
                return key
        return None

    def know(self, names: Collection[str]) -> None:
        """Take these for known: the family's code computes the same whatever they say."""
        self._seen.update(names)

    def _alike(self, name: str) -> Scalar | None:
        self._seen.add(name)
        value = self.header.metadata.get(self._key(name))
        if not isinstance(value, list):
            return value
        if not value or any(each != value[0] for each in value):
            raise self.header.corrupt(f"{self._key(name)} differs between layers, which this family does not have")
        return value[0]

    def _key(self, name: str) -> str:
        return f"{self.architecture}.{name}"
