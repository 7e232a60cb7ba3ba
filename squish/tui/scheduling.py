"""Work that is put off until a message is dealt with, or the screen is drawn: it is left out when what it was for has
gone by then.

A window can be closed in the moment between, and what asks for its screen then would end the program.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from textual.widget import Widget


def after_refresh(widget: Widget, callback: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Call back after the next refresh, if the widget is still on its screen."""
    widget.call_after_refresh(_if_there(widget, partial(callback, *args, **options)))


def after_message(widget: Widget, callback: Callable[[], Any]) -> None:
    """Call back when the widget has dealt with the message that it has now: a screen is laid out for its size then,
    and what is changed is drawn with it and not once more after it."""
    widget.call_next(_if_there(widget, callback))


def _if_there(widget: Widget, callback: Callable[[], Any]) -> Callable[[], Awaitable[None]]:
    async def call() -> None:
        if widget.is_attached and widget.is_running:
            result = callback()
            if inspect.isawaitable(result):
                await result

    return call


def collect_again() -> None:
    """With the first picture there is garbage to collect; what stays for good is never looked at again."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
