"""Which hosts are this machine alone."""

from __future__ import annotations

import pytest

from squish.system.loopback import is_loopback


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.0.0.2", "::1", "[::1]"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "localhost.example", "127.0.0.1.example", "0.0.0.0", "::", "10.0.0.1", "[::2]"])
def test_others(host: str) -> None:
    assert not is_loopback(host)
