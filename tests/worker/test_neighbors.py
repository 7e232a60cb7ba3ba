"""Who a ring is connected to: hosts, and on loopback itself; anybody else is found by the address."""

from __future__ import annotations

import socket
import sys

import pytest

from squish.errors import LoadFailed
from squish.ipc.group import Rank
from squish.worker.group.neighbors import foreign, require_neighbors

HOSTS = ["10.0.0.1", "10.0.0.2"]


def test_only_hosts_are_known() -> None:
    assert foreign(["10.0.0.2"], HOSTS) == []
    assert foreign(["10.0.0.2", "10.0.0.3", "127.0.0.1"], HOSTS) == ["10.0.0.3", "127.0.0.1"]
    assert foreign(["127.0.0.1", "10.0.0.3"], ["127.0.0.2", "127.0.0.3"]) == ["10.0.0.3"]


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has only one address on loopback")
def test_connections_of_this_process_are_looked_at() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        own = server.getsockname()
        with socket.create_connection(own), server.accept()[0]:
            place = f"{own[0]}:{own[1]}"
            require_neighbors(Rank(0, (place, "127.0.0.3:1"), "", "", "", ""))
            with pytest.raises(LoadFailed, match=r"was connected to by 127\.0\.0\.1"):
                require_neighbors(Rank(0, (place, "10.0.0.2:1"), "", "", "", ""))
