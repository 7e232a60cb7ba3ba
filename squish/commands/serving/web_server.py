"""What `squish web` serves: one page, its script and font, and a socket to one full-screen chat in a child process.

Only who has the token, or at another address the API key, gets anything; the page loads nothing from elsewhere, and no
other page can use the socket.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hmac
import logging
import secrets
import shlex
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server

from squish.api.access.auth import check_host
from squish.api.errors import Refused
from squish.commands import interrupts
from squish.errors import InvalidInput
from squish.system.pipes import let_go
from squish.text import whole

_LEAVING = 8.0  # seconds that the chat before may take to end, as when a page is loaded again
_LOADED_AGAIN = 1.0  # seconds until it is known that a page that is loaded again has let go
_LARGEST = 500  # rows or columns of a terminal: each cell of a larger one would take its memory and time
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_BUSY = "Squish is open in another window. It can be used in one at a time: close that one, then load this page again."
_NO_TOKEN = "Open the address that `squish web` printed when it was started; it has the token of this run in it."

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Squish</title>
<link rel="icon" href="data:,"><meta name="referrer" content="no-referrer">
<link rel="stylesheet" href="static/css/xterm.css"><script src="static/js/textual.js"></script>
<style>
@font-face { font-family: "Roboto Mono"; src: url("static/fonts/RobotoMono-VariableFont_wght.ttf"); }
html, body { margin: 0; height: 100%; overflow: hidden; background: #101418; color: #d8dee4; font: 16px sans-serif; }
#terminal { width: 100vw; height: 100vh; }
.box { display: none; position: fixed; inset: 0; place-content: center; text-align: center; background: #101418; }
body:not(.-first-byte) .starting, body.-closed .ended { display: grid; z-index: 10; }
body.-closed .starting { display: none; }
button { font: inherit; padding: .4em 1.4em; }
</style></head><body>
<div class="box starting">Squish is starting …</div>
<div class="box ended"><p>Squish has ended.</p><p><button onclick="location.reload()">Start again</button></p></div>
<div id="terminal" class="textual-terminal" data-session-websocket-url="SOCKET" data-font-size="16"></div>
</body></html>
"""


class TuiServer(Server):  # type: ignore[misc]  # its library is an extra, so mypy does not look at it
    """model: the one to begin with. key: the API key, asked for instead of a token where it is given.

    port 0 takes a free one.
    """

    def __init__(self, model: str | None, host: str, port: int, key: str | None = None) -> None:
        arguments = [sys.executable, "-P", "-m", "squish.commands.serving.web_child", *([model] if model else [])]
        super().__init__(f"exec {shlex.join(arguments)}", host, port, title="Squish", public_url="")
        self.host, self.port = host, port
        self._key = key
        self._token = secrets.token_urlsafe(24)
        # A browser sends a cookie to every port of a host. Below a path that only this page knows it is kept from the
        # servers of other users on this machine.
        self._place = f"/{secrets.token_urlsafe(12)}/"
        self._free = asyncio.Event()
        self._free.set()
        self._ending: asyncio.Task[None] | None = None
        self._socket: web.WebSocketResponse | None = None
        log = logging.getLogger("textual-serve")
        log.addHandler(logging.NullHandler())
        log.propagate = False

    async def run(self, started: Callable[[str], None]) -> None:
        """Serve until Ctrl-C or SIGTERM. started: gets the address to open. Raises InvalidInput for a port in use."""
        ended = asyncio.Event()
        for each in interrupts.endings():
            asyncio.get_running_loop().add_signal_handler(each, ended.set)
        runner = web.AppRunner(await self._make_app(), access_log=None, shutdown_timeout=_LEAVING)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, self.host, self.port).start()
            except OSError as error:
                raise self._not_listening(error) from error
            self.port = runner.addresses[0][1]
            started(self._address())
            await ended.wait()
        finally:
            if self._socket is not None:
                await self._socket.close()
            await runner.cleanup()

    def _not_listening(self, error: OSError) -> InvalidInput:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "is already in use" if error.errno == errno.EADDRINUSE else "may not be used"
            message = f"Port {self.port} on {self.host} {why}."
            return InvalidInput(message, hint="--port 0 takes a free one.", param="--port")
        hint = "--host takes an address of this machine."
        return InvalidInput(f"{self.host} cannot be listened on.", hint=hint, param="--host")

    def _address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/" + ("" if self._key else f"?token={self._token}")

    async def _make_app(self) -> web.Application:
        @web.middleware  # type: ignore[untyped-decorator]
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard])
        app.router.add_get("/", self._to_page)
        app.router.add_get(self._place, self.handle_index)
        app.router.add_get(f"{self._place}ws", self.handle_websocket)
        app.router.add_static(f"{self._place}static", self.statics_path)
        return app

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let through who may, and say to the browser what the page may do."""
        response = self._refusal(request)
        if response is None:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = error
        if not response.prepared:
            response.headers.update(
                {
                    "Content-Security-Policy": _POLICY,
                    "Referrer-Policy": "no-referrer",
                    "X-Content-Type-Options": "nosniff",
                    "Cache-Control": "no-store",
                }
            )
        return response

    def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        """Why somebody gets nothing; a token in the address becomes a cookie, and the address is clean again."""
        try:
            check_host(request.headers.get("Host"), self.host)
        except Refused as error:
            return web.Response(status=error.status, text=error.message)
        cookie = f"squish_web_{self.port}"
        if self._key is not None:
            if not _same(_password(request.headers.get("Authorization", "")), self._key):
                headers = {"WWW-Authenticate": 'Basic realm="Squish", charset="UTF-8"'}
                return web.Response(status=401, text="The API key is the password.", headers=headers)
        elif request.path == "/" and _same(request.query.get("token", ""), self._token):
            response = web.Response(status=303, headers={"Location": self._place})
            response.set_cookie(cookie, self._token, httponly=True, samesite="Strict", path=self._place)
            return response
        elif not _same(request.cookies.get(cookie, ""), self._token):
            return web.Response(status=403, text=_NO_TOKEN)
        if (
            request.path == f"{self._place}ws"
            and request.headers.get("Origin") != f"http://{request.headers.get('Host')}"
        ):
            return web.Response(status=403, text="Another page may not use this server.")
        return None

    async def _to_page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=303, headers={"Location": self._place})

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page, or that somebody else has it open."""
        if not await self._is_free():
            return web.Response(status=409, text=_BUSY)
        socket = f"ws://{request.headers['Host']}{self._place}ws"
        return web.Response(text=_PAGE.replace("SOCKET", socket.replace('"', "")), content_type="text/html")

    async def handle_websocket(self, request: web.Request) -> web.StreamResponse:
        """The socket of the one window. A second one is refused."""
        if not await self._is_free():
            return web.Response(status=409, text=_BUSY)
        if not all(_fits(request.query.get(name, "80")) for name in ("width", "height")):
            return web.Response(status=400, text="No terminal is that large.")
        self._free.clear()
        try:
            return await super().handle_websocket(request)
        finally:
            if self._ending is not None:
                await self._ending
            self._socket = self._ending = None
            self._free.set()

    async def _process_messages(self, websocket: web.WebSocketResponse, app_service: AppService) -> None:
        self._socket, resize = websocket, app_service.set_terminal_size

        async def resize_within_reason(width: int, height: int) -> None:
            await resize(*(max(1, min(int(each), _LARGEST)) for each in (width, height)))

        app_service.set_terminal_size = resize_within_reason
        try:
            await super()._process_messages(websocket, app_service)
        finally:
            self._ending = asyncio.create_task(_ended(app_service), name="end of the chat")

    async def _is_free(self) -> bool:
        """Whether no window has the chat; one that is being closed is waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOADED_AGAIN):
                await self._free.wait()
        if self._socket is None or self._socket.closed:  # it is ending
            with suppress(TimeoutError):
                async with asyncio.timeout(_LEAVING):
                    await self._free.wait()
        return self._free.is_set()


async def _ended(app_service: AppService) -> None:
    """Wait for the chat's process, which is asked to end beside this; insist where it does not listen."""
    process, reading = app_service._process, app_service._task
    try:
        async with asyncio.timeout(_LEAVING):
            await process.wait()
    except TimeoutError:
        process.kill()
        if reading is not None:  # it may be stuck with what the window did not take any more
            reading.cancel()
            await asyncio.wait({reading})
        let_go(process)
        await process.wait()


def _fits(size: str) -> bool:
    return 0 < (whole(size) or 0) <= _LARGEST


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())


def _password(authorization: str) -> str:
    kind, _, value = authorization.partition(" ")
    if kind.lower() != "basic":
        return ""
    with suppress(ValueError):
        return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
    return ""
