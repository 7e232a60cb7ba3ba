"""What one rank of a group is told, and how the ranks know each other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from squish.ipc import group_frames
from squish.ipc.group import Rank, command, new_token, read_rank
from squish.ipc.group_frames import Fork, Forward, NotOfThisGroup, ToRank
from squish.ipc.local_ranks import LocalRanks

RANK = Rank(1, ("127.0.0.1:1", "127.0.0.1:2"), "127.0.0.1:3", new_token(), "/models/one", "/cache")


def test_a_rank_is_read_as_it_was_given_and_its_token_is_not_on_the_command_line() -> None:
    started = command(RANK)
    assert read_rank(started.stdin) == RANK
    assert RANK.size == 2
    assert not any(RANK.token in part for part in started.argv)
    assert RANK.token not in str(started.environment)


def test_a_rank_with_a_field_that_is_not_known_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        read_rank(b'{"rank": 1, "extra": 2}')


def both(theirs: Callable[[socket.socket], object], ours: Callable[[socket.socket], object]) -> list[object]:
    """What the two sides of a connection come to: a result, or the error."""
    ends = socket.socketpair()
    results: list[object] = [None, None]

    def side(at: int, act: Callable[[socket.socket], object]) -> None:
        with ends[at]:
            try:
                results[at] = act(ends[at])
            except (NotOfThisGroup, OSError) as error:
                results[at] = error

    threads = [threading.Thread(target=side, args=each) for each in enumerate((theirs, ours))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_who_has_the_token_is_let_in_and_knows_that_the_other_has_it_too() -> None:
    hello, nothing = both(
        lambda end: group_frames.greet(end, "secret", 3), lambda end: group_frames.introduce(end, "secret", 2, ("1",))
    )
    assert isinstance(hello, group_frames.Hello)
    assert (hello.rank, hello.versions, nothing) == (2, ("1",), None)


def test_another_token_and_a_rank_that_does_not_exist_are_refused() -> None:
    for token, rank in (("other", 1), ("secret", 3), ("secret", 0)):
        refused, left = both(
            lambda end: group_frames.greet(end, "secret", 3),
            lambda end, token=token, rank=rank: group_frames.introduce(end, token, rank, ()),  # type: ignore[misc]
        )
        assert isinstance(refused, NotOfThisGroup)
        assert isinstance(left, NotOfThisGroup | OSError)


def test_a_rank_0_without_the_token_learns_nothing_and_is_left() -> None:
    def pretend(end: socket.socket) -> None:
        group_frames.send(end, group_frames.Challenge(b"n" * 32))
        group_frames.receive(end, group_frames.Hello)
        group_frames.send(end, group_frames.Accepting(b"x" * 32))

    _, left = both(pretend, lambda end: group_frames.introduce(end, "secret", 1, ()))
    assert isinstance(left, NotOfThisGroup)


def test_what_strangers_send_is_small_or_not_read() -> None:
    def announce(end: socket.socket) -> None:
        end.sendall(b"\xff\xff\xff\xff")
        end.recv(1 << 16)

    refused, _ = both(lambda end: group_frames.greet(end, "secret", 3), announce)
    assert isinstance(refused, NotOfThisGroup)


def test_frames_come_out_as_they_went_in() -> None:
    here, there = socket.socketpair()
    sent = (Fork(2, 1, 64), Forward(7, (2, 1), (64, 0), ((5,), (6, 7)), 2))
    with there:
        with here:
            for frame in sent:
                group_frames.send(here, frame)
        kind: Any = ToRank
        assert [group_frames.receive(there, kind) for _ in sent] == list(sent)
        assert group_frames.receive(there, kind) is None


async def test_ports_of_local_ranks_are_not_among_those_that_systems_give_to_connections() -> None:
    """A connection of any program would take one between the plan and the moment at which its rank listens there."""
    plans = [await LocalRanks(8).plan("/models/one", "/cache") for _ in range(20)]
    for ranks in plans:
        ports = [int(each.rpartition(":")[2]) for each in (ranks[0].control, *ranks[0].addresses)]
        assert len(set(ports)) == 9
        assert max(ports) < 32_768
