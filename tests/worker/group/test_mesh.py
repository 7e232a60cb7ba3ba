"""Sums between ranks, and who may connect to them: each rank is a thread here."""

from __future__ import annotations

import queue
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from squish.errors import SquishError
from squish.ipc import group_frames
from squish.ipc.group import Rank, new_token
from squish.worker.group.control import Control
from squish.worker.group.mesh import Mesh, PeerLost
from tests.ports import own_port, own_ports


def ranks(size: int) -> list[Rank]:
    addresses, token = tuple(f"127.0.0.1:{port}" for port in own_ports(size)), new_token()
    return [Rank(rank, addresses, "", token, "", "") for rank in range(size)]


def numbers(rank: int, size: int) -> Any:
    return np.random.default_rng(rank).standard_normal(size, np.float32)


@pytest.mark.parametrize("size", [2, 3])
def test_every_rank_has_the_same_sum_in_the_order_of_ranks(size: int) -> None:
    lengths = (1, 576, 100_000)  # the last does not fit into one part

    def work(rank: Rank) -> list[Any]:
        with closing(Mesh(rank)) as mesh:
            return [np.array(mesh._all_sum(mx.array(numbers(rank.rank, length)))) for length in lengths]

    with ThreadPoolExecutor(size) as threads:
        results = list(threads.map(work, ranks(size)))
    for at, length in enumerate(lengths):
        expected = numbers(0, length)
        for rank in range(1, size):
            expected = expected + numbers(rank, length)
        for result in results:
            assert np.array_equal(result[at], expected)


def test_what_one_rank_sends_another_gets_and_all_gather_has_everybodys() -> None:
    def work(rank: Rank) -> tuple[Any, Any]:
        with closing(Mesh(rank)) as mesh:
            own = mx.full((1, 3), float(rank.rank))
            received = mesh._recv_like(own, 1) if rank.rank == 0 else mesh._send(own, 0)
            return np.array(received).tolist(), np.array(mesh._all_gather(own)).tolist()

    with ThreadPoolExecutor(2) as threads:
        (first, gathered), (_, too) = threads.map(work, ranks(2))
    assert first == [[1.0] * 3]
    assert gathered == too == [[0.0] * 3, [1.0] * 3]


def test_a_rank_that_has_ended_is_noticed_by_the_others() -> None:
    def work(rank: Rank) -> bool:
        with closing(Mesh(rank)) as mesh:
            if rank.rank == 0:
                with pytest.raises(PeerLost):
                    mesh._all_sum(mx.ones(4))
        return True

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, ranks(2))) == [True, True]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have to be given 127.0.0.2")
def test_rank_0_takes_the_ranks_of_its_group_and_nobody_else() -> None:
    control = f"127.0.0.1:{own_port()}"
    rank = Rank(0, (control, "127.0.0.2:1"), control, new_token(), "", "")
    warned: list[str] = []
    lost: queue.SimpleQueue[SquishError] = queue.SimpleQueue()
    leader = Control(rank, lost.put, warned.append)
    gathering = threading.Thread(target=leader.gather, args=(("1",),))
    gathering.start()

    def come(source: str, token: str) -> bool:
        host, port = control.split(":")
        with socket.create_connection((host, int(port)), source_address=(source, 0)) as connection:
            try:
                group_frames.introduce(connection, token, 1, ("1",))
            except (group_frames.NotOfThisGroup, OSError):
                return False
            return True

    assert not come("127.0.0.1", rank.token)
    assert not come("127.0.0.2", "another token")
    assert come("127.0.0.2", rank.token)
    gathering.join()
    assert "Rank 1 of the group ended" in lost.get().message  # its connection is closed by now
    assert [("127.0.0.1" in each, "token" in each) for each in warned] == [(True, False), (False, True)]


def test_an_address_that_another_program_has_is_said() -> None:
    rank = ranks(2)[0]
    host, port = rank.addresses[0].split(":")
    with socket.create_server((host, int(port))), pytest.raises(SquishError, match="Another program has") as raised:
        Mesh(rank)
    assert rank.addresses[0] in raised.value.message and raised.value.hint
