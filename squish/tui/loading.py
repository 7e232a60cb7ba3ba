"""Loading a model: ahead of its first question, or when it is wanted; and the question where memory is short.

To be called from a worker of Textual: it may wait for the user.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from textual.app import App

from squish.errors import EngineError, SquishError
from squish.figures import size
from squish.sessions.backend import Sessions
from squish.text import clean
from squish.tui.faults import fault


async def ahead(sessions: Sessions, model: str) -> SquishError | None:
    """Load a model while the user writes; not where memory is short: then its first question asks."""
    try:
        if await sessions.shortage(model):
            return None
    except SquishError as error:
        return error
    return await _load(sessions, model)


async def load(app: App[Any], sessions: Sessions, model: str) -> SquishError | None:
    """Load a model and wait for it; why it failed, or None when it is there or was given up by the user himself."""
    try:
        await agree(app, sessions, model)
    except SquishError as error:
        return error
    return await _load(sessions, model)


async def agree(
    app: App[Any], sessions: Sessions, model: str, asking: Callable[[], AbstractContextManager[None]] = nullcontext
) -> None:
    """Where memory is short for a model that is not loaded, ask whether to load it anyway. asking: while that is open.

    Raises MemoryShort where the user does not want it, and what `shortage` raises.
    """
    from squish.tui.windows.confirm import ConfirmScreen

    short = await sessions.shortage(model)
    if short is None:
        return
    text = (
        f"{clean(model)} needs {size(short.needed)}, and {size(short.free)} are free. The system would compress or "
        "swap what other programs hold, which can make everything slow."
    )
    with asking():
        agreed = await app.push_screen_wait(ConfirmScreen("Not enough free memory", text, "Load anyway", "Cancel"))
    if not agreed:
        raise short.refusal()
    sessions.load_anyway(model)


async def _load(sessions: Sessions, model: str) -> SquishError | None:
    """A model that is unloaded or deleted while it loads is not a fault."""
    try:
        await sessions.load(model)
    except SquishError as error:
        failed = any(each.serves(model) and each.state == "failed" for each in sessions.status())
        return error if failed or type(error) is not EngineError else None
    except Exception as error:  # noqa: BLE001  a fault of ours must not take the app down
        return fault(error)
    return None
