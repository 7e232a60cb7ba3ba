"""The question before a model is loaded for which too little memory is free: whether to load it anyway."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from squish import console

if TYPE_CHECKING:
    from squish.sessions.manager import SessionManager


async def agree(sessions: SessionManager, model: str) -> None:
    """Ask where somebody is there to answer; a script gets a line on stderr and goes on.

    Raises MemoryShort where the answer is no, ModelNotFound and LoadFailed.
    """
    short = await sessions.shortage(model)
    if short is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return  # loading says it
    console.note(str(short))
    if not click.confirm("Load it anyway?", default=True, err=True):
        raise short.refusal()
    sessions.load_anyway(model)
