"""A failure in OpenAI's shape. Pure."""

from __future__ import annotations

import msgspec

from squish.api.errors import Failure


class ErrorDetail(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """`{"error": {…}}`, before a stream and inside it."""

    error: ErrorDetail


def error_body(failure: Failure, request_id: str = "") -> ErrorBody:
    """OpenAI says the request's id in a header only."""
    return ErrorBody(ErrorDetail(failure.message, _type(failure.status), failure.param, failure.code))


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
