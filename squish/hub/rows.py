"""The rows of the Hub's search answer, checked field by field: nothing in them is trusted to be what it should be.

A field that makes no sense counts as absent; a row without a name that could be pulled is left out. It makes no
connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from squish.errors import InvalidName
from squish.names import RepoName, parse
from squish.text import clean

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

Kind = Literal["mlx", "safetensors", "gguf", "embedding"]

_LARGEST = 2**53


class HubModel(msgspec.Struct, frozen=True):
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


def checked(answer: bytes) -> bytes:
    """The Hub's answer with nothing but what is read of it, in the form that the library expects.

    One odd row or field would otherwise hide all the others. Raises ValueError where the answer is not a list.
    """
    rows = msgspec.json.decode(answer, type=list[Any])
    return msgspec.json.encode([row for row in map(_row, rows) if row is not None])


def read(info: ModelInfo, kind: Kind) -> HubModel:
    """The model of a row that was checked."""
    config, gguf, stored = info.config or {}, info.gguf or {}, info.safetensors
    named = gguf["architecture"] if kind == "gguf" else config["model_type"]
    return HubModel(
        repo_id=info.id,
        kind=kind,
        downloads=info.downloads,
        likes=info.likes,
        tensors=stored.parameters if stored else {},
        parameters=gguf["total"] if kind == "gguf" else stored.total if stored else 0,
        architecture=named,
        bits=config["bits"],
        updated=info.last_modified.date().isoformat() if info.last_modified else None,
        gated=bool(info.gated),
    )


def _row(row: object) -> dict[str, Any] | None:
    """A row as the library reads it, or None where it names no repository."""
    fields = _object(row)
    repo_id = _name(fields.get("id"))
    if repo_id is None:
        return None
    config, gguf, stored = (_object(fields.get(key)) for key in ("config", "gguf", "safetensors"))
    packed = _object(config.get("quantization_config")) or _object(config.get("quantization"))
    tensors = {clean(str(name)): _count(count) for name, count in _object(stored.get("parameters")).items()}
    return {
        "id": repo_id,
        "downloads": _number(fields.get("downloads")),
        "likes": _number(fields.get("likes")),
        "safetensors": {"parameters": tensors, "total": _count(stored.get("total"))},
        "config": {"model_type": _architecture(config.get("model_type")), "bits": _bits(packed.get("bits"))},
        "gguf": {"architecture": _architecture(gguf.get("architecture")), "total": _count(gguf.get("total"))},
        "lastModified": _day(fields.get("lastModified")),
        "gated": bool(fields.get("gated")),
    }


def _architecture(value: object) -> str | None:
    return clean(value)[:60] if isinstance(value, str) else None


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
    """The day of a time such as 2026-01-31T10:00:00.000Z, as its midnight."""
    try:
        return f"{date.fromisoformat(value[:10]).isoformat()}T00:00:00.000Z" if isinstance(value, str) else None
    except ValueError:
        return None
