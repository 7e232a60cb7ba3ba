"""What is shown for an unforeseen error: the screen stays, and the message never repeats the error's text."""

from __future__ import annotations

from squish.errors import EngineError


def fault(error: Exception, hint: str | None = None) -> EngineError:
    return EngineError(f"Something went wrong inside Squish ({type(error).__name__}).", hint=hint)
