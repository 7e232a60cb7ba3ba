"""Work that is put off until the screen is drawn: it is left out when what it was for has gone by then.

A window can be closed in the moment between, and what asks for its screen then would end the program.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable
from typing import Any

from textual.widget import Widget


def after_refresh(widget: Widget, callback: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Call back after the next refresh, if the widget is still on its screen."""

    async def call() -> None:
        if widget.is_attached and widget.is_running:
            result = callback(*args, **options)
            if inspect.isawaitable(result):
                await result

    widget.call_after_refresh(call)


def collect_again() -> None:
    """With the first picture there is garbage to collect; what stays for good is never looked at again."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
