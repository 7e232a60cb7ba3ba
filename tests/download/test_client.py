"""The proxies of the environment: a SOCKS proxy works, one that does not is named, and none is asked in vain."""

from __future__ import annotations

import asyncio
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from squish.config.settings import Settings
from squish.doctor import network
from squish.doctor.finding import line
from squish.download.client import proxy_for
from squish.errors import ConfigError, HubUnreachable
from squish.hub.client import Hub
from tests.conftest import Run, clean_environment
from tests.local_hub import LocalHub, tiny_model

REPO = "org/tiny"
NAME = "hub.example"  # a host that only the proxy knows


class Socks(socketserver.ThreadingTCPServer):
    """A SOCKS 5 proxy before a Hub. asked: every host that was asked for; logins: what was said of oneself."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self, hub: LocalHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port, self.hub = self.server_address[1], hub
        self.asked: list[str] = []
        self.logins: list[tuple[bytes, bytes]] = []


class _Handler(socketserver.StreamRequestHandler):
    server: Socks

    def handle(self) -> None:
        methods = self.rfile.read(self.rfile.read(2)[1])
        self.wfile.write(b"\x05" + methods[:1])
        if methods[:1] == b"\x02":
            name = self.rfile.read(self.rfile.read(2)[1])
            self.server.logins.append((name, self.rfile.read(self.rfile.read(1)[0])))
            self.wfile.write(b"\x01\x00")
        kind = self.rfile.read(4)[3]
        host = self.rfile.read(self.rfile.read(1)[0]).decode() if kind == 3 else socket.inet_ntoa(self.rfile.read(4))
        port = int.from_bytes(self.rfile.read(2), "big")
        self.server.asked.append(host)
        target = ("127.0.0.1", int(self.server.hub.url.rpartition(":")[2]) if host == NAME else port)
        with socket.create_connection(target) as upstream:
            self.wfile.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            back = threading.Thread(target=_pump, args=(upstream, self.connection), daemon=True)
            back.start()
            _pump(self.connection, upstream)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        hub.add_repo(REPO, tiny_model())
        yield hub


@contextmanager
def serving(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def squish(forked: Run, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs the program in a home of its own; its code and all that it said."""

    def run(*command: str, **variables: str) -> tuple[int, str]:
        done = forked(command, clean_environment(tmp_path) | variables, tmp_path)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    "scheme", ["socks5h", *(pytest.param(each, marks=pytest.mark.long) for each in ("socks5", "socks"))]
)
def test_a_model_is_pulled_through_a_socks_proxy(
    hub: LocalHub, squish: Callable[..., tuple[int, str]], scheme: str
) -> None:
    with serving(Socks(hub)) as proxy:
        variables = {"ALL_PROXY": f"{scheme}://me:s3cret@127.0.0.1:{proxy.port}/", "HF_ENDPOINT": f"http://{NAME}"}
        code, said = squish("pull", REPO, "--bits", "none", **variables)
    assert code == 0, said
    assert set(proxy.asked) == {NAME, "127.0.0.1"}, "also the second server, which has the weights"
    assert set(proxy.logins) == {(b"me", b"s3cret")}
    assert "s3cret" not in said


PROXIES = ("socks4://u:s3cret@h:1", "ftp://u:s3cret@h", "http://:x:s3cret@", "socks5://127.0.0.1:9")


@pytest.mark.parametrize(
    "command",
    [
        ("search", "tiny"),
        *(pytest.param(each, marks=pytest.mark.long) for each in (("pull", REPO, "--bits", "none"), ("doctor",))),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_where_it_is_needed(
    hub: LocalHub, squish: Callable[..., tuple[int, str]], command: tuple[str, ...]
) -> None:
    for proxy in PROXIES[:1] if command == ("doctor",) else PROXIES:
        said = squish(*command, ALL_PROXY=proxy, HF_ENDPOINT=f"http://{NAME}")[1]
        assert "ALL_PROXY" in said and "Something unexpected" not in said and "s3cret" not in said
    covered = {"ALL_PROXY": PROXIES[0], "HF_ENDPOINT": hub.url, "NO_PROXY": "localhost,127.0.0.0/8"}
    said = squish(*command, **covered)[1]
    assert "ALL_PROXY" not in said and "Something unexpected" not in said
    assert hub.requests, "it was asked directly"


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_doctor_names_every_such_proxy(proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    settings = Settings(home=tmp_path, cache_dir=tmp_path, hub_endpoint=f"http://{NAME}")
    [said] = [line(finding) for finding in network.hub(settings)]
    assert "ALL_PROXY" in said and "s3cret" not in said


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x05", b"\x05\xff", b"\x05\x00\x05\x00\x05\x00"]
)
def test_a_proxy_that_does_not_speak_socks_is_an_error(
    tmp_path: Path, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.read(3)
            self.wfile.write(said)

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as server:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{server.server_address[1]}")
        settings = Settings(home=tmp_path, cache_dir=tmp_path, hub_endpoint=f"http://{NAME}")
        with pytest.raises(HubUnreachable, match="through the proxy of ALL_PROXY") as raised:
            asyncio.run(Hub(settings).snapshot(REPO))
        assert "Check the network, ALL_PROXY and" in (raised.value.hint or "")


def test_the_package_for_socks_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ConfigError, match=r"HTTPS_PROXY names a SOCKS proxy, for which .* socksio is missing"):
        asyncio.run(Hub(Settings(home=tmp_path, cache_dir=tmp_path)).snapshot(REPO))


@pytest.mark.parametrize(
    ("address", "exceptions", "direct"),
    [
        ("https://huggingface.co/x", "", False),
        ("https://huggingface.co/x", "*", True),
        ("https://huggingface.co/x", "a.example, *", True),
        ("https://huggingface.co/x", "huggingface.co", True),
        ("https://cdn.huggingface.co/x", "huggingface.co", True),
        ("https://cdn.huggingface.co/x", ".huggingface.co", True),
        ("https://cdn.huggingface.co/x", "*.huggingface.co", True),
        ("https://nothuggingface.co/x", "huggingface.co", False),
        ("https://HuggingFace.co/x", "https://huggingface.CO", True),
        ("http://10.1.2.3:8080/x", "10.0.0.0/8", True),
        ("http://10.1.2.3:8080/x", "10.1.2.3:8080", True),
        ("http://10.1.2.3:8080/x", "10.1.2.3:80", False),
        ("http://[::1]:8080/x", "::1", True),
        ("http://[::1]:8080/x", "[::1]", True),
        ("http://10.1.2.3/x", "10.1.2.3, [bad, ::::", True),
    ],
)
def test_exceptions_are_read_as_people_write_them(address: str, exceptions: str, direct: bool) -> None:
    found = proxy_for(httpx2.URL(address), {"all": "socks://p:1", "no": exceptions})
    assert (found is None) == direct
    assert found is None or found.address == "socks5://p:1"


def test_the_proxy_of_a_scheme_comes_before_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    assert proxy_for(httpx2.URL("https://h")) is None
    monkeypatch.setenv("ALL_PROXY", "one:1")
    monkeypatch.setenv("https_proxy", "http://two:2")
    secure, plain = proxy_for(httpx2.URL("https://h")), proxy_for(httpx2.URL("http://h"))
    assert secure and (secure.variable, secure.address) == ("https_proxy", "http://two:2")
    assert plain and (plain.variable, plain.address) == ("ALL_PROXY", "http://one:1")
