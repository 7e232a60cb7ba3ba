"""One row of the Hub's search answer, read field by field: nothing in it is trusted to be what it should be.

A field that makes no sense counts as absent; a row without a name that could be pulled is left out. It makes no
connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from squish.errors import InvalidName
from squish.names import RepoName, parse
from squish.text import clean

Kind = Literal["mlx", "safetensors", "gguf"]

_LARGEST = 2**53


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository as a search lists it; None, of parameters 0, where the Hub does not know.

    tensors: numbers by dtype as safetensors names it; architecture: its model_type; bits: of a quantized model;
    updated: `2026-01-31`.
    """

    repo_id: str
    kind: Kind
    downloads: int | None
    likes: int | None
    tensors: Mapping[str, int]
    parameters: int
    architecture: str | None
    bits: int | None
    updated: str | None
    gated: bool


def read(row: object, kind: Kind) -> HubModel | None:
    """The model of a row, or None where the row names none."""
    fields = _object(row)
    repo_id = _name(fields.get("id"))
    if repo_id is None:
        return None
    config, gguf, stored = (_object(fields.get(key)) for key in ("config", "gguf", "safetensors"))
    packed = _object(config.get("quantization_config")) or _object(config.get("quantization"))
    named = gguf.get("architecture") if kind == "gguf" else config.get("model_type")
    tensors = {clean(str(name)): _count(count) for name, count in _object(stored.get("parameters")).items()}
    return HubModel(
        repo_id=repo_id,
        kind=kind,
        downloads=_number(fields.get("downloads")),
        likes=_number(fields.get("likes")),
        tensors=tensors,
        parameters=_count(gguf.get("total") if kind == "gguf" else stored.get("total")),
        architecture=clean(named)[:60] if isinstance(named, str) else None,
        bits=_bits(packed.get("bits")),
        updated=_day(fields.get("lastModified")),
        gated=bool(fields.get("gated")),
    )


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _name(value: object) -> str | None:
    """The id of a repository, if it is one that our names can say."""
    try:
        ref = parse(value) if isinstance(value, str) else None
    except InvalidName:
        return None
    return value if isinstance(value, str) and isinstance(ref, RepoName) and ref.repo_id == value else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST else None


def _count(value: object) -> int:
    return _number(value) or 0


def _bits(value: object) -> int | None:
    return bits if 1 <= (bits := _count(value)) <= 16 else None


def _day(value: object) -> str | None:
    """The day of a time such as 2026-01-31T10:00:00.000Z."""
    try:
        return date.fromisoformat(value[:10]).isoformat() if isinstance(value, str) else None
    except ValueError:
        return None
