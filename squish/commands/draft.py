"""`--draft MODEL`: which model guesses for those that are named on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from squish.config.settings import Settings


def with_draft(settings: Settings, models: Sequence[str], draft: str | None) -> Settings:
    """Settings in which it guesses for these models. Raises ModelNotFound for what is not installed."""
    if draft is None:
        return settings
    from squish.models.store import Store

    store = Store(settings.cache_dir)
    store.find(draft)
    drafts = dict(settings.draft) | {store.find(model).manifest.id: draft for model in models}
    return replace(settings, draft=tuple(drafts.items()))
