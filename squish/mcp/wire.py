"""JSON-RPC 2.0 as MCP uses it: messages to bytes and back. Pure; it knows no transport and no method but by name."""

from __future__ import annotations

from typing import Any

import msgspec

LARGEST = 8 << 20
"""Bytes of one message, at most."""

PARSE_ERROR, METHOD_NOT_FOUND, UNSUPPORTED_VERSION = -32700, -32601, -32022

_encoder = msgspec.json.Encoder()


class Garbled(Exception):
    """Bytes that are not a message of JSON-RPC."""


class Fault(msgspec.Struct, frozen=True):
    """What the other side says went wrong."""

    code: int = 0
    message: str = ""
    data: Any = None


class Incoming(msgspec.Struct, frozen=True):
    """A message that arrived: a request (id and method), a notification (method), or an answer (id alone).

    An answer has a result or an error.
    """

    id: int | str | None = None
    method: str | None = None
    params: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: Fault | None = None

    @property
    def is_answer(self) -> bool:
        return self.method is None


def request(id: int, method: str, params: dict[str, Any]) -> bytes:
    return _encoder.encode({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def notification(method: str, params: dict[str, Any] | None = None) -> bytes:
    return _encoder.encode({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})


def answer(id: int | str, result: dict[str, Any]) -> bytes:
    return _encoder.encode({"jsonrpc": "2.0", "id": id, "result": result})


def refusal(id: int | str, code: int, message: str) -> bytes:
    return _encoder.encode({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})


def decode(data: bytes) -> tuple[Incoming, ...]:
    """The message in these bytes, or the messages of a batch. Raises Garbled."""
    try:
        if data.lstrip()[:1] == b"[":
            return tuple(map(_checked, msgspec.json.decode(data, type=tuple[Incoming, ...])))
        return (_checked(msgspec.json.decode(data, type=Incoming)),)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Garbled(str(error)) from None


def _checked(message: Incoming) -> Incoming:
    if message.is_answer and message.result is None and message.error is None:
        raise Garbled("neither a request nor an answer")
    return message
