"""One route in the OpenAPI document, as its dialect describes it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Operation:
    """path: with {name} for its parts. id: unique in the document. body: what is sent; None for nothing.

    answer: the Struct that comes back; None for text. stream: its media type and a sentence about it, where
    there can be one. pieces: the Structs that it is made of. open: it needs no key. form: the body is a form.
    errors: statuses that others do not have, and what they mean.
    """

    method: str
    path: str
    id: str
    summary: str
    answer: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None = None
    stream: tuple[str, str] | None = None
    pieces: tuple[type[msgspec.Struct], ...] = ()
    open: bool = False
    form: bool = False
    errors: tuple[tuple[str, str], ...] = ()
