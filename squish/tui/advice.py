"""What to do about an error, for somebody who uses the screens: keys where the command line names commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from textual.app import App

from squish.errors import SquishError
from squish.text import clean
from squish.tui import actions
from squish.tui.key_hints import key

_INSTEAD = (
    (
        r"^Run: squish pull (\S+)$",
        r"{key:app.hub} downloads models, {key:chat.model} chooses another; "
        r"or run in another terminal: squish pull \1",
    ),
    (r"`squish list` shows", "{key:app.library} shows"),
    (r"`squish search` (?=finds|lists)", "{key:app.hub} "),
    (r"^Run: squish chats list$", "{key:chat.list} lists them."),
    (r"^(Connect the disk that it is on\.) To forget it: squish rm \S+$", r"\1"),
    (r"--draft, or (?=\[draft\])", ""),
    (r", or name (?:its variable|the variable that has it): --key-env VAR", ""),
    (r"^Run: squish rm (\S+(?: \S+)*) \S+\. To delete it alone: squish rm --force \S+$", r"Delete \1 first."),
    (r" ?To delete it anyway: squish rm --force \S+$", ""),
    (
        r"^Pull the model again with --force\.$",
        "Delete it ({key:app.library} {key:library.delete}) and download it again ({key:app.hub}).",
    ),
)
_TOAST = 160  # characters
_KEY = re.compile(r"\{key:([a-z_.]+)\}")
_IDS = frozenset(each.id for each in actions.ACTIONS)


def hint(error: SquishError, app: App[Any]) -> str:
    """The hint, safe to show, with the key of an action where it says `{key:app.hub}`; empty where there is none that
    can be followed here."""
    text = error.hint or ""
    for pattern, instead in _INSTEAD:
        text = re.sub(pattern, instead, text)
    for id in _KEY.findall(text):
        text = text.replace(f"{{key:{id}}}", key(app, id) if id in _IDS else "")
    return "" if re.search(r"(?<!\S)--[a-z]", text) else clean(text)


def in_a_toast(message: str, advised: str, app: App[Any]) -> str:
    """What went wrong with a download and what to do, as far as a corner of the screen has room; the drawer has all."""
    shown, drawer = clean(message), key(app, "app.downloads")
    if len(whole := f"{shown} {advised}".rstrip()) <= _TOAST:
        return whole
    return (
        f"{shown[:_TOAST]} … {drawer} shows all of it." if len(shown) > _TOAST else f"{shown} {drawer} says what to do."
    )


@contextmanager
def reporting_errors(app: App[Any]) -> Iterator[None]:
    """What goes wrong is shown in a corner of the screen, and the chat goes on."""
    try:
        yield
    except SquishError as error:
        app.notify(f"{clean(error.message)} {hint(error, app)}".strip(), severity="error", markup=False)
