"""Ports: taken is what answers, whatever a bind would say."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import psutil
import pytest

from squish.system.ports import addresses, can_bind, free_port, is_taken, stop_listening
from tests.ports import own_port


def test_a_listener_is_seen_also_through_the_address_of_all() -> None:
    port = own_port()  # one that the system gives to connections could be taken by another program right after
    with socket.create_server(("127.0.0.1", port)):
        assert is_taken("127.0.0.1", port)
        assert is_taken("0.0.0.0", port)
        assert not can_bind("127.0.0.1", port)
    assert not is_taken("127.0.0.1", port)
    assert can_bind("127.0.0.1", port)


def test_a_listener_on_an_address_of_this_machine_is_in_the_way_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """On BSD a bind to every address would succeed beside it."""
    card = [SimpleNamespace(family=socket.AF_INET, address=each) for each in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"en0": card})
    try:
        listener = socket.create_server(("127.0.0.2", 0))
    except OSError:
        pytest.skip("macOS has to be told of 127.0.0.2")
    with listener:
        port = listener.getsockname()[1]
        assert is_taken("0.0.0.0", port)
        assert not is_taken("127.0.0.1", port)
        assert not is_taken("::", port)


def test_port_0_is_free() -> None:
    assert not is_taken("127.0.0.1", 0)


def test_a_host_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(OSError, match=r".+"):
        is_taken("no such host", 80)


def test_an_address_of_another_machine_is_not_asked() -> None:
    assert not is_taken("203.0.113.7", 80)


def test_localhost_is_every_loopback_address_of_this_machine() -> None:
    meant = addresses("localhost")
    assert meant[0] == "127.0.0.1"
    assert addresses("0.0.0.0") == ["0.0.0.0"]
    for address in meant:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, 0), family=family) as listener:
            assert is_taken("localhost", listener.getsockname()[1]), address
    assert can_bind("localhost", free_port("localhost"))


@pytest.mark.parametrize("turns", range(6))
async def test_who_was_being_accepted_as_a_server_ends_has_come_in(turns: int) -> None:
    """Of a client that is there, asyncio knows more with each turn of the loop: here it ends in each of them."""
    made: list[asyncio.BaseTransport] = []

    class Held(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    server = await asyncio.get_running_loop().create_server(Held, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await stop_listening(server)
        for each in made:
            each.close()
        client.setblocking(False)
        try:
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        except ConnectionResetError:
            assert not made, "one that was never accepted is refused by the system"
