"""What is shown for an unforeseen error: the screen stays, and the message never repeats the error's text."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from textual.app import ScreenStackError
from textual.css.query import NoMatches
from textual.dom import NoScreen
from textual.widget import MountError
from textual.worker import WorkerFailed

from squish.errors import EngineError


def fault(error: Exception, hint: str | None = None) -> EngineError:
    return EngineError(f"Something went wrong inside Squish ({type(error).__name__}).", hint=hint)


def where(error: BaseException | None) -> str:
    """`ZeroDivisionError in chat_view.py:120`: the kind and the last place of ours; never what the error says."""
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    ours = [each for each in frames if f"{os.sep}squish{os.sep}" in each.filename] or list(frames)
    place = f" in {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"{type(error).__name__}{place}"


def is_of_what_has_gone(error: Exception) -> bool:
    """Whether a widget was missed that is not on the screen yet, or no longer; also in work for it."""
    if isinstance(error, WorkerFailed):
        return isinstance(error.error, Exception) and is_of_what_has_gone(error.error)
    return isinstance(error, MountError | NoMatches | NoScreen | ScreenStackError)


def log() -> None:
    """Write the error that is handled now to the log, which stands in for stderr while the screen is drawn on."""
    os.write(2, traceback.format_exc().encode(errors="replace"))
