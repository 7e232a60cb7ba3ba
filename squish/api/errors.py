"""Errors on the wire: one table from the codes of squish/errors.py to HTTP, one JSON form for every failure.

It knows no routes. Nothing of a request but its method, path and id gets into a log.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from sanic import HTTPResponse, Request
from sanic.exceptions import MethodNotAllowed, NotFound, SanicException
from sanic.handlers import ErrorHandler

from squish.api.record import record_unroutable
from squish.errors import SquishError
from squish.text import clean

logger = logging.getLogger("squish.api")

PATHS = "The API is at /v1/chat/completions, /v1/completions and /v1/models; further there are /health and /metrics."
RETRY_AFTER = 2  # seconds until a full queue is worth another try


class ErrorDetail(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """`{"error": {…}}`, the only form in which this API reports a failure."""

    error: ErrorDetail


@dataclass(frozen=True, slots=True)
class Wire:
    """How a kind of error looks to a client."""

    status: int
    type: str
    code: str


_INVALID = "invalid_request_error"

BY_CODE: Mapping[str, Wire] = {
    "invalid_input": Wire(400, _INVALID, "invalid_value"),
    "context_length_exceeded": Wire(400, _INVALID, "context_length_exceeded"),
    "invalid_name": Wire(404, _INVALID, "model_not_found"),
    "model_not_found": Wire(404, _INVALID, "model_not_found"),
    "queue_full": Wire(429, "rate_limit_error", "rate_limit_exceeded"),
}
"""Codes of squish/errors.py that are the client's to mend. Every other one is ours: 500, under its own code."""

_BY_STATUS: Mapping[int, str] = {
    408: "request_timeout",
    413: "request_too_large",
}


class Refused(Exception):
    """A request refused for what HTTP says about it: its key, its host; or because the server ends."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is sent."""

    status: int
    body: ErrorBody
    headers: Mapping[str, str] = field(default_factory=dict)


class Response(HTTPResponse):
    """A response without the empty Alt-Svc header that Sanic adds while its run-time code rewriting is off."""

    @property
    def processed_headers(self):  # type: ignore[no-untyped-def]  # the type is Sanic's
        self.headers.pop("alt-svc", None)
        return super().processed_headers


def json_response(value: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(value), status=status, headers=dict(headers or {}), content_type="application/json"
    )


def to_failure(exception: BaseException) -> Failure:
    """What a client is told about an exception. Of one that nobody foresaw it is told nothing."""
    match exception:
        case SquishError():
            wire = BY_CODE.get(exception.code, Wire(500, "server_error", exception.code))
            message = f"{exception.message} {exception.hint}" if exception.hint else exception.message
            headers = {"retry-after": str(RETRY_AFTER)} if wire.status == 429 else {}
            return Failure(wire.status, _body(message, wire.type, wire.code, exception.param), headers)
        case Refused():
            kind = _INVALID if exception.status < 500 else "server_error"
            body = _body(exception.message, kind, exception.code)
            return Failure(exception.status, body, exception.headers)
        case SanicException() if exception.status_code < 500:
            status = exception.status_code
            body = _body(str(exception) or "Bad request.", _INVALID, _BY_STATUS.get(status, "bad_request"))
            return Failure(status, body, {k.lower(): str(v) for k, v in (exception.headers or {}).items()})
        case CancelledError():
            return Failure(400, _body("The request ended before it was complete.", _INVALID, "bad_request"))
        case _:
            message = "Something went wrong in the server; its log says more."
            return Failure(500, _body(message, "server_error", "internal_error"))


def report(exception: BaseException, request_id: str) -> None:
    """Put a failure that is ours into the log: in one line when it was foreseen, with its traceback when not."""
    if to_failure(exception).status < 500 or isinstance(exception, Refused):
        return
    if isinstance(exception, SquishError):
        logger.error("%s: %s: %s", request_id, exception.code, clean(exception.message))
    else:
        logger.error("%s: unforeseen failure", request_id, exc_info=exception)


class JsonErrors(ErrorHandler):
    """Sanic's error handler, for routes, protocol and handlers alike."""

    def response(self, request: Request, exception: BaseException) -> HTTPResponse:
        failure = to_failure(_in_words(request, exception))
        report(exception, getattr(request.ctx, "id", "-"))
        record_unroutable(request, failure.status)
        return json_response(failure.body, failure.status, failure.headers)


def _in_words(request: Request, exception: BaseException) -> BaseException:
    """Sanic's refusals of a path or a method with what a client can do about them."""
    path = clean(request.path[:200]).strip() or "/"
    if isinstance(exception, NotFound):
        return Refused(404, "unknown_url", f"There is nothing at {path}. {PATHS}")
    if isinstance(exception, MethodNotAllowed):
        allowed = str(exception.headers.get("Allow", ""))
        message = f"{request.method[:16]} is no method of {path}; it takes {allowed}."
        return Refused(405, "method_not_allowed", message, {"allow": allowed})
    return exception


def _body(message: str, kind: str, code: str, param: str | None = None) -> ErrorBody:
    return ErrorBody(ErrorDetail(message, kind, param, code))
