"""Waits until an application is at rest: its event loop has nothing to run, and its screen nothing to draw. Draws it.

Textual's pilot looks at the processor instead, for 20 ms at a time and twice for each key, which most of the time of
these tests went by with; and beside a busy machine it may look too early.
"""

from __future__ import annotations

import asyncio
from typing import Any

from textual._compositor import Compositor
from textual._context import active_app, visible_screen_stack
from textual.app import App
from textual.strip import Strip

_ROUNDS = 50  # then it moves all the time
_STEPS = 2_000
_LOOKS = 20  # at threads, 2 ms apart; some wait for what the test does next
RENDER = Compositor.render_update


async def at_rest(app: App[Any], draw: bool = True) -> None:
    """Let what was begun be done and drawn; what waits for time or the network goes on later."""
    for _ in range(_ROUNDS):
        await _nothing_to_run()
        while _held_back(app):
            await asyncio.sleep(0.002)
            await _nothing_to_run()
        if not _to_be_drawn(app):
            if draw and app._screen_stack and app.screen._compositor._dirty_regions:
                RENDER(app.screen._compositor, screen_stack=app._background_screens)
            return
        app.screen._on_timer_update()


def render_later(compositor: Compositor, full: bool = False, **rest: Any) -> Any:
    """In the place of Compositor.render_update: without a terminal nobody sees what is drawn before all is at rest."""
    return RENDER(compositor, full, **rest) if full or not active_app.get().is_headless else None


def drawn_lines(app: App[Any]) -> list[Strip]:
    """The lines of the screen as it is now, and of what a window on it lets through."""
    visible_screen_stack.set(app._background_screens)  # else a window that is drawn here first is so before nothing
    return app.screen._compositor.render_strips()


def _held_back(app: App[Any]) -> bool:
    """A new size is taken in when no other one has come for 8 ms; the first 50 ms of a new screen are not drawn."""
    return bool(app._resize_event and app._resize_timer) or bool(app._batch_count and _to_be_drawn(app))


def _to_be_drawn(app: App[Any]) -> bool:
    if app._exit or app._exception or not app._screen_stack:
        return False
    screen = app.screen
    return bool(
        screen._layout_required
        or screen._scroll_required
        or screen._repaint_required
        or screen._recompose_required
        or screen._dirty_widgets
        or screen._callbacks
    )


async def _nothing_to_run() -> None:
    loop, quiet, looks = asyncio.get_running_loop(), 0, _LOOKS
    for _ in range(_STEPS):
        busy = looks > 0 and _in_threads(loop)
        looks -= busy
        await asyncio.sleep(0.002 if busy else 0)
        quiet = 0 if busy or loop._ready else quiet + 1  # type: ignore[attr-defined]
        if quiet == 2:  # what is due by now, or has come from a thread, would have been seen by the second one
            return


def _in_threads(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether `asyncio.to_thread` has something to do."""
    pool = loop._default_executor  # type: ignore[attr-defined]
    return pool is not None and len(pool._threads) > pool._idle_semaphore._value
