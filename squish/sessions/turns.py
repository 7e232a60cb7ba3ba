"""Requests that wait, in the order in which their accounts take turns: fair queueing by rows.

Each account has a time of its own that goes on by a row for each row it starts, and the one whose time is least is
next. Within an account, first come, first served. One that comes back after a pause has saved nothing up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from squish.sessions.work import Work


class Turns:
    """The waiting requests. `list(turns)` has them in the order in which they would start."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Work]] = {}
        self._time: dict[str, int] = {}
        self._now = 0  # the time of the account that started last

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Work]:
        time = dict(self._time)
        left = {account: deque(works) for account, works in self._waiting.items()}
        while left:
            account = min(left, key=time.__getitem__)
            work = left[account].popleft()
            time[account] += work.rows
            if not left[account]:
                del left[account]
            yield work

    def __contains__(self, work: Work) -> bool:
        return work in self._waiting.get(work.account, ())

    def of(self, account: str) -> int:
        """How many of an account wait."""
        return len(self._waiting.get(account, ()))

    def append(self, work: Work) -> None:
        self._of(work.account).append(work)

    def put_back(self, work: Work) -> None:
        """It had its turn, and is to be first again among its account's."""
        self._of(work.account).appendleft(work)

    def remove(self, work: Work) -> None:
        """Take out a request that waits."""
        self._waiting[work.account].remove(work)
        self._tidy(work.account)

    def start(self, work: Work) -> None:
        """Take out a request that is the first of its account: its turn has come."""
        account = work.account
        self._waiting[account].popleft()
        self._now = max(self._now, self._time[account])
        self._time[account] += work.rows
        self._tidy(account)

    def first(self) -> list[Work]:
        """The first request of each account, whose turn is next first."""
        return [self._waiting[account][0] for account in sorted(self._waiting, key=self._time.__getitem__)]

    def clear(self) -> list[Work]:
        """All of them; none waits any longer."""
        found = list(self)
        self._waiting.clear()
        return found

    def _of(self, account: str) -> deque[Work]:
        if account not in self._waiting:
            self._time[account] = max(self._now, self._time.get(account, 0))
        return self._waiting.setdefault(account, deque())

    def _tidy(self, account: str) -> None:
        if not self._waiting[account]:
            del self._waiting[account]
        for each in [each for each, time in self._time.items() if each not in self._waiting and time <= self._now]:
            del self._time[each]  # it would begin at now anyway
