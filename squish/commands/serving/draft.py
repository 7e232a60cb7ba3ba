"""`--draft MODEL`: which model guesses for those that are named on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from squish.config.settings import Settings
from squish.errors import ModelNotFound

if TYPE_CHECKING:
    from squish.models.store import Store


def with_draft(settings: Settings, models: Sequence[str], draft: str | None) -> Settings:
    """Settings in which it guesses for these models. Raises ModelNotFound for a draft that is not installed."""
    if draft is None:
        return settings
    from squish.models.store import Store

    store = Store(settings.cache_dir)
    store.find(draft)
    drafts = dict(settings.draft) | {installed_id(store, model): draft for model in models}
    return replace(settings, draft=tuple(drafts.items()))


def installed_id(store: Store, model: str) -> str:
    """Of an installed model; one that will be pulled first has its name for an id."""
    try:
        return store.find(model).manifest.id
    except ModelNotFound:
        return model
