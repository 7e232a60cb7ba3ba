"""Puts text on the clipboard: with the system's own program when the user sits here, with OSC 52 when they came by SSH.

OSC 52 alone is not enough: macOS Terminal ignores it. Knows no widget.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping

_PROGRAMS = (
    ("pbcopy", (), ""),
    ("wl-copy", (), "WAYLAND_DISPLAY"),
    ("xclip", ("-selection", "clipboard"), "DISPLAY"),
    ("xsel", ("--clipboard", "--input"), "DISPLAY"),
)
_TIMEOUT = 2.0


def local_program(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """The command that fills this machine's clipboard, or None when the user sits elsewhere or there is none."""
    if environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"):
        return None
    for name, arguments, needs in _PROGRAMS:
        if (not needs or environment.get(needs)) and (path := shutil.which(name, path=environment.get("PATH"))):
            return (path, *arguments)
    return None


async def put(text: str, otherwise: Callable[[str], None]) -> None:
    """Put text on the clipboard. otherwise: takes it where there is no program for that, as the terminal may."""
    program = local_program(os.environ)
    if program is None or not await fill(program, text):
        otherwise(text)


async def fill(program: tuple[str, ...], text: str) -> bool:
    """Hand text to the program; whether it took it."""
    try:
        process = await asyncio.create_subprocess_exec(
            *program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(_TIMEOUT):
            await process.communicate(text.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return process.returncode == 0
