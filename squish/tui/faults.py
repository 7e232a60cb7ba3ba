"""What is said of an error that nobody foresaw: the screen stays, and its message never holds what the error held."""

from __future__ import annotations

from squish.errors import EngineError


def fault(error: Exception, hint: str | None = None) -> EngineError:
    return EngineError(f"Something went wrong inside Squish ({type(error).__name__}).", hint=hint)
