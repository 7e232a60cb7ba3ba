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
    """Settings in which it guesses for these models.

    Raises ModelNotFound for a draft that is not installed, and ConfigError where one of these models has a draft that
    cannot be it, by the option or by config.toml: before any of them is loaded.
    """
    if draft is None and not settings.draft:
        return settings
    from squish.models import drafts
    from squish.models.store import Store

    store = Store(settings.cache_dir)
    ids = [installed_id(store, model) for model in models]
    if draft is not None:
        store.find(draft)
        settings = replace(settings, draft=tuple((dict(settings.draft) | dict.fromkeys(ids, draft)).items()))
    of = dict(settings.draft)
    for id in ids:
        if id in of and _writes(store, id):
            drafts.chosen(store, id, of[id])
    return settings


def _writes(store: Store, id: str) -> bool:
    """Of an installed model; one that will be pulled first is looked at when it is here."""
    try:
        return store.find(id).manifest.writes
    except ModelNotFound:
        return False


def suggestion(settings: Settings, store: Store, model: str) -> str | None:
    """What to say where the catalog's draft for a model is here and not used. Raises ModelNotFound, ConfigError."""
    from squish.models import drafts

    large = store.find(model).manifest
    if (draft := drafts.unused(large, store.list(), dict(settings.draft))) is None:
        return None
    return f"{draft} is installed and can draft for {large.id}: --draft {draft}, or [draft] in config.toml"


def installed_id(store: Store, model: str) -> str:
    """Of an installed model; one that will be pulled first has its name for an id."""
    try:
        return store.find(model).manifest.id
    except ModelNotFound:
        return model
