"""Owns when rank 0 gives a group up: a rank that says nothing, or one that lives and gets nowhere.

A sign of life comes from a thread of its own, and goes on coming from a rank that waits forever for the others. So
there is an account of progress too: passes that are finished, and sums with other ranks within a pass. A long prompt
or a slow machine moves it on all the time; only what stands still while a pass is not finished is given up.

Pure: it is told the time, in seconds of any clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from squish.ipc.group import Rank

SILENCE = 10.0
SILENCE_WHILE_LOADING = 60.0
STANDSTILL = 20.0
FIRST_STANDSTILL = 120.0
"""For the first pass, in which kernels are compiled."""


@dataclass(slots=True)
class _Watched:
    heard: float
    finished: int = 0
    collectives: int = 0


class Watch:
    """Of the ranks above 0, and of rank 0's own passes. own: what rank 0 knows of the group."""

    def __init__(self, own: Rank, now: float) -> None:
        self._called = own.called
        self._others = {rank: _Watched(now) for rank in range(1, own.size)}
        self._sent = 0
        self._settled = 0
        self._moved = now
        self.serving = False

    def heard(self, rank: int, now: float) -> None:
        self._others[rank].heard = now

    def progressed(self, rank: int, finished: int, collectives: int, now: float) -> None:
        watched = self._others[rank]
        if (watched.finished, watched.collectives) != (finished, collectives):
            self._moved = now
        watched.finished, watched.collectives, watched.heard = finished, collectives, now

    def sent(self, number: int, now: float) -> None:
        """Rank 0 begins a pass."""
        self._sent, self._moved = number, now

    def settled(self, now: float) -> None:
        """Rank 0 has finished all its passes."""
        self._settled, self._moved = self._sent, now

    def verdict(self, now: float) -> str | None:
        """Why the group has to end; None while it is well."""
        silence = SILENCE if self.serving else SILENCE_WHILE_LOADING
        for rank, watched in self._others.items():
            if now - watched.heard > silence:
                return f"{self._called(rank)} did not respond for {silence:.0f} s"
        behind = [rank for rank, watched in self._others.items() if watched.finished < self._sent]
        if not behind and self._settled == self._sent:
            return None
        limit = FIRST_STANDSTILL if self._sent <= 1 or not behind else STANDSTILL
        if now - self._moved <= limit:
            return None
        return f"The ranks of the group have waited for each other for {limit:.0f} s"
