"""Whose turn it is among the requests for one model."""

from __future__ import annotations

import pytest

from squish.errors import QueueFull
from squish.generation import Finished, GenerationEvent, Queued
from squish.ipc.frames import ToWorker
from squish.sessions.queue import RequestQueue


class Asked:
    """A request that remembers its places in the queue."""

    def __init__(self, rows: int = 1, account: str = "", *, background: bool = False) -> None:
        self.rows, self.account, self.background, self.keep_alive = rows, account, background, None
        self.sent = self.heard = self.cancelled = False
        self.attempts = 0
        self.unfinished, self.grammar = {0}, False
        self.places: list[int] = []

    def begin(self) -> None: ...

    def frame(self, id: int) -> ToWorker:
        raise NotImplementedError

    def put(self, event: GenerationEvent) -> None:
        if isinstance(event, Queued):
            self.places.append(event.position)

    def fail(self, error: Exception) -> None: ...

    def finish_unsent(self) -> None:
        self.put(Finished(0, "cancelled", None, None))  # type: ignore[arg-type]


def started(queue: RequestQueue) -> list[Asked]:
    found = []
    while work := queue.next():
        queue.running[len(queue.running)] = work
        found.append(work)
    return found  # type: ignore[return-value]


def test_the_background_leaves_a_quarter_of_the_places_free() -> None:
    queue = RequestQueue(max_waiting=64, max_rows=8)
    batch = [Asked(background=True) for _ in range(20)]
    running = [work for work in batch if queue.admit(work) and queue.running.setdefault(id(work), work)]
    assert len(running) == 6
    somebody = Asked()
    assert queue.admit(somebody)


def test_whoever_is_waited_for_goes_first() -> None:
    queue = RequestQueue(max_waiting=64, max_rows=2)
    queue.running[0] = Asked(2)
    behind, first, second = Asked(background=True), Asked(), Asked()
    assert not any(queue.admit(work) for work in (behind, first, second))
    assert (behind.places[-1], first.places[-1], second.places[-1]) == (3, 1, 2)
    queue.running.clear()
    assert started(queue) == [first, second]
    queue.running.clear()
    assert started(queue) == [behind]


def test_the_background_takes_no_place_in_the_queue_of_others() -> None:
    queue = RequestQueue(max_waiting=1, max_rows=1)
    queue.running[0] = Asked()
    assert not queue.admit(Asked(background=True))
    assert not queue.admit(Asked())
    for background in (True, False):
        with pytest.raises(QueueFull):
            queue.admit(Asked(background=background))


def test_a_request_in_the_background_can_be_taken_out() -> None:
    queue = RequestQueue(max_waiting=8, max_rows=1)
    queue.running[0] = Asked()
    behind = Asked(background=True)
    queue.admit(behind)
    assert queue.withdraw(behind) and not queue.withdraw(behind)
    assert queue.waiting == 0


def test_one_client_with_many_requests_does_not_keep_another_waiting() -> None:
    queue = RequestQueue(max_waiting=64, max_rows=8)
    flood = [Asked(account="a") for _ in range(60)]
    for work in flood:
        if queue.admit(work):
            queue.running[len(queue.running)] = work
    assert len(queue.running) == 8
    other = Asked(account="b")
    assert queue.admit(other)
    queue.running[99] = other
    assert not queue.admit(second := Asked(account="b"))
    assert second.places[-1] == 2, "its turn comes after one of the other's, not after 52"


def test_accounts_take_turns_by_rows() -> None:
    queue = RequestQueue(max_waiting=64, max_rows=4)
    queue.running[0] = Asked(4, "a")
    queue.running[1] = Asked(1, "b")
    large = [Asked(2, "a") for _ in range(2)]
    small = [Asked(1, "b") for _ in range(4)]
    assert not any(queue.admit(work) for work in (*large, *small))
    queue.running.clear()
    assert started(queue) == [large[0], small[0], small[1]]
    queue.running.clear()
    assert started(queue) == [large[1], small[2], small[3]]


def test_a_pause_saves_no_turns_up() -> None:
    queue = RequestQueue(max_waiting=64, max_rows=1)
    queue.running[0] = Asked(1, "a")
    queue.running[1] = Asked(1, "b")
    for _ in range(3):
        queue.admit(Asked(account="a"))
    for _ in range(3):
        queue.running.clear()
        started(queue)
    queue.running[1] = Asked(1, "b")
    mixed = [Asked(account=name) for name in "aabb"]
    assert not any(queue.admit(work) for work in mixed)
    order = []
    for _ in range(4):
        queue.running.clear()
        order += [work.account for work in started(queue)]
    assert sorted(order[:2]) == sorted(order[2:]) == ["a", "b"]


def test_nobody_fills_the_queue_for_all_others() -> None:
    queue = RequestQueue(max_waiting=2, max_rows=1)
    queue.running[0] = Asked(2, "a")
    queue.running[1] = Asked(1, "b")
    assert not queue.admit(Asked(account="a")) and not queue.admit(Asked(account="a"))
    with pytest.raises(QueueFull):
        queue.admit(Asked(account="a"))
    assert not queue.admit(Asked(account="b"))
    with pytest.raises(QueueFull):
        queue.admit(Asked(account="b"))


def test_a_request_of_more_rows_than_places_leaves_others_theirs() -> None:
    queue = RequestQueue(max_waiting=64, max_rows=8)
    queue.running[0] = Asked(rows=100, account="a")
    assert not queue.admit(Asked(account="a"))
    another = Asked(account="b")
    assert queue.admit(another)
    queue.running[1] = another
    assert not queue.admit(Asked(account="b"))
