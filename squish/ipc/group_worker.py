"""The worker of a model that several ranks hold: rank 0, and the others that were started with it.

To an engine it is a worker. Whichever rank ends, the others are ended too, and `receive` says so once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from squish.errors import WorkerDied
from squish.ipc.frames import Failed, FromWorker, Load, ToWorker
from squish.ipc.group import Member, Rank, Ranks
from squish.ipc.local_ranks import LocalMember
from squish.ipc.process import Worker

_LAST_WORDS = 2.0  # seconds in which rank 0 may say itself why the group ends


class GroupWorker:
    """Create it with `gather`; the rest is as of Worker."""

    def __init__(self, worker: Worker, rank: Rank, members: dict[int, Member], on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._worker = worker
        self._rank = rank
        self._members = members
        self._lost: WorkerDied | None = None
        self._watching = [
            asyncio.create_task(self._watch(number, member), name=f"rank {number}")
            for number, member in members.items()
        ]

    @classmethod
    async def gather(
        cls, worker: Worker, ranks: Ranks, model: Path, cache_dir: Path, on_lost: Callable[[], None]
    ) -> GroupWorker:
        """Start the other ranks for a worker that has not loaded anything. on_lost: called when a rank has died.

        Raises SquishError; then all have ended.
        """
        members: dict[int, Member] = {}
        try:
            first, *others = await ranks.plan(str(model), str(cache_dir))
            for rank in others:
                members[rank.rank] = await ranks.start(rank)
        except BaseException:
            worker.kill()
            await asyncio.gather(worker.close(), *(member.close() for member in members.values()))
            raise
        return cls(worker, first, members, on_lost)

    @property
    def pid(self) -> int:
        """Of rank 0."""
        return self._worker.pid

    @property
    def ended(self) -> bool:
        return self._worker.ended

    @property
    def pids(self) -> list[int]:
        """Of all ranks that run on this machine, rank 0 first."""
        return [self.pid, *(member.pid for member in self._members.values() if isinstance(member, LocalMember))]

    def send(self, frame: ToWorker) -> None:
        if isinstance(frame, Load):
            frame = msgspec.structs.replace(frame, group=self._rank)
        self._worker.send(frame)

    async def receive(self) -> FromWorker:
        """As of Worker; raises WorkerDied also for another rank that has ended."""
        try:
            frame = await self._worker.receive()
        except WorkerDied as error:
            self._on_lost()
            if self._lost:
                raise self._lost from error
            raise WorkerDied(f"Rank 0 of the group: {error.message}", hint=error.hint) from error
        if isinstance(frame, Failed) and frame.request is None and frame.failure.code == WorkerDied.code:
            self._on_lost()
        return frame

    async def close(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(self._worker.close(), *(member.close() for member in self._members.values()))

    def kill(self) -> None:
        self._worker.kill()

    async def _watch(self, number: int, member: Member) -> None:
        """End rank 0 when another has ended, unless it does so itself: it may know more."""
        said = await member.ended()
        await asyncio.sleep(_LAST_WORDS)
        if self._lost is None:
            detail = f" It last said: {said.splitlines()[-1]}" if said else ""
            self._lost = WorkerDied(
                f"Rank {number} of the group ended, and the group with it.{detail}",
                hint="Try again: that starts a new group.",
            )
        self._worker.kill()
