"""This machine's clipboard, by the system's own programs. It knows no terminal: who came by SSH has another one."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

from squish.system.pipes import let_go
from squish.text import clean

Way = Literal["copy", "paste"]

LARGEST = 512 * 1024
"""Bytes that are read of it."""

_PROGRAMS: Mapping[Way, tuple[tuple[str, tuple[str, ...], str], ...]] = {
    "copy": (
        ("pbcopy", (), ""),
        ("wl-copy", (), "WAYLAND_DISPLAY"),
        ("xclip", ("-selection", "clipboard"), "DISPLAY"),
        ("xsel", ("--clipboard", "--input"), "DISPLAY"),
    ),
    "paste": (
        ("pbpaste", (), ""),
        ("wl-paste", ("--no-newline",), "WAYLAND_DISPLAY"),
        ("xclip", ("-selection", "clipboard", "-o"), "DISPLAY"),
        ("xsel", ("--clipboard", "--output"), "DISPLAY"),
    ),
}
_TIMEOUT = 2.0


def program(environment: Mapping[str, str], way: Way) -> tuple[str, ...] | None:
    """The command that fills the clipboard or prints it; None when the user sits elsewhere or there is none."""
    if environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"):
        return None
    for name, arguments, needs in _PROGRAMS[way]:
        if (not needs or environment.get(needs)) and (path := shutil.which(name, path=environment.get("PATH"))):
            return (path, *arguments)
    return None


async def fill(command: tuple[str, ...], text: str) -> bool:
    """Hand text to the program; whether it took it."""
    return await _run(command, text) is not None


async def read(environment: Mapping[str, str]) -> str | None:
    """What is on the clipboard, clean; None where that cannot be known, or it is not a text."""
    command = program(environment, "paste")
    data = await _run(command, None) if command else None
    if data is None or len(data) > LARGEST:
        return None
    try:
        return clean(data.decode())
    except UnicodeDecodeError:
        return None


async def _run(command: tuple[str, ...], text: str | None) -> bytes | None:
    """What the program prints; it prints nothing where text is handed to it. None where it fails."""
    piped = asyncio.subprocess.PIPE
    nothing = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=nothing if text is None else piped,
            stdout=piped if text is None else nothing,  # a program that stays behind must not hold a pipe of ours
            stderr=nothing,
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(_TIMEOUT):
            printed, _ = await process.communicate(None if text is None else text.encode())
    except (TimeoutError, asyncio.CancelledError) as error:
        with suppress(ProcessLookupError):
            process.kill()
        let_go(process)
        await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        return None
    return (printed or b"") if process.returncode == 0 else None
