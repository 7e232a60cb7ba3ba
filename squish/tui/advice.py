"""What to do about an error, for somebody who uses the screens: keys where the command line names commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from textual.app import App

from squish.errors import SquishError
from squish.text import clean
from squish.tui.key_hints import key

_INSTEAD = (
    (r"^Run: squish pull (\S+)$", r"{app.hub} downloads models; or run in another terminal: squish pull \1"),
    (r" ?To delete it all the same: squish rm --force \S+$", ""),
    (
        r"^Pull the model again with --force\.$",
        "Delete it ({app.library} {library.delete}) and download it again ({app.hub}).",
    ),
)


def hint(error: SquishError, app: App[Any]) -> str:
    """The hint with the app's keys, safe to show; empty where there is none that can be followed here."""
    text = error.hint or ""
    for pattern, instead in _INSTEAD:
        if found := re.search(pattern, text):
            named = re.sub(r"\{([a-z.]+)\}", lambda id: key(app, id[1]), instead)
            text = text[: found.start()] + found.expand(named) + text[found.end() :]
    return "" if re.search(r"(?<!\S)--[a-z]", text) else clean(text)


@contextmanager
def reporting_errors(app: App[Any]) -> Iterator[None]:
    """What goes wrong is shown in a corner of the screen, and the chat goes on."""
    try:
        yield
    except SquishError as error:
        app.notify(f"{clean(error.message)} {hint(error, app)}".strip(), severity="error", markup=False)
