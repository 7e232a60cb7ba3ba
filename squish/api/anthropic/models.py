"""Installed models in Anthropic's shape, for clients that name its version at /v1/models. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from squish.models.manifest import Manifest

HEADER = "anthropic-version"
"""Every client of Anthropic's sends it, and no other does."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, tag="model"):
    """created_at: when it was installed. max_input_tokens, max_tokens: both are the context."""

    id: str
    display_name: str
    created_at: datetime
    max_input_tokens: int
    max_tokens: int
    lifecycle: Literal["active"] = "active"


class ModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """All of them: a page has no end."""

    data: list[ModelInfo]
    has_more: bool = False
    first_id: str | None
    last_id: str | None


def model_info(manifest: Manifest) -> ModelInfo:
    return ModelInfo(
        id=manifest.id,
        display_name=manifest.id,
        created_at=manifest.installed_at,
        max_input_tokens=manifest.context_length,
        max_tokens=manifest.context_length,
    )


def model_page(manifests: Sequence[Manifest]) -> ModelPage:
    data = [model_info(manifest) for manifest in manifests]
    ends = (data[0].id, data[-1].id) if data else (None, None)
    return ModelPage(data=data, first_id=ends[0], last_id=ends[1])
