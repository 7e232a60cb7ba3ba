"""What to do about an error, for somebody who uses the screens: keys where the command line names commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from textual.app import App

from squish.errors import SquishError
from squish.text import clean

_INSTEAD = (
    (r"^Run: squish pull (\S+)$", r"F3 downloads models; or run in another terminal: squish pull \1"),
    (r" ?To delete it all the same: squish rm --force \S+$", ""),
    (r"^Pull the model again with --force\.$", "Delete it (F4 d) and download it again (F3)."),
)


def hint(error: SquishError) -> str:
    """The hint, safe to show; empty where there is none that can be followed here."""
    text = error.hint or ""
    for pattern, instead in _INSTEAD:
        text = re.sub(pattern, instead, text)
    return "" if re.search(r"(?<!\S)--[a-z]", text) else clean(text)


@contextmanager
def reporting_errors(app: App[Any]) -> Iterator[None]:
    """What goes wrong is shown in a corner of the screen, and the chat goes on."""
    try:
        yield
    except SquishError as error:
        app.notify(f"{clean(error.message)} {hint(error)}".strip(), severity="error", markup=False)
