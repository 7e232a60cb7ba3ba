"""A server that is a process of ours: a message is a line on its standard input and output.

It gets an environment of its own and a process group of its own, which ends with us. It knows no messages.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sys
import termios
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from squish.config.mcp_server import McpServer
from squish.errors import McpError
from squish.mcp.transport import Ended, Receive, ServerLog
from squish.mcp.values import filled
from squish.mcp.wire import LARGEST

GRACE = 1.0
"""Seconds that a server gets to end by itself, and again after SIGTERM."""
ENDING = 10.0
"""Seconds that a server which has closed its input or output gets to end: how it ended says more."""

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_FLOOD_PAUSE = 0.05  # seconds between pieces of a stderr that nobody keeps
_KEPT = ("HOME", "LOGNAME", "USER", "PATH", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TERM", "TMPDIR", "TZ")
_STDERR_KEPT = 400  # characters of the last line, for people


class StdioTransport(asyncio.SubprocessProtocol):
    """A process that speaks MCP on its standard streams."""

    def __init__(self, server: McpServer, log: ServerLog, grace: float = GRACE, ending: float = ENDING) -> None:
        self._server, self._log, self._grace, self._ending = server, log, grace, ending
        self._process: asyncio.SubprocessTransport | None = None
        self._receive: Receive = lambda message: None
        self._ended: Ended = lambda error: None
        self._line, self._stderr = bytearray(), bytearray()  # what has no end of a line yet
        self._arrived: Counter[int] = Counter()  # bytes, by stream
        self._closed: set[int] = set()
        self._exited, self._writable, self._news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._inquest: asyncio.Task[None] | None = None
        self._last_words = ""
        self._failure: McpError | None = None
        self._closing = False

    @property
    def pid(self) -> int | None:
        return self._process.get_pid() if self._process else None

    async def start(self, receive: Receive, ended: Ended) -> None:
        server = self._server
        environment = environment_of(server)
        command = filled(server.command, "command")
        arguments = [filled(each, "args") for each in server.args]
        directory = Path(filled(server.cwd, "cwd")).expanduser() if server.cwd else None
        program = shutil.which(Path(command).expanduser(), path=environment.get("PATH"))
        if program is None:
            raise McpError(f"the program {command} is not there", hint="Install it, or write its whole path.")
        self._receive, self._ended = receive, ended
        self._writable.set()
        try:
            self._process, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: self, program, *arguments, env=environment, cwd=directory,
                start_new_session=True,  # Ctrl-C is ours to handle, and the whole group can be ended
            )  # fmt: skip
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise McpError(f"it cannot be started: {why}") from error

    async def send(self, message: bytes, headers: Mapping[str, str], *, asks: bool) -> None:
        """Raises McpError once it is known how the server ended. Before that nothing is written to one that does not
        read any more: `ended` is going to say how.
        """
        assert self._process is not None
        if self._failure is not None:
            raise self._failure
        if _STDIN not in self._closed:
            cast(asyncio.WriteTransport, self._process.get_pipe_transport(_STDIN)).write(message + b"\n")
            await self._writable.wait()

    def use_version(self, version: str, *, stateless: bool) -> None:
        """Nothing on this way depends on it."""

    # ---- what asyncio says of the process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Before `start` goes on, when it may have ended already.
        self._process = cast(asyncio.SubprocessTransport, transport)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._arrived[fd] += len(data)
        self._news.set()
        if fd == _STDERR:
            self._take_stderr(data)
        elif self._failure is None:
            self._take_output(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._closed.add(fd)
        self._news.set()
        if fd == _STDIN:
            self._writable.set()
        if fd != _STDERR and self._inquest is None and not self._closing:
            self._inquest = asyncio.get_running_loop().create_task(self._find_out())

    def process_exited(self) -> None:
        self._exited.set()

    # ---- what it says, and how it ends

    def _take_output(self, data: bytes) -> None:
        first, *rest = data.split(b"\n")
        self._line += first
        for begun in rest:
            message, self._line = bytes(self._line), bytearray(begun)
            if message.strip():
                self._receive(message)
        if len(self._line) > LARGEST:
            self._kill(signal.SIGKILL)
            self._end(McpError(f"it sent a message of more than {LARGEST >> 20} MiB"))

    def _take_stderr(self, data: bytes) -> None:
        if self._arrived[_STDERR] > LARGEST:
            if not self._exited.is_set():
                self._pause_stderr()
            return
        lines, found, begun = data.rpartition(b"\n")
        if found:
            self._note(bytes(self._stderr) + lines)
            self._stderr.clear()
        self._stderr += begun

    def _pause_stderr(self) -> None:
        assert self._process is not None
        pipe = cast(asyncio.ReadTransport, self._process.get_pipe_transport(_STDERR))
        pipe.pause_reading()
        asyncio.get_running_loop().call_later(_FLOOD_PAUSE, pipe.resume_reading)

    def _note(self, data: bytes) -> None:
        text = data.decode(errors="replace").strip()
        if text:
            self._last_words = " ".join(text.splitlines()[-1].split())[:_STDERR_KEPT]
            self._log.write(text)

    async def _find_out(self) -> None:
        """Say how it ended: what it has said until then is read, whoever else holds its streams open."""
        try:
            async with asyncio.timeout(self._ending):
                await self._exited.wait()
        except TimeoutError:
            self._end(McpError(f"it closed its {'output' if _STDOUT in self._closed else 'input'}"))
            return
        for fd in (_STDOUT, _STDERR):
            await self._read_to_the_end(fd)
        self._note(bytes(self._stderr))
        assert self._process is not None
        how = _obituary(self._process.get_returncode() or 0)
        self._end(McpError(f"{how}: {self._last_words}" if self._last_words else how))

    async def _read_to_the_end(self, fd: int) -> None:
        """Wait until all has arrived that lies in a pipe now; a process that was left behind may write on."""
        assert self._process is not None
        pipe = cast(asyncio.ReadTransport, self._process.get_pipe_transport(fd))
        pipe.resume_reading()
        await asyncio.sleep(0)  # what asyncio has read before arrives now
        written = None if pipe.is_closing() else self._arrived[fd] + _waiting(pipe.get_extra_info("pipe").fileno())
        while fd not in self._closed and (written is None or self._arrived[fd] < written):
            self._news.clear()
            await self._news.wait()

    def _end(self, error: McpError) -> None:
        if self._failure is None:
            self._failure = error
            self._ended(error)

    async def close(self, *, at_once: bool = False) -> None:
        """Close its input, and insist after the grace: first SIGTERM, then SIGKILL, each to the whole group."""
        process = self._process
        if process is None or self._closing:
            return
        self._closing = True
        if stdin := process.get_pipe_transport(_STDIN):
            stdin.close()
        if at_once:
            self._kill(signal.SIGKILL)
        try:
            for final in (signal.SIGTERM, signal.SIGKILL):
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._grace):
                        await self._exited.wait()
                    break
                self._kill(final)
            await self._exited.wait()
        finally:
            self._kill(signal.SIGKILL)  # what it has started and left behind
            if self._inquest is not None:
                self._inquest.cancel()
            process.close()  # also where a process outside its group holds the other ends

    def _kill(self, by: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.get_pid(), by)


def _obituary(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    named = {each.value: each.name for each in signal.Signals}
    return f"it was ended by {named.get(-code, f'signal {-code}')}"


def _waiting(pipe: int) -> int:
    """Bytes that can be read from a pipe now."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def environment_of(server: McpServer, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a server gets: what every program needs, and what is set for it. Keys of ours are not among it.

    Raises ConfigError.
    """
    ours = os.environ if own is None else own
    return {name: ours[name] for name in _KEPT if name in ours} | {
        name: filled(value, f"env.{name}", ours) for name, value in server.env.items()
    }
