"""How the user wants the screen: theme and keys as config.toml sets them, or the theme that was chosen last; which
models are pinned, which running server was offered, and the draft that belongs to no chat yet.

It knows the registry of actions and the app, not where settings come from.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from contextlib import suppress

from textual.app import App

from squish.config import state
from squish.config.settings import Settings
from squish.errors import ConfigError, StoreError
from squish.tui import actions

_TABLE = "screen"
_PINNED = "pinned"
_UNSENT = "unsent"
_OFFERED = "offered"


def apply(app: App[None], settings: Settings) -> None:
    """Give the app its theme and its keys. Raises ConfigError naming a theme or a binding that does not exist."""
    chosen = state.table(settings.home, _TABLE).get("theme")
    if settings.theme:
        if settings.theme not in app.available_themes:
            raise _unknown("theme", settings.theme, app.available_themes)
        app.theme = settings.theme
    elif isinstance(chosen, str) and chosen in app.available_themes:
        app.theme = chosen
    ids = [action.id for action in actions.ACTIONS if action.keys]
    for id, _ in settings.keys:
        if id not in ids:
            raise _unknown("keys", id, ids)
    app.set_keymap(dict(settings.keys))


def remember_theme(settings: Settings, theme: str) -> None:
    """Begin with this theme next time, unless config.toml sets one. Raises StoreError."""
    state.keep(settings.home, _TABLE, {"theme": theme})


def pinned(settings: Settings) -> frozenset[str]:
    """The models that were pinned, by their ids."""
    found = state.table(settings.home, _TABLE).get(_PINNED)
    return frozenset(each for each in found if isinstance(each, str)) if isinstance(found, list) else frozenset()


def remember_pin(settings: Settings, id: str, is_pinned: bool) -> None:
    """Pin this model again next time, or no longer. Raises StoreError."""
    before = pinned(settings)
    after = before | {id} if is_pinned else before - {id}
    if after != before:
        state.keep(settings.home, _TABLE, {_PINNED: sorted(after)})


def unsent(settings: Settings) -> str:
    """What was being written in a chat without a message when the program ended."""
    found = state.table(settings.home, _TABLE).get(_UNSENT)
    return found if isinstance(found, str) else ""


def remember_unsent(settings: Settings, draft: str) -> None:
    """Raises StoreError."""
    if draft != unsent(settings):
        state.keep(settings.home, _TABLE, {_UNSENT: draft})


def is_news(settings: Settings, server: str) -> bool:
    """Whether this server was not offered before; from now on it was. server: its address, and when it started."""
    if state.table(settings.home, _TABLE).get(_OFFERED) == server:
        return False
    with suppress(StoreError):  # then it is offered once more
        state.keep(settings.home, _TABLE, {_OFFERED: server})
    return True


def _unknown(setting: str, name: str, known: Iterable[str]) -> ConfigError:
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Available: {', '.join(sorted(known))}."
    return ConfigError(f"{setting}: there is no {name}.", hint=hint, param=setting)
