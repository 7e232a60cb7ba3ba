"""Pages of the web: looked up first, fetched from where that leads, within limits. The servers are real ones."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from squish.attachments import web
from squish.errors import InvalidInput
from tests.attachments import made

PAGES: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/": (
        200,
        {"Content-Type": "text/html; charset=iso-8859-1"},
        b"<h1>Caf\xe9</h1><script>no</script>\x1b]52;c;x\x07",
    ),
    "/plain": (200, {"Content-Type": "text/plain"}, b"just text"),
    "/pdf": (200, {"Content-Type": "application/pdf"}, made.pdf("Hello")),
    "/image": (200, {"Content-Type": "image/png"}, b"\x89PNG"),
    "/zip": (200, {"Content-Type": "application/zip"}, b"PK"),
    "/gone": (404, {}, b""),
    "/binary": (200, {}, b"a\x00b"),
    "/loop": (302, {"Location": "/loop"}, b""),
    "/empty": (200, {"Content-Type": "text/html"}, b"<p>"),
    "/bad": (302, {"Location": "http://[::1"}, b""),
    "/packed": (200, {"Content-Type": "text/plain", "Content-Encoding": "gzip, gzip"}, b""),
    "/large": (200, {"Content-Type": "text/plain"}, b"x" * 3000),
}


class Handler(BaseHTTPRequestHandler):
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.server.asked.append((self.headers["Host"], self.path))  # type: ignore[attr-defined]
        status, headers, body = PAGES.get(self.path, (302, {"Location": self.path[1:]}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "proxy_for", lambda url: None)
    monkeypatch.setenv("NO_PROXY", "*")


async def fetched(server: HTTPServer, path: str, *, may_be_private: bool = True) -> str:
    address = await web.look_up(f"http://localhost:{server.server_port}{path}")
    return await web.fetch(address, may_be_private=may_be_private)


@pytest.mark.parametrize(("path", "text"), [("/", "# Café"), ("/plain", "just text"), ("/pdf", "[page 1]\nHello")])
async def test_a_page_comes_as_clean_text(server: HTTPServer, path: str, text: str) -> None:
    assert await fetched(server, path) == text
    assert server.asked[-1] == (f"localhost:{server.server_port}", path)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/image", "an image"),
        ("/zip", "not text but application/zip"),
        ("/gone", "answered 404"),
        ("/binary", "is not text"),
        ("/loop", "redirects too often"),
        ("/empty", "no text"),
        ("/large", "more than 1 KiB"),
        ("/ftp://a.example/x", "not an http"),
        ("/file:///etc/passwd", "not an http"),
        ("/bad", "leads to something that is not an address"),
        ("/packed", "packed several times"),
    ],
)
async def test_what_cannot_be_taken_says_why(
    server: HTTPServer, path: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MAX_TEXT", 1024)
    with pytest.raises(InvalidInput, match=says):
        await fetched(server, path)


async def test_what_is_too_large_is_not_taken_to_its_end(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_DOCUMENT", 1000)
    with pytest.raises(InvalidInput, match="MiB"):
        await fetched(server, "/large")


async def test_a_private_address_needs_a_yes_of_its_own(server: HTTPServer) -> None:
    with pytest.raises(InvalidInput, match="private address"):
        await fetched(server, "/plain", may_be_private=False)


async def test_a_redirect_does_not_lead_to_another_private_address(server: HTTPServer) -> None:
    """The user agreed to one server of localhost: not to what it points at, nor to another one beside it."""
    with pytest.raises(InvalidInput, match=r"leads to the private address 127\.0\.0\.1"):
        await fetched(server, f"/http://127.0.0.1:{server.server_port}/plain")
    with pytest.raises(InvalidInput, match="leads to the private address localhost"):
        await fetched(server, "/http://localhost:9/plain")


async def test_what_was_looked_up_here_does_not_go_through_a_proxy(
    server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert await fetched(server, "/plain") == "just text"


@pytest.mark.parametrize(
    ("host", "private"),
    [("127.1", True), ("0x7f.1", True), ("localhost.", True), ("printer.LOCAL", True), ("nas", True),
     ("a.example", False), ("1.a.example.", False)],
)  # fmt: skip
def test_which_names_sound_private(host: str, private: bool) -> None:
    """A proxy looks them up, so that nobody can know."""
    assert web._sounds_private(host) is private


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://user:secret@a.example/", "user name"),
        ("http://", "not an http"),
        ("http://[::1", "not an address"),
        ("http://no-such-name.invalid/", r"no-such-name\.invalid cannot be reached: its name cannot be looked up\."),
    ],
)
async def test_an_address_that_cannot_be_fetched(address: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        await web.look_up(address)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("number", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("169.254.169.254", True),
        ("192.168.0.1", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("fe80::1", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("2002:0a00:0001::1", True),
        ("64:ff9b::7f00:1", True),
        ("64:ff9b::808:808", False),
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
    ],
)
def test_which_addresses_are_private(number: str, private: bool) -> None:
    assert web.is_private(ipaddress.ip_address(number)) is private


@pytest.mark.parametrize("address", ["http://127.1/", "http://2130706433/", "http://[::1]:80/x", "http://0/"])
async def test_other_spellings_of_this_machine_are_private(address: str) -> None:
    assert (await web.look_up(address)).private
