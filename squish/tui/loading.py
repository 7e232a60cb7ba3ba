"""Loading a model ahead of its first question, and what is worth telling when it does not come. Knows no widget."""

from __future__ import annotations

from squish.errors import EngineError, SquishError
from squish.sessions.manager import SessionManager
from squish.tui.faults import fault


async def load(sessions: SessionManager, model: str) -> SquishError | None:
    """Load a model and wait for it; why it failed, or None when it is there or was given up by the user himself.

    Who unloads or deletes a model that is still loading learns of that, and not of a fault.
    """
    try:
        await sessions.load(model)
    except SquishError as error:
        failed = any(each.name == model and each.state == "failed" for each in sessions.status())
        return error if failed or type(error) is not EngineError else None
    except Exception as error:  # noqa: BLE001  a fault of ours must not take the app down
        return fault(error)
    return None
