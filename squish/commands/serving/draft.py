"""`--draft MODEL`: which model guesses for those that are named on the command line, and which one could."""

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


def suggestion(settings: Settings, store: Store, model: str) -> str | None:
    """What to say where the catalog's draft for a model is here and not used. Raises ModelNotFound, ConfigError."""
    from squish.models import drafts

    large = store.find(model).manifest
    if (draft := drafts.unused(large, store.list(), dict(settings.draft))) is None:
        return None
    return f"{draft} is installed and can guess for {large.id}: --draft {draft}, or [draft] in config.toml"


def installed_id(store: Store, model: str) -> str:
    """Of an installed model; one that will be pulled first has its name for an id."""
    try:
        return store.find(model).manifest.id
    except ModelNotFound:
        return model
