"""The agent: what `squish worker` does on another machine while `squish serve --hosts` is connected to it.

It says what is there, takes a model's files, measures links, and starts and ends the one rank of its machine. When the
connection ends, or nothing has been heard for a while, the rank ends and so does it. It decides nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from squish.cluster import facts, link
from squish.cluster.channel import Channel
from squish.cluster.messages import (
    Beat,
    Beaten,
    Chunk,
    Farewell,
    Fetch,
    FileEnd,
    FileWhole,
    FromAgent,
    Have,
    Install,
    LinkOpen,
    Look,
    MeasureLink,
    ModelThere,
    OpenLink,
    RankEnded,
    RankStarted,
    RankStopped,
    Receive,
    StartRank,
    StopRank,
    ToAgent,
    ToFront,
    Working,
    Written,
)
from squish.cluster.receiving import Receiving, look
from squish.config.settings import Settings
from squish.errors import EngineError, SquishError
from squish.ipc.frames import Failed, WireError
from squish.ipc.local_ranks import LocalMember, LocalRanks
from squish.models.manifest import StoredFile
from squish.models.store import Store

SILENCE = 20.0
"""Seconds without a word from the other side after which it counts as gone; it says something every two."""

_SHOWN_EVERY = 0.2

Puller = Callable[[str, Callable[[Working], None]], Awaitable[None]]


class Agent:
    """One connection's worth of it. pull: installs a model from the Hub, and reports."""

    def __init__(self, channel: Channel[FromAgent, ToAgent], rank: int, settings: Settings, pull: Puller) -> None:
        self._channel = channel
        self._rank = rank
        self._settings = settings
        self._store = Store(settings.cache_dir)
        self._pull = pull
        self._orders: asyncio.Queue[ToAgent] = asyncio.Queue()
        self._receiving: Receiving | None = None
        self._started: LocalMember | None = None
        self._watching: asyncio.Task[None] | None = None
        self._shown = 0.0

    async def run(self) -> None:
        """Serve until the server says that it ends. Raises ConnectionError, with how, where the connection ends."""
        working = asyncio.create_task(self._work(), name="agent")
        try:
            await self._channel.send(facts.gather(self._settings, self._rank))
            await self._listen(working)
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await working
            self._give_up()
            await self._stop()
            await self._channel.close()

    async def _listen(self, working: asyncio.Task[None]) -> None:
        """Take orders in; beats are answered at once, whatever is being done."""
        while not working.done():
            try:
                async with asyncio.timeout(SILENCE):
                    message = await self._channel.receive()
            except TimeoutError:
                raise ConnectionError(f"nothing was heard for {SILENCE:.0f} s") from None
            if isinstance(message, Farewell):
                return
            if isinstance(message, Beat):
                await self._channel.send(Beaten(message.number, time.time()))
            else:
                self._orders.put_nowait(message)
        working.result()

    async def _work(self) -> None:
        """Do one order after the other."""
        while True:
            order = await self._orders.get()
            try:
                reply = await self._do(order)
            except SquishError as error:
                reply = Failed(None, WireError.of(error))
            except OSError as error:
                problem = EngineError(f"{error.strerror or error}: {error.filename or 'a file'} on that machine.")
                reply = Failed(None, WireError.of(problem))
            await self._channel.send(reply)

    async def _do(self, order: ToAgent) -> ToFront:
        match order:
            case Look(id=id, files=files):
                return await self._look(id, files)
            case Receive(manifest=manifest):
                self._give_up()
                self._receiving = Receiving(self._store, manifest)
                return Have(self._receiving.sizes())
            case Chunk():
                return Written(await asyncio.to_thread(self._arriving.write, order))
            case FileEnd(file=file):
                return FileWhole(await self._arriving.end(file))
            case Install():
                installed = await self._arriving.install()
                self._receiving = None
                return await self._look(installed.manifest.id, installed.manifest.files)
            case Fetch(name=name, id=id, files=files):
                await self._pull(name, self._show)
                return await self._look(id, files)
            case _:
                return await self._do_now(order)

    async def _do_now(self, order: ToAgent) -> ToFront:
        match order:
            case OpenLink(address=address, port=port, token=token):
                server = await asyncio.to_thread(link.listen, address, port)
                asyncio.get_running_loop().run_in_executor(None, link.answer, server, token)
                return LinkOpen()
            case MeasureLink(address=address, port=port, token=token):
                return await asyncio.to_thread(link.measure, address, port, token)
            case StartRank():
                return await self._start(order)
            case StopRank():
                await self._stop()
                return RankStopped()
            case _:
                raise EngineError(f"An agent does not know what {type(order).__name__} is.")

    async def _look(self, id: str, files: tuple[StoredFile, ...]) -> ModelThere:
        total = sum(file.size for file in files)
        loop = asyncio.get_running_loop()

        def seen(done: int) -> None:
            loop.call_soon_threadsafe(self._show, Working("check", done, total))

        return await look(self._store, id, files, self._settings.worker_cache / "verified", seen)

    async def _start(self, order: StartRank) -> RankStarted:
        await self._stop()
        installed = self._store.find(order.id)
        cache_dir = self._settings.worker_cache
        rank = msgspec.structs.replace(order.rank, model=str(installed.path), cache_dir=str(cache_dir))
        self._started = await LocalRanks(rank.size).start(rank)
        self._watching = asyncio.create_task(self._watch(self._started), name="rank")
        return RankStarted(self._started.pid)

    async def _watch(self, started: LocalMember) -> None:
        said = await started.ended()
        await self._channel.send(RankEnded(said))

    async def _stop(self) -> None:
        started, self._started = self._started, None
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
        if started is not None:
            await started.close()

    @property
    def _arriving(self) -> Receiving:
        if self._receiving is None:
            raise EngineError("No model is being copied.")
        return self._receiving

    def _give_up(self) -> None:
        if self._receiving is not None:
            self._receiving.close()
            self._receiving = None

    def _show(self, working: Working) -> None:
        """Report, a few times a second at most: the connection has other things to carry."""
        now = time.monotonic()
        if now - self._shown > _SHOWN_EVERY:
            self._shown = now
            self._say(working)

    def _say(self, message: FromAgent) -> None:
        task = asyncio.ensure_future(self._channel.send(message))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())


def secret() -> str:
    """What two ends of a measured link show each other."""
    return secrets.token_hex(32)
