"""One host as `squish serve --hosts` sees it: what its agent is asked, what it answers, and how it is lost.

Questions are answered in their order, so that several may be on their way. A host that says nothing for a while is
lost, whatever its connection looks like.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import TypeVar

from squish.cluster.channel import Channel
from squish.cluster.hosts import GroupHost
from squish.cluster.messages import (
    Beat,
    Beaten,
    Facts,
    Farewell,
    FromAgent,
    RankEnded,
    RankStarted,
    RankStopped,
    StartRank,
    StopRank,
    ToAgent,
    ToFront,
    Working,
)
from squish.errors import EngineError, SquishError, WorkerDied
from squish.ipc.frames import Failed
from squish.text import clean

SILENCE = 15.0
_BEAT = 2.0
_LAST_WORD = 1.0  # seconds
_FACTS = 30.0  # seconds for the first word: an interpreter has to start on a machine that may be busy

Answered = TypeVar("Answered", bound=ToFront)


class HostConnection:
    """A host that answers. Made by `opened`; `close` ends its agent, and with it its rank."""

    def __init__(
        self,
        host: GroupHost,
        channel: Channel[ToAgent, FromAgent],
        facts: Facts,
        end: Callable[[], Awaitable[str]],
    ) -> None:
        self.host = host
        self.facts = facts
        self.clock_offset: float | None = None
        self.report: Callable[[Working], None] = lambda working: None
        self._channel = channel
        self._end = end
        self._waiting: deque[asyncio.Future[ToFront]] = deque()
        self._lost: asyncio.Future[SquishError] = asyncio.get_running_loop().create_future()
        self._rank_ended: asyncio.Future[str] | None = None
        self.heard = asyncio.Event()
        self._gone = asyncio.Event()
        self._beats = count(1)
        self._beaten: dict[int, float] = {}
        self._tasks = (asyncio.create_task(self._listen()), asyncio.create_task(self._beat()))

    @property
    def rank(self) -> int:
        return self.facts.rank

    @property
    def lost(self) -> bool:
        return self._lost.done()

    async def ask(self, message: ToAgent, expected: type[Answered]) -> Answered:
        """The answer to a message. Raises what the host says is wrong, and WorkerDied where it is lost."""
        return await self.result(self.post(message), expected)

    def post(self, message: ToAgent) -> asyncio.Future[ToFront]:
        """Send a message whose answer is waited for later, with `result`."""
        answer: asyncio.Future[ToFront] = asyncio.get_running_loop().create_future()
        if self._lost.done():
            answer.set_exception(self._lost.result())
            answer.exception()  # who has several on their way asks for the result of the first
            return answer
        self._waiting.append(answer)
        sending = asyncio.ensure_future(self._channel.send(message))
        sending.add_done_callback(lambda done: done.cancelled() or done.exception())  # its end is seen by _listen
        return answer

    async def result(self, answer: asyncio.Future[ToFront], expected: type[Answered]) -> Answered:
        match await asyncio.shield(answer):
            case Failed(failure=failure):
                error = failure.to_error()
                hint = None if error.hint is None else clean(error.hint)
                raise type(error)(f"{self.host.name}: {clean(error.message)}", hint=hint, param=error.param)
            case found if isinstance(found, expected):
                return found
            case other:
                raise EngineError(f"{self.host.name} answered with {type(other).__name__}.")

    async def start_rank(self, order: StartRank) -> RemoteRank:
        """Start the rank of this host. Raises what that meets."""
        self._rank_ended = asyncio.get_running_loop().create_future()
        await self.ask(order, RankStarted)
        return RemoteRank(self, self._rank_ended)

    async def close(self) -> None:
        """End the agent there, and with it its rank. Safe to call twice."""
        if not self.lost:
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(_LAST_WORD):
                    await self._channel.send(Farewell())
        await self._lose("the connection was closed")
        await self._gone.wait()

    async def _listen(self) -> None:
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    message = await self._channel.receive()
                self._take(message)
        except TimeoutError:
            await self._lose(f"it has not been heard of for {SILENCE:.0f} s")
        except ConnectionError as error:
            await self._lose(str(error))

    def _take(self, message: FromAgent) -> None:
        match message:
            case Working():
                self.report(message)
            case RankEnded(said=said):
                if self._rank_ended is not None and not self._rank_ended.done():
                    self._rank_ended.set_result(clean(said))
            case Beaten(number=number, clock=clock):
                if (sent := self._beaten.pop(number, None)) is not None:
                    now = time.time()
                    self.clock_offset = clock - (sent + now) / 2
                    self.heard.set()
            case Facts():
                pass
            case _ if self._waiting:
                answer = self._waiting.popleft()
                if not answer.done():
                    answer.set_result(message)

    async def _beat(self) -> None:
        with suppress(ConnectionError):  # _listen sees it too
            while True:
                number = next(self._beats)
                self._beaten = {number: time.time()}
                await self._channel.send(Beat(number))
                await asyncio.sleep(_BEAT)

    async def _lose(self, how: str) -> None:
        """Everybody who waits hears of it; the way to the host is closed."""
        if self._lost.done():
            return
        self._lost.set_result(WorkerDied(f"{self.host.name} is lost: {how}."))
        self.heard.set()
        said = ""
        try:
            try:
                await self._channel.close()
            finally:  # also where nobody waits for it any more
                for task in self._tasks:
                    if task is not asyncio.current_task():
                        task.cancel()
                said = await self._end()
        finally:
            self._settle(how, said)
            self._gone.set()

    def _settle(self, how: str, said: str) -> None:
        """Tell everybody who waits."""
        error = WorkerDied(f"{self.host.name} is lost: {how}.{f' It last said: {said}' if said else ''}")
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()
        self._waiting.clear()
        if self._rank_ended is not None and not self._rank_ended.done():
            self._rank_ended.set_result(f"{error.message}")


class RemoteRank:
    """A rank that runs on another machine: `squish.ipc.group.Member`."""

    def __init__(self, connection: HostConnection, ended: asyncio.Future[str]) -> None:
        self._connection = connection
        self._ended = ended

    async def ended(self) -> str:
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        if not self._connection.lost:
            with suppress(SquishError):  # it is lost meanwhile, and the rank with it
                await self._connection.ask(StopRank(), RankStopped)
        if not self._ended.done():
            self._ended.set_result("")


async def opened(
    host: GroupHost, rank: int, channel: Channel[ToAgent, FromAgent], end: Callable[[], Awaitable[str]]
) -> HostConnection:
    """The connection to an agent that has just begun to talk. Raises EngineError where it says something else."""
    try:
        async with asyncio.timeout(_FACTS):
            facts = await channel.receive()
    except (TimeoutError, ConnectionError) as error:
        await channel.close()
        said = await end()
        raise EngineError(f"Squish on {host.name} did not say what it is: {said or error or 'no answer'}.") from None
    except asyncio.CancelledError:
        await channel.close()
        await end()
        raise
    if not isinstance(facts, Facts) or facts.rank != rank:
        await channel.close()
        await end()
        raise EngineError(f"{host.name} did not answer as rank {rank} of the group.")
    connection = HostConnection(host, channel, facts, end)
    try:
        await connection.heard.wait()
    except asyncio.CancelledError:
        await connection.close()
        raise
    return connection
