"""Measuring a link: real sockets on loopback; figures are above zero, no more can be said here."""

from __future__ import annotations

import socket
import threading

import pytest

from squish.cluster import link
from squish.errors import EngineError
from tests.ports import own_port


def test_a_link_is_measured_by_who_knows_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_LEAST", 0.0)
    server = link.listen("127.0.0.1", 0)
    port = server.getsockname()[1]
    answering = threading.Thread(target=link.answer, args=(server, "secret"))
    answering.start()
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"x" * 64)
        assert stranger.recv(1) == b""  # sent away, and the next one may come
    found = link.measure("127.0.0.1", port, "secret")
    answering.join()
    assert found.bandwidth > 0 and found.round_trip > 0


def test_nobody_listens() -> None:
    with pytest.raises(EngineError, match="cannot be reached: Connection refused"):
        link.measure("127.0.0.1", own_port(), "secret")


def test_an_address_or_port_that_cannot_be_had() -> None:
    with pytest.raises(EngineError, match=r"Nothing can listen at 192\.0\.2\.1:1234 there"):
        link.listen("192.0.2.1", 1234)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=f"Nothing can listen at .*:{port}"):
            link.listen("127.0.0.1", port)
