"""The keys that messages and hints name: those of config.toml where it sets others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from textual.app import App

from squish.text import clean
from squish.tui import actions

if TYPE_CHECKING:
    from squish.tui.app import SquishApp


def key(app: App[Any], id: str) -> str:
    """The first key of an action, as people write it; its slash command where it has none."""
    action = next(each for each in actions.ACTIONS if each.id == id)
    keys = dict(cast("SquishApp", app).runtime.settings.keys).get(id, action.keys)
    return clean(actions.display_keys(keys)[0]) or (f"/{action.slash}" if action.slash else "")
