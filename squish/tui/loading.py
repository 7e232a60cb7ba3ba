"""Loading a model ahead of its first question, and what to say when it fails. Knows no widget."""

from __future__ import annotations

from squish.errors import EngineError, SquishError
from squish.sessions.manager import SessionManager
from squish.tui.faults import fault


async def load(sessions: SessionManager, model: str) -> SquishError | None:
    """Load a model and wait for it; why it failed, or None when it is there or was given up by the user himself.

    A model that is unloaded or deleted while it loads is not a fault.
    """
    try:
        await sessions.load(model)
    except SquishError as error:
        failed = any(each.name == model and each.state == "failed" for each in sessions.status())
        return error if failed or type(error) is not EngineError else None
    except Exception as error:  # noqa: BLE001  a fault of ours must not take the app down
        return fault(error)
    return None
