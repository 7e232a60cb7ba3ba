"""The requests for one model: those that have a place in its batch, by number, and those that wait for one.

It knows neither the worker nor how long the model stays loaded: that is engine.py.
"""

from __future__ import annotations

from collections import deque

from squish.errors import InvalidInput, QueueFull, SquishError
from squish.generation import Queued
from squish.sessions.work import Work

MAX_ROWS = 256
ATTEMPTS = 2
"""How often a request is sent at most, where the worker died before it said anything of it."""


class RequestQueue:
    """max_waiting: requests that may wait; max_rows: rows decoded at the same time. running: by their number.

    Requests in the background start when no other waits, and leave a quarter of the places free, at least one where
    there are two or more: whoever comes next need not wait for them.
    """

    def __init__(self, max_waiting: int, max_rows: int) -> None:
        self.running: dict[int, Work] = {}
        self._waiting: deque[Work] = deque()
        self._behind: deque[Work] = deque()
        self._max_waiting, self._max_rows = max_waiting, max_rows
        self._background_rows = max(1, max_rows - max(1, max_rows // 4))

    def __bool__(self) -> bool:
        return bool(self.running or self._waiting or self._behind)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._behind)

    def admit(self, work: Work) -> bool:
        """Whether a request has a place at once; else it waits. Raises QueueFull and InvalidInput."""
        if not 1 <= work.rows <= MAX_ROWS:
            raise InvalidInput(f"A request has 1 to {MAX_ROWS} prompts, not {work.rows}.", param="prompt")
        waiting = self._behind if work.background else self._waiting
        ahead = self.waiting if work.background else len(self._waiting)
        if not ahead and self._has_place(work):
            return True
        if len(waiting) >= self._max_waiting:
            raise QueueFull(
                f"{len(waiting)} requests are already waiting for this model.", hint="Try again in a few seconds."
            )
        waiting.append(work)
        work.put(Queued(ahead + 1))
        if self._behind and not work.background:
            self.announce_positions()
        return False

    def next(self) -> Work | None:
        """The request whose turn it is, if there is a place for it now; it waits no longer."""
        waiting = self._waiting or self._behind
        return waiting.popleft() if waiting and self._has_place(waiting[0]) else None

    def withdraw(self, work: Work) -> bool:
        """Take a request out that waits; False for one that does not."""
        waiting = self._behind if work.background else self._waiting
        if work not in waiting:
            return False
        waiting.remove(work)
        work.finish_unsent()
        self.announce_positions()
        return True

    def number_of(self, work: Work) -> int | None:
        """The number of a request that runs."""
        return next((number for number, running in self.running.items() if running is work), None)

    def announce_positions(self) -> None:
        """Tell each waiting request its position."""
        for position, work in enumerate((*self._waiting, *self._behind), 1):
            work.put(Queued(position))

    def requeue_unheard(self) -> bool:
        """Requests that a dead worker had not begun wait again, in front; returns whether there were any.

        Each is sent again once: the worker may have died before it arrived.
        """
        unheard = [each for each in self.running.items() if not each[1].heard and each[1].attempts < ATTEMPTS]
        for number, work in reversed(unheard):
            del self.running[number]
            if work.cancelled:
                work.finish_unsent()
            else:
                work.sent = False
                (self._behind if work.background else self._waiting).appendleft(work)
        return bool(unheard)

    def fail_running(self, error: SquishError) -> None:
        running, self.running = self.running, {}
        for work in running.values():
            work.fail(error)

    def fail_all(self, error: SquishError) -> None:
        self.fail_running(error)
        for waiting in (self._waiting, self._behind):
            while waiting:
                waiting.popleft().fail(error)

    def _has_place(self, work: Work) -> bool:
        rows = sum(running.rows for running in self.running.values())
        return rows == 0 or rows + work.rows <= (self._background_rows if work.background else self._max_rows)
