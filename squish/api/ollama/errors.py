"""A failure in Ollama's shape. Pure."""

from __future__ import annotations

import msgspec

from squish.api.errors import Failure

_HERE = {
    "This model cannot call tools": "This model does not support tools",  # some clients then go on without them
    "reasoning_effort: low": 'think: "low"',
    "POST /v1/completions": 'POST /api/generate with "raw": true',
    "POST /v1/embeddings": "POST /api/embed",
    "GET /v1/models": "GET /api/tags",
}
"""What the rest of the program says in OpenAI's words or its own, in Ollama's."""


class ErrorLine(msgspec.Struct, frozen=True):
    """`{"error": "…"}`, before a stream, and as the last line of one that breaks off."""

    error: str


def error_line(failure: Failure, request_id: str = "") -> ErrorLine:
    """Programs look for "not found" where a model is missing; Ollama says the request's id nowhere."""
    message = failure.in_words
    for advice, here in _HERE.items():
        message = message.replace(advice, here)
    return ErrorLine(f"model not found: {message}" if failure.code == "model_not_found" else message)
