"""A failure in Ollama's shape. Pure."""

from __future__ import annotations

import msgspec

from squish.api.errors import Failure


class ErrorLine(msgspec.Struct, frozen=True):
    """`{"error": "…"}`, before a stream, and as the last line of one that breaks off."""

    error: str


def error_line(failure: Failure, request_id: str = "") -> ErrorLine:
    """Programs look for "not found" where a model is missing; Ollama says the request's id nowhere."""
    if failure.code == "model_not_found":
        return ErrorLine(f"model not found: {failure.message}")
    return ErrorLine(failure.message)
