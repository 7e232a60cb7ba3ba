"""Running servers on this machine: each announces itself on a Unix socket, which reports its state to clients.

A socket answers as long as its process lives, so nothing here can be out of date. It knows no HTTP and no engine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from squish.errors import SquishError
from squish.system import ports

_LONGEST = 103  # bytes of an address: macOS has room for 104, Linux for 108, with a zero at the end
_OPEN_FILES = Path("/proc/self/fd")
_ANSWER_SECONDS = 2.0
_LOOK = 0.05
_STOP_SECONDS = 45.0
"""Longer than a server waits for the requests in flight."""


class ServedModel(msgspec.Struct, frozen=True):
    """A model in a server's memory. weights_bytes is 0 until it is ready.

    backend: one line for people. kernel: what multiplies by weights on a CPU, and precision: how; "" on a GPU.
    kv_bits: of a number in the KV cache; 0 where there is none.
    """

    name: str
    state: str
    running: int
    waiting: int
    pid: int | None
    weights_bytes: int
    backend: str = ""
    kernel: str = ""
    precision: str = ""
    kv_bits: int = 0


class Server(msgspec.Struct, frozen=True):
    """A server that runs now. started in Unix seconds; url is empty while it starts. beside: a full-screen chat has it
    and is more than it."""

    pid: int
    url: str
    started: float
    models: tuple[ServedModel, ...]
    beside: bool = False


class Announcement:
    """`async with Announcement(home, models) as announcement:` around a server; call `listening` when it has a URL.

    models: tells what is loaded, whenever somebody asks: values with the attributes of ServedModel. beside: as in
    Server. Where no socket can be made the server runs without one.
    """

    def __init__(self, home: Path, models: Callable[[], Sequence[object]], *, beside: bool = False) -> None:
        self._path = _directory(home) / f"{os.getpid()}.sock"
        self._models, self._beside = models, beside
        self._url = ""
        self._started = time.time()
        self._server: asyncio.Server | None = None

    def listening(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            with _address(self._path) as address:
                self._server = await asyncio.start_unix_server(self._answer, address)
        except OSError:  # a home that cannot be written, or a path too long for a socket
            self._server = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server:
            self._path.unlink(missing_ok=True)
            await ports.stop_listening(self._server)

    def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            models = msgspec.convert(self._models(), tuple[ServedModel, ...], from_attributes=True)
            writer.write(msgspec.json.encode(Server(os.getpid(), self._url, self._started, models, self._beside)))
        finally:
            writer.close()


def servers(home: Path) -> tuple[Server, ...]:
    """Every server of this home that runs, the oldest first. What dead ones left behind is removed."""
    found = []
    for path in _directory(home).glob("*.sock"):
        try:
            found.append(_ask(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except (OSError, msgspec.MsgspecError):  # it is ending right now, or is too busy to answer
            continue
    return tuple(sorted(found, key=lambda server: server.started))


def at_port(home: Path, port: int) -> Server | None:
    """The server of this home that listens on a port, whatever its address; None where another program does."""
    return next((each for each in servers(home) if each.url.endswith(f":{port}")), None)


def stop(server: Server) -> None:
    """Ask a server to end as Ctrl-C does, and wait until it has. Raises SquishError when it goes on."""
    import psutil

    try:
        process = psutil.Process(server.pid)
        os.kill(server.pid, signal.SIGTERM)
        end = time.monotonic() + _STOP_SECONDS
        # A process that has ended is a zombie until its parent has waited for it: psutil's own wait would go on.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > end:
                raise SquishError(
                    f"The server {server.pid} did not end within {_STOP_SECONDS:.0f} s.",
                    hint=f"Run: kill -9 {server.pid}",
                )
            time.sleep(_LOOK)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return
    except PermissionError as error:
        raise SquishError(f"The server {server.pid} belongs to another user.") from error


def _ask(path: Path) -> Server:
    with socket.socket(socket.AF_UNIX) as connection, _address(path) as address:
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(address)
        received = b""
        while part := connection.recv(65536):
            received += part
    return msgspec.json.decode(received, type=Server)


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """A socket's path, or where that is longer than an address may be, a shorter one on Linux."""
    if len(os.fsencode(path)) <= _LONGEST or not _OPEN_FILES.is_dir():
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield str(_OPEN_FILES / str(directory) / path.name)
    finally:
        os.close(directory)


def _directory(home: Path) -> Path:
    return home / "run"
