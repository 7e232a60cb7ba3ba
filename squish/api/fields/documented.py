"""What the OpenAPI document says about a field besides its type."""

from __future__ import annotations

from typing import Any

from msgspec import Meta


def documented(description: str, **schema: Any) -> Meta:
    """To be put into an Annotated type. schema: keywords of JSON Schema; they are not checked when a body is read."""
    return Meta(description=description, extra_json_schema=schema)
