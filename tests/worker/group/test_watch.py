"""When rank 0 gives a group up, and when it does not."""

from __future__ import annotations

from squish.ipc.group import Rank
from squish.worker.group.watch import FIRST_STANDSTILL, SILENCE, SILENCE_WHILE_LOADING, STANDSTILL, Watch


def rank_0(size: int, names: tuple[str, ...] = ()) -> Rank:
    return Rank(0, tuple(f"127.0.0.1:{port}" for port in range(size)), "", "", "", "", names=names)


def serving(passes: int = 2) -> Watch:
    """Of three ranks that have finished some passes at time 0, and everybody rests."""
    watch = Watch(rank_0(3), 0.0)
    watch.serving = True
    watch.sent(passes, 0.0)
    for rank in (1, 2):
        watch.progressed(rank, passes, 4, 0.0)
    watch.settled(0.0)
    return watch


def lives(watch: Watch, now: float, finished: int = 2, collectives: int = 4) -> None:
    for rank in (1, 2):
        watch.progressed(rank, finished, collectives, now)


def test_ranks_that_rest_are_never_given_up() -> None:
    watch = serving()
    for now in range(1, 10_000, 5):
        lives(watch, float(now))
        assert watch.verdict(float(now)) is None


def test_a_rank_that_says_nothing_is_named() -> None:
    watch = serving()
    watch.progressed(1, 2, 4, SILENCE)
    assert watch.verdict(SILENCE) is None
    assert "Rank 2" in (watch.verdict(SILENCE + 0.1) or "")


def test_while_it_loads_a_rank_may_be_silent_for_longer() -> None:
    watch = Watch(rank_0(2), 0.0)
    assert watch.verdict(SILENCE_WHILE_LOADING) is None
    assert watch.verdict(SILENCE_WHILE_LOADING + 0.1) is not None


def test_signs_of_life_without_progress_are_a_deadlock() -> None:
    watch = serving()
    watch.sent(3, 100.0)
    lives(watch, 100.0 + STANDSTILL)
    assert watch.verdict(100.0 + STANDSTILL) is None
    lives(watch, 100.1 + STANDSTILL)
    assert "waited for each other" in (watch.verdict(100.1 + STANDSTILL) or "")


def test_one_rank_that_is_behind_is_enough() -> None:
    watch = serving()
    watch.sent(3, 100.0)
    for now in (100.0, 101.0 + STANDSTILL):
        watch.progressed(1, 3, 6, now)
        watch.progressed(2, 2, 4, now)
    assert watch.verdict(100.0 + STANDSTILL) is None
    later = 102.0 + 2 * STANDSTILL
    watch.heard(1, later)
    watch.heard(2, later)
    assert watch.verdict(later) is not None


def test_a_long_prompt_moves_on_and_is_no_deadlock() -> None:
    watch = serving()
    watch.sent(3, 100.0)
    for sums in range(1000):
        lives(watch, 100.0 + sums * STANDSTILL, collectives=4 + sums)
        assert watch.verdict(100.0 + sums * STANDSTILL) is None


def test_the_first_pass_may_take_longer() -> None:
    watch = Watch(rank_0(2), 0.0)
    watch.serving = True
    watch.progressed(1, 0, 0, 0.0)
    watch.sent(1, 0.0)
    watch.progressed(1, 0, 0, FIRST_STANDSTILL)
    assert watch.verdict(FIRST_STANDSTILL) is None
    watch.progressed(1, 0, 0, FIRST_STANDSTILL + 1)
    assert watch.verdict(FIRST_STANDSTILL + 1) is not None


def test_a_rank_on_another_machine_is_called_by_its_name_too() -> None:
    watch = Watch(rank_0(2, ("studio", "mini")), 0.0)
    assert watch.verdict(SILENCE_WHILE_LOADING + 1) == "Rank 1 of the group (mini) did not respond for 60 s"
