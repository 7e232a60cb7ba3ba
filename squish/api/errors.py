"""What a client learns about a failure: one table from the codes of squish/errors.py to HTTP.

It knows no routes and no JSON: a dialect gives a failure its shape. Nothing of a request but its id gets into a log.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Mapping
from dataclasses import dataclass, field

from sanic.exceptions import SanicException

from squish.errors import SquishError
from squish.text import clean

logger = logging.getLogger("squish.api")

RETRY_AFTER = 2  # seconds until a full queue is worth another try


@dataclass(frozen=True, slots=True)
class Wire:
    """How a kind of error looks to a client."""

    status: int
    code: str


BY_CODE: Mapping[str, Wire] = {
    "invalid_input": Wire(400, "invalid_value"),
    "context_length_exceeded": Wire(400, "context_length_exceeded"),
    "invalid_name": Wire(404, "model_not_found"),
    "model_not_found": Wire(404, "model_not_found"),
    "unsupported_model": Wire(400, "unsupported_model"),
    "model_in_use": Wire(409, "model_in_use"),
    "queue_full": Wire(429, "rate_limit_exceeded"),
    "memory_short": Wire(503, "memory_short"),
}
"""Codes of squish/errors.py that the client can do something about. Every other one is ours: 500, its own code."""

_HINTS: Mapping[str, str] = {
    "memory_short": 'Close other programs, ask a smaller model, or load it anyway: POST /api/generate {"model": "…"}.',
}
"""What a client can do where the hint of the error is for somebody at the machine."""

_BY_STATUS: Mapping[int, str] = {
    408: "request_timeout",
    413: "request_too_large",
}


class Refused(Exception):
    """A request refused for what HTTP says about it: its key, its host; or because the server, or somebody at it, ends
    it."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a client is to see it, in no dialect yet. param: the field at fault, as the client wrote it."""

    status: int
    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def in_words(self) -> str:
        """The message with the field at fault, for dialects that have no place for its name."""
        named = not self.param or self.param in self.message or self.code == "context_length_exceeded"
        return self.message if named or self.status != 400 else f"{self.param}: {self.message}"


def to_failure(exception: BaseException) -> Failure:
    """What a client learns about an exception; of an unexpected one, nothing."""
    match exception:
        case SquishError():
            wire = BY_CODE.get(exception.code, Wire(500, exception.code))
            hint = _HINTS.get(exception.code, exception.hint)
            message = f"{exception.message} {hint}" if hint else exception.message
            headers = {"retry-after": str(RETRY_AFTER)} if wire.status == 429 else {}
            return Failure(wire.status, wire.code, message, exception.param, headers)
        case Refused():
            return Failure(exception.status, exception.code, exception.message, headers=exception.headers)
        case SanicException() if exception.status_code < 500:
            status = exception.status_code
            headers = {k.lower(): str(v) for k, v in (exception.headers or {}).items()}
            message = str(exception) or "Bad request."
            return Failure(status, _BY_STATUS.get(status, "bad_request"), message, headers=headers)
        case CancelledError():
            return Failure(400, "bad_request", "The request ended before it was complete.")
        case _:
            return Failure(500, "internal_error", "Something went wrong in the server; its log says more.")


def report(exception: BaseException, request_id: str) -> None:
    """Put a failure that is ours into the log: in one line when it was foreseen, with its traceback when not."""
    if to_failure(exception).status < 500 or isinstance(exception, Refused):
        return
    if isinstance(exception, SquishError):
        logger.error("%s: %s: %s", request_id, exception.code, clean(exception.message))
    else:
        logger.error("%s: unforeseen failure", request_id, exc_info=exception)
