"""A failure in Anthropic's shape, before a stream and inside it. Pure."""

from __future__ import annotations

import msgspec

from squish.api.errors import Failure

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_TOO_LONG = "prompt is too long: "
"""Clients look for these words to shorten a conversation."""


class ErrorDetail(msgspec.Struct, frozen=True):
    type: str
    message: str


class ErrorEvent(msgspec.Struct, frozen=True, tag="error"):
    """A body before the headers, and an event in a stream. request_id: also in the header request-id."""

    error: ErrorDetail
    request_id: str


def error_body(failure: Failure, request_id: str) -> ErrorEvent:
    message = failure.in_words
    if failure.code == "context_length_exceeded":
        message = f"{_TOO_LONG}{message}"
    return ErrorEvent(ErrorDetail(_type(failure), message), request_id)


def _type(failure: Failure) -> str:
    if failure.code == "request_cancelled":
        return "api_error"  # whoever cancelled it decides about another try
    return _TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "api_error")
