"""A server that is a process of ours: a message is a line on its standard input and output.

It gets an environment of its own and a process group of its own, which ends with us. It knows no messages.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from squish.config.mcp_server import McpServer
from squish.errors import McpError
from squish.mcp.transport import Ended, Receive, ServerLog
from squish.mcp.values import filled
from squish.mcp.wire import LARGEST

GRACE = 1.0
"""Seconds that a server gets to end by itself, and again after SIGTERM."""

_PIECE = 1 << 16
_FLOOD_PAUSE = 0.05  # seconds between pieces of a stderr that nobody keeps
_KEPT = ("HOME", "LOGNAME", "USER", "PATH", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TERM", "TMPDIR", "TZ")
_STDERR_KEPT = 400  # characters of the last line, for people


class StdioTransport:
    """A process that speaks MCP on its standard streams."""

    def __init__(self, server: McpServer, log: ServerLog, grace: float = GRACE) -> None:
        self._server, self._log, self._grace = server, log, grace
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._last_words = ""
        self._closing = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self, receive: Receive, ended: Ended) -> None:
        server = self._server
        environment = environment_of(server)
        command = filled(server.command, "command")
        arguments = [filled(each, "args") for each in server.args]
        directory = Path(filled(server.cwd, "cwd")).expanduser() if server.cwd else None
        program = shutil.which(Path(command).expanduser(), path=environment.get("PATH"))
        if program is None:
            raise McpError(f"the program {command} is not there", hint="Install it, or write its whole path.")
        try:
            self._process = await asyncio.create_subprocess_exec(
                program, *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=environment, cwd=directory,
                start_new_session=True,  # Ctrl-C is ours to handle, and the whole group can be ended
            )  # fmt: skip
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise McpError(f"it cannot be started: {why}") from error
        self._tasks = [
            asyncio.create_task(self._read(receive, ended)),
            asyncio.create_task(self._collect_stderr()),
        ]

    async def send(self, message: bytes, headers: Mapping[str, str], *, asks: bool) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(message + b"\n")
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError):
            raise await self._end() from None

    def use_version(self, version: str, *, stateless: bool) -> None:
        """Nothing on this way depends on it."""

    async def _read(self, receive: Receive, ended: Ended) -> None:
        assert self._process is not None and self._process.stdout is not None
        try:
            await _lines(self._process.stdout, receive)
        except McpError as error:
            self._kill(signal.SIGKILL)
            ended(error)
            return
        ended(await self._end())

    async def _end(self) -> McpError:
        """How it ended, now that it does not read or write any more."""
        assert self._process is not None
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self._grace)
        with suppress(TimeoutError):  # its last words may still be on their way
            await asyncio.wait_for(asyncio.shield(self._tasks[1]), 0.2)
        return McpError(self._obituary())

    def _obituary(self) -> str:
        code = self._process.returncode if self._process else None
        if code is None:
            return "it closed its output"
        how = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"
        return f"{how}: {self._last_words}" if self._last_words else how

    async def _collect_stderr(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        held, total = b"", 0
        while piece := await self._process.stderr.read(_PIECE):
            total += len(piece)
            if total > LARGEST:
                await asyncio.sleep(_FLOOD_PAUSE)
                continue
            *lines, held = (held + piece).split(b"\n")
            self._note(b"\n".join(lines))
            held = held[-_PIECE:]
        self._note(held)

    def _note(self, data: bytes) -> None:
        text = data.decode(errors="replace").strip()
        if text:
            self._last_words = " ".join(text.splitlines()[-1].split())[:_STDERR_KEPT]
            self._log.write(text)

    async def close(self, *, at_once: bool = False) -> None:
        """Close its input, and insist after the grace: first SIGTERM, then SIGKILL, each to the whole group."""
        process = self._process
        if process is None or self._closing:
            return
        self._closing = True
        if process.stdin is not None:
            process.stdin.close()
        if at_once:
            self._kill(signal.SIGKILL)
        try:
            for final in (signal.SIGTERM, signal.SIGKILL):
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), self._grace)
                    break
                self._kill(final)
            await process.wait()
        finally:
            self._kill(signal.SIGKILL)  # what it has started and left behind
            for task in self._tasks:
                task.cancel()

    def _kill(self, by: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, by)


async def _lines(stream: asyncio.StreamReader, receive: Callable[[bytes], None]) -> None:
    """Hand on line by line until the stream ends. Raises McpError for a line that is too long."""
    held = bytearray()
    while piece := await stream.read(_PIECE):
        first, *rest = piece.split(b"\n")
        held += first
        for begun in rest:
            if held.strip():
                receive(bytes(held))
            held = bytearray(begun)
        if len(held) > LARGEST:
            raise McpError(f"it sent a message of more than {LARGEST >> 20} MiB")


def environment_of(server: McpServer, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a server gets: what every program needs, and what is set for it. Keys of ours are not among it.

    Raises ConfigError.
    """
    ours = os.environ if own is None else own
    return {name: ours[name] for name in _KEPT if name in ours} | {
        name: filled(value, f"env.{name}", ours) for name, value in server.env.items()
    }
