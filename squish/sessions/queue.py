"""The requests for one model: those that have a place in its batch, by number, and those that wait for one.

It knows neither the worker nor how long the model stays loaded: that is engine.py.
"""

from __future__ import annotations

from squish.errors import InvalidInput, QueueFull, SquishError
from squish.generation import Queued
from squish.sessions.turns import Turns
from squish.sessions.work import Work

MAX_ROWS = 256
ATTEMPTS = 2
"""How often a request is sent at most, where the worker died before it said anything of it."""


class RequestQueue:
    """max_waiting: requests that may wait; max_rows: rows decoded at the same time. running: by their number.

    Accounts take turns. One that has nothing running finds a place even where all are taken, as long as these are not
    a quarter more than max_rows: however much one asks for, another is answered at once. Requests in the background
    start when no other waits, and leave a quarter of the places free, at least one where there are two or more.
    """

    def __init__(self, max_waiting: int, max_rows: int) -> None:
        self.running: dict[int, Work] = {}
        self._waiting, self._behind = Turns(), Turns()
        self._max_waiting, self._max_rows = max_waiting, max_rows
        self._reserve = max(1, max_rows // 4)

    def __bool__(self) -> bool:
        return bool(self.running or self._waiting or self._behind)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._behind)

    def admit(self, work: Work) -> bool:
        """Whether a request has a place at once; else it waits. Raises QueueFull and InvalidInput."""
        if not 1 <= work.rows <= MAX_ROWS:
            raise InvalidInput(f"A request has 1 to {MAX_ROWS} prompts, not {work.rows}.", param="prompt")
        turns = self._turns(work)
        turns.append(work)
        if self._next() is work:
            turns.start(work)
            return True
        most = self._max_waiting * (1 if turns.of(work.account) > 1 else 2)  # nobody fills the queue for all others
        if len(turns) > most:
            turns.remove(work)
            raise QueueFull(
                f"{len(turns)} requests are already waiting for this model.", hint="Try again in a few seconds."
            )
        self.announce_positions()
        return False

    def next(self) -> Work | None:
        """The request whose turn it is, if there is a place for it now; it waits no longer."""
        if work := self._next():
            self._turns(work).start(work)
        return work

    def withdraw(self, work: Work) -> bool:
        """Take a request out that waits; False for one that does not."""
        turns = self._turns(work)
        if work not in turns:
            return False
        turns.remove(work)
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
                self._turns(work).put_back(work)
        return bool(unheard)

    def fail_running(self, error: SquishError) -> None:
        running, self.running = self.running, {}
        for work in running.values():
            work.fail(error)

    def fail_all(self, error: SquishError) -> None:
        self.fail_running(error)
        for work in (*self._waiting.clear(), *self._behind.clear()):
            work.fail(error)

    def _turns(self, work: Work) -> Turns:
        return self._behind if work.background else self._waiting

    def _next(self) -> Work | None:
        """The request that would start now."""
        for index, work in enumerate((self._waiting or self._behind).first()):
            if self._has_place(work, first=index == 0):
                return work
        return None

    def _has_place(self, work: Work, *, first: bool) -> bool:
        """first: whether it is its account's turn; else it has a place only where that takes none away."""
        rows = sum(running.rows for running in self.running.values())
        if rows == 0:
            return first
        if work.background:
            return first and rows + work.rows <= max(1, self._max_rows - self._reserve)
        if first and rows + work.rows <= self._max_rows:
            return True
        of_each: dict[str, int] = {}
        for running in self.running.values():
            of_each[running.account] = of_each.get(running.account, 0) + running.rows
        # a request of more rows than there are places runs alone of its account, and takes no more than all of them
        taken = sum(min(rows, self._max_rows) for rows in of_each.values())
        return work.account not in of_each and taken + work.rows <= self._max_rows + self._reserve
