"""How long a group that was lost waits before it is started again."""

from __future__ import annotations

from squish.sessions.backoff import Backoff


def test_the_first_start_and_the_first_new_one_are_at_once() -> None:
    backoff = Backoff()
    assert backoff.wait(5.0) == 0.0
    backoff.started(5.0)
    backoff.ended(6.0)
    assert backoff.wait(6.0) == 0.0


def test_ends_soon_after_each_other_wait_longer_each_time_up_to_half_a_minute() -> None:
    backoff, waits = Backoff(), []
    for _ in range(8):
        backoff.started(0.0)
        backoff.ended(1.0)
        waits.append(backoff.wait(1.0))
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert backoff.wait(11.0) == 20.0
    for _ in range(2000):
        backoff.ended(1.0)
    assert backoff.wait(1.0) == 30.0


def test_an_end_after_a_long_life_begins_anew() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.started(0.0)
        backoff.ended(1.0)
    backoff.started(10.0)
    backoff.ended(1000.0)
    assert backoff.wait(1000.0) == 0.0
