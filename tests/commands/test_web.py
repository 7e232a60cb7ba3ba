"""Who gets what of `squish web`, and the chat in it, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, CookieJar, WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestServer
from click.testing import CliRunner
from textual_serve.app_service import AppService
from yarl import URL

from squish.cli import cli
from squish.commands.serving import web_server
from squish.commands.serving.web_server import TuiServer
from squish.errors import InvalidInput

Served = tuple[TuiServer, str]


async def served(key: str | None = None) -> tuple[TestServer, Served]:
    server = TuiServer(None, "127.0.0.1", 0, key)
    running = TestServer(await server._make_app())
    await running.start_server()
    assert running.port is not None
    server.port = running.port
    return running, (server, f"http://127.0.0.1:{running.port}")


def basic(who: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(who.encode()).decode()}"}


@pytest.fixture
async def site() -> AsyncIterator[Served]:
    running, found = await served()
    yield found
    await running.close()


@pytest.fixture
async def browser() -> AsyncIterator[ClientSession]:
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        yield session


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/?token=", "/?token=wrong", "PLACE", "PLACEws", "PLACEstatic/js/textual.js"]
)
async def test_nothing_is_given_without_the_token(site: Served, browser: ClientSession, path: str) -> None:
    response = await browser.get(site[1] + path.replace("PLACE", site[0]._place))
    assert response.status == 403
    assert "squish web" in await response.text()


async def test_bytes_that_are_no_text_are_a_wrong_token(site: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site[0].port)
    cookie = f"Cookie: squish_web_{site[0].port}=".encode() + b"\xff"
    writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + cookie + b"\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 403")
    writer.close()


async def test_a_port_in_use_is_said_so(site: Served) -> None:
    server = TuiServer(None, "127.0.0.1", site[0].port)
    with pytest.raises(InvalidInput, match=f"Port {site[0].port} on 127.0.0.1 is already in use"):
        await server.run(lambda url: None)


async def test_the_token_becomes_a_cookie_and_the_page_is_all_ours(site: Served, browser: ClientSession) -> None:
    server, url = site
    response = await browser.get(f"{url}/?token={server._token}", allow_redirects=False)
    place = response.headers["Location"]
    assert (response.status, len(place) > 16) == (303, True)
    for each in ("HttpOnly", "SameSite=Strict", f"Path={place}"):
        assert each in response.headers["Set-Cookie"]
    assert not browser.cookie_jar.filter_cookies(URL(f"{url}/")), "servers beside this one get it, too"
    page = await browser.get(url + place)
    text = await page.text()
    assert page.status == 200 and "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert re.findall(r"(?:https?:)?//[^\"' ]+", text) == [f"//127.0.0.1:{server.port}{place}ws"]
    found = re.findall(r'"(static/[^"]+)"', text)
    assert len(found) == 3
    for name in found:
        assert (await browser.get(url + place + name)).status == 200, name


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({"Host": "evil.example"}, ""),
        ({"Origin": "http://evil.example"}, "ws"),
        ({"Origin": "null"}, "ws"),
        ({}, "ws"),
    ],
)
async def test_another_page_gets_nothing_with_the_cookie(
    site: Served, browser: ClientSession, headers: dict[str, str], path: str
) -> None:
    server, url = site
    await browser.get(f"{url}/?token={server._token}")
    cookie = {"Cookie": f"squish_web_{server.port}={server._token}"}
    assert (await browser.get(url + server._place + path, headers=headers | cookie)).status == 403


async def test_at_another_address_the_api_key_is_the_password(browser: ClientSession) -> None:
    running, (server, url) = await served("secret")
    assert "token" not in server._address()
    assert (await browser.get(f"{url}/?token={server._token}")).status == 401
    assert (await browser.get(url, headers=basic("me:wrong"))).status == 401
    assert (await browser.get(url, headers={"Authorization": "Basic x"})).status == 401
    assert (await browser.get(url, headers=basic("me:secret"))).status == 200
    await running.close()


def test_another_address_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SQUISH_API_KEY", raising=False)
    done = CliRunner().invoke(cli, ["web", "--host", "0.0.0.0"])
    assert "no API key is set" in str(done.exception)


@pytest.mark.parametrize("size", ["width=100000&height=9", "width=80&height=0", "width=x"])
async def test_no_terminal_is_as_large_as_a_browser_can_ask_for(
    site: Served, browser: ClientSession, size: str
) -> None:
    server, url = site
    await browser.get(f"{url}/?token={server._token}")
    with pytest.raises(WSServerHandshakeError, match="400"):
        await browser.ws_connect(f"{url}{server._place}ws?{size}", origin=url)


async def test_a_chat_that_does_not_end_with_its_window_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads what it writes any more, so that it hears of nothing."""
    monkeypatch.setattr(web_server, "_LEAVING", 0.0)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "while True: print('x' * 1000)", stdout=asyncio.subprocess.PIPE
    )
    service = AppService("", write_bytes=None, write_str=None, close=None, download_manager=None)
    service._process, service._task = process, asyncio.create_task(asyncio.Event().wait())
    await web_server._ended(service)
    assert process.returncode == -signal.SIGKILL
    assert service._task.cancelled()


async def shows(socket: ClientWebSocketResponse, text: bytes) -> None:
    """Read what is drawn until this is in it."""
    shown = b""
    while text not in shown:
        message = await socket.receive()
        assert message.type == WSMsgType.BINARY
        shown += message.data


async def test_the_chat_is_in_one_window(
    site: Served, browser: ClientSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SQUISH_OFFLINE", "1")
    server, url = site
    await browser.get(f"{url}/?token={server._token}")
    page = url + server._place
    async with browser.ws_connect(f"{page}ws?width=80&height=24", origin=url) as socket:
        await shows(socket, b"F1")
        await socket.send_json(["stdin", "\x1b[15~"])
        await shows(socket, b"No requests yet")
        second = await browser.get(page)
        assert second.status == 409 and "open in another window" in await second.text()
        with pytest.raises(WSServerHandshakeError, match="409"):
            await browser.ws_connect(f"{page}ws", origin=url)
    await server._free.wait()  # the chat has ended with its window
    assert (await browser.get(page)).status == 200
