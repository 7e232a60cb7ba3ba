"""Numbers and times that are checked before a request becomes a value. Pure."""

from __future__ import annotations

from squish.config import durations
from squish.errors import InvalidInput

MAX_INT = 2**31 - 1  # no count a client could mean is larger; larger ones do not fit the frames to the worker


def keep_alive(given: float | str | None) -> float | None:
    """Seconds; as a text they can have a unit."""
    try:
        if given is None:
            return None
        return durations.seconds(given) if isinstance(given, str) else durations.checked(given)
    except ValueError:
        message = f"keep_alive {str(given)[:40]!r} is not a time."
        hint = 'Send seconds, or a text like "5m" or "1h30m"; -1 is forever, 0 unloads the model.'
        raise InvalidInput(message, hint=hint, param="keep_alive") from None


def check_range(value: int | None, field: str, low: int = -MAX_INT, high: int = MAX_INT, *, note: str = "") -> None:
    """Refuse what would not even fit a frame to the worker."""
    if value is not None and not low <= value <= high:
        raise InvalidInput(f"{field} must be between {low} and {high}{note}.", param=field)
