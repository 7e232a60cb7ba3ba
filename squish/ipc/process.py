"""One worker process seen from asyncio: start it, talk to it, notice its death, end it.

It knows frames and processes, not models, queues or policy. A worker ends by itself when its socket closes, so a front
process that is killed leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import msgspec

from squish.errors import EngineError, WorkerDied
from squish.ipc import death, frames
from squish.ipc.environment import environment
from squish.ipc.frames import Alive, FromWorker, ToWorker
from squish.ipc.last_lines import LastLines
from squish.ipc.remains import end_all, wait_then_insist
from squish.system.host import HOST
from squish.system.pipes import let_go
from squish.system.silence import silence

_EXIT_GRACE = 5.0
_SOCKET_BUFFER = 1 << 20  # bytes; macOS gives 8 KiB, less than one answer's logprobs
SILENCE = 60.0


class Worker:
    """A running worker process. Create it with `spawn`; end it with `close`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        silence: float,
    ) -> None:
        self._silence = silence
        self._closed = False
        self._process = process
        self._reader = reader
        self._writer = writer
        self._stderr = LastLines(process)

    @classmethod
    async def spawn(cls, cache_dir: Path, silence: float = SILENCE) -> Worker:
        """Start a worker. cache_dir: where it keeps what it compiles. silence: seconds until it counts as dead."""
        if (reason := HOST.unsuitable()) is not None:
            raise EngineError(reason)
        ours, theirs = _socket_pair()
        try:
            with theirs:
                process = await _start(theirs, cache_dir)
        except BaseException:
            ours.close()
            raise
        try:
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            end_all(process.pid)
            let_go(process)
            await process.wait()
            raise
        return cls(process, reader, writer, silence)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        return [self.pid]

    @property
    def ended(self) -> bool:
        """Whether the process is known to have ended."""
        return self._process.returncode is not None

    @property
    def stderr(self) -> str:
        """The last lines the worker, or a native library in it, wrote to its standard error."""
        return str(self._stderr)

    def send(self, frame: ToWorker) -> None:
        """Put a frame on its way. A dead worker is noticed by `receive`, not here."""
        if not self._writer.is_closing():
            self._writer.write(frames.encode(frame))

    async def receive(self) -> FromWorker:
        """The next frame that says something. Raises WorkerDied when the process has ended, or hangs.

        A worker that is slow goes on sending heartbeats; one that does not is ended here.
        """
        while True:
            try:
                async with silence(self._silence):
                    frame = await self._frame()
            except TimeoutError:
                self.kill()
                await self.close()
                raise WorkerDied(
                    f"The worker process of this model did not respond for {self._silence:.0f} s and was ended."
                ) from None
            if not isinstance(frame, Alive):
                return frame

    async def _frame(self) -> FromWorker:
        try:
            header = await self._reader.readexactly(frames.HEADER.size)
            return frames.decode_from_worker(await self._reader.readexactly(frames.body_length(header)))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._death() from None
        except (msgspec.MsgspecError, ValueError) as error:
            raise EngineError(f"The worker sent a frame that cannot be read: {error}.") from error

    async def close(self) -> None:
        """End the process: ask by closing the socket, then insist; where nobody waits any more, insist at once.

        Safe to call twice.
        """
        self._writer.close()
        await wait_then_insist(self._process, self._stderr, self._clear, _EXIT_GRACE)

    def kill(self) -> None:
        """End the process at once, and with it a compiler that it may have started."""
        if self._process.returncode is None:
            end_all(self.pid)

    def _clear(self) -> None:
        """End it, and what it has started, once: later another process may have its number."""
        if not self._closed:
            self._closed = True
            end_all(self.pid)

    async def _death(self) -> WorkerDied:
        await self.close()
        return death.explain(self._process.returncode or 0, list(self._stderr.lines))


async def _start(theirs: socket.socket, cache_dir: Path) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a folder named squish in the current directory must not be imported instead of us
            "-m",
            "squish.worker",
            str(theirs.fileno()),
            str(cache_dir),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            env=environment(),
            start_new_session=True,  # Ctrl-C in the terminal is the front process's to handle
        )
    except OSError as error:
        raise EngineError(f"The worker process could not be started: {error.strerror}.") from error


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for each in pair:
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            each.setsockopt(socket.SOL_SOCKET, buffer, _SOCKET_BUFFER)
    return pair
