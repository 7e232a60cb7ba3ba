"""A server of our own in a process of its own, for as long as it is needed, and how much memory it took at most."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from squish.errors import EngineError
from squish.system import servers
from squish.system.host import HOST
from squish.system.servers import ServedModel

_START_SECONDS = 60.0
_LOOK = 0.1
# `squish` that ends with the process that started it, also when that one was killed: then its standard input closes.
_PROGRAM = """
import os, runpy, signal, threading

def end_with_parent():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end_with_parent, daemon=True).start()
runpy.run_module("squish", run_name="__main__")
"""


class OwnServer:
    """url: where it listens. key: what it asks for. peak: bytes that its processes took together at most, as of the
    latest `look`."""

    def __init__(self, pid: int, url: str, home: Path, key: str) -> None:
        self.url = url
        self.key = key
        self.peak = 0
        self._process = psutil.Process(pid)
        self._home = home

    def look(self) -> None:
        """Read its memory now."""
        total = 0
        with contextlib.suppress(psutil.Error):
            for process in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += HOST.footprint(process.pid) or 0
        self.peak = max(self.peak, total)

    def model(self, name: str) -> ServedModel | None:
        """A model as it is in its memory now; None where it is not."""
        own = [each for each in servers.servers(self._home) if each.pid == self._process.pid]
        return next((model for each in own for model in each.models if model.name == name), None)

    async def watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(_LOOK)


@asynccontextmanager
async def own_server(home: Path, *options: str) -> AsyncIterator[OwnServer]:
    """`squish serve` on a free port until the block is left, or this process is gone. options: more of its.

    Raises EngineError when it does not start.
    """
    # Where the user has made keys for clients, it asks for one, and only their hashes are kept.
    key = os.environ.get("SQUISH_API_KEY") or secrets.token_urlsafe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _PROGRAM, "serve", "--host", "127.0.0.1", "--port", "0", *options,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"SQUISH_API_KEY": key}, start_new_session=True,
    )  # fmt: skip
    watching: asyncio.Task[None] | None = None
    try:
        server = OwnServer(process.pid, await _url(process, home), home, key)
        watching = asyncio.create_task(server.watch())
        yield server
    finally:
        if watching:
            watching.cancel()
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _url(process: asyncio.subprocess.Process, home: Path) -> str:
    try:
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                for server in servers.servers(home):
                    if server.pid == process.pid and server.url:
                        return server.url
                await asyncio.sleep(_LOOK)
    except TimeoutError:
        pass
    raise EngineError("A server of our own did not start.", hint="Run: squish serve --port 0, and squish doctor")
