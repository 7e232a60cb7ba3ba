"""The health of what is kept in the home beside models: conversations, keys, what was used."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from squish.api.clients.keys import KeyFile
from squish.api.clients.usage import UsageFile
from squish.chats.database import damage
from squish.config.settings import Settings
from squish.doctor.finding import Finding
from squish.errors import SquishError


def kept(settings: Settings) -> Iterator[Finding]:
    """Of what is not there, nothing is said."""
    yield from _conversations(settings.home / "chats.db")
    keys, usage = KeyFile(settings.home), UsageFile(settings.home)
    try:
        keys.keys()
    except SquishError as error:
        yield Finding("keys", "broken", error.message, error.hint or f"$EDITOR {shlex.quote(str(keys.path))}")
    try:
        usage.since("")
    except SquishError as error:
        yield Finding("usage", "warning", error.message, _put_away(usage.path, "counting starts anew"))


def _conversations(path: Path) -> Iterator[Finding]:
    if not path.exists():
        return
    if wrong := damage(path):
        then = "Squish starts a new one; what is left in the old one, sqlite3's .recover can read"
        yield Finding("chats", "broken", f"{path} is damaged: {wrong}", _put_away(path, then))
    else:
        yield Finding("chats", "ok", f"{path} is whole")


def _put_away(path: Path, then: str) -> str:
    """The command, and what is then. With the journals that sqlite has beside it: a new database would read them."""
    folder = shlex.quote(str(path.with_name("damaged")))
    return f"mkdir -p {folder} && mv {shlex.quote(str(path))}* {folder}   {then}"
