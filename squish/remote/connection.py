"""The way to one server: questions and their JSON, streams of events, and in words what goes wrong.

The key goes to this server alone, and into no message. Nothing of an answer is trusted: its size, its form and its time
are bounded, and what it says in words is cleaned. To be imported where a connection is made: the HTTP library takes its
time to load.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from httpx2 import AsyncClient, HTTPError, InvalidURL, Response, Timeout

from squish.download.client import open_client
from squish.errors import RemoteError
from squish.mcp.sse import EventReader, EventTooLarge
from squish.remote.address import short
from squish.remote.failures import failure, is_here, wants_password
from squish.remote.wire import ErrorBody
from squish.system.silence import silence
from squish.text import clean

LARGEST = 16 << 20
"""Bytes of an answer that comes whole."""
LARGEST_STREAM = 256 << 20
CONNECT = 10.0  # seconds
ANSWER = 30.0  # seconds for a whole answer
SILENCE = 300.0  # seconds between two pieces of a stream that has begun

Value = TypeVar("Value")


class Refusal(RemoteError):
    """The server answered with an error. status: of HTTP; refused: the field that it does not take, as it calls it."""

    def __init__(
        self, message: str, status: int, *, hint: str | None = None, param: str | None = None, refused: str = ""
    ) -> None:
        super().__init__(message, hint=hint, param=param)
        self.status, self.refused = status, refused


class NotJson(RemoteError):
    """It answered with something else than what was asked for. empty: with nothing at all."""

    def __init__(self, message: str, *, hint: str | None = None, empty: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.empty = empty


class ServerConnection:
    """base: the address below which the paths lie. silence: seconds between pieces of a stream."""

    def __init__(self, base: str, key: str = "", *, silence: float = SILENCE) -> None:
        self.base, self._key, self._silence = base, key, silence
        self.software = ""  # what the server's answers say of it
        self._client: AsyncClient | None = None

    @property
    def has_key(self) -> bool:
        return bool(self._key)

    @property
    def name(self) -> str:
        """The server for people: its host and port."""
        return short(self.base)

    async def get(self, path: str, answer: type[Value], *, seconds: float = ANSWER) -> Value:
        """Raises RemoteError; Refusal for a status that is an error."""
        return self._decoded(await self._asked("GET", path, None, seconds), answer)

    async def post(self, path: str, body: Any, answer: type[Value], *, seconds: float | None = ANSWER) -> Value:
        """The same with a body of JSON. seconds: None waits as long as it takes."""
        return self._decoded(await self._asked("POST", path, body, seconds), answer)

    async def send(self, method: str, path: str, body: Any, *, seconds: float | None = ANSWER) -> None:
        """The same, whatever is answered. Raises RemoteError."""
        await self._asked(method, path, body, seconds)

    @asynccontextmanager
    async def events(
        self, path: str, body: Any, headers: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The data of the server-sent events that answer a body. Leaving the block closes the connection.

        Raises RemoteError, also between the events.
        """
        with self._in_words(streaming=True):
            async with self._opened("POST", path, body, "text/event-stream", headers) as response:
                kind = str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()
                if kind != "text/event-stream":
                    raise self._foreign(kind)
                yield self._data(response)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # ---- the way there and back

    def _open(self) -> AsyncClient:
        return open_client(Timeout(None, connect=CONNECT), proxies=not is_here(self.base))

    async def _asked(self, method: str, path: str, body: Any, seconds: float | None) -> bytes:
        with self._in_words():
            try:
                async with asyncio.timeout(seconds), self._opened(method, path, body, "application/json") as response:
                    return await self._body(response)
            except TimeoutError:
                raise RemoteError(f"{self.name} did not answer within {seconds:.0f} s.") from None

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, body: Any, accept: str, further: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[Response]:
        """The response, if it is not an error."""
        client = self._client = self._client or self._open()
        headers = {"Accept": accept, "Accept-Encoding": "identity", **further}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        content = None if body is None else msgspec.json.encode(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        request = client.build_request(method, f"{self.base}{path}", content=content, headers=headers)
        response = await client.send(request, stream=True)
        self.software = response.headers.get("server", self.software)
        try:
            if response.is_redirect:
                target = clean(str(response.url.join(response.headers.get("location", "")).copy_with(query=None)))
                raise RemoteError(f"{self.name} redirects to {target[:200]}.", hint="Connect to that address.")
            if response.status_code >= 400:
                raise await self._refusal(response)
            yield response
        finally:
            await response.aclose()

    async def _data(self, response: Response) -> AsyncIterator[bytes]:
        reader = EventReader()
        try:
            async for piece in self._pieces(response):
                for event in reader.feed(piece):
                    if event.data:
                        yield event.data
        except EventTooLarge:
            raise self._too_large() from None

    async def _pieces(self, response: Response) -> AsyncIterator[bytes]:
        """The bytes of a stream; comments that keep it alive count as well."""
        received, pieces = 0, response.aiter_bytes()
        while True:
            try:
                async with silence(self._silence if received else None):
                    piece = await anext(pieces, None)
            except TimeoutError:
                raise RemoteError(f"{self.name} has sent nothing for {self._silence:.0f} s.", hint="Retry.") from None
            if piece is None:
                return
            received += len(piece)
            if received > LARGEST_STREAM:
                raise self._too_large()
            yield piece

    async def _body(self, response: Response) -> bytes:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > LARGEST:
                raise self._too_large()
        return bytes(body)

    # ---- what goes wrong

    def _decoded(self, body: bytes, answer: type[Value]) -> Value:
        try:
            return msgspec.json.decode(body, type=answer)
        except msgspec.MsgspecError:
            raise self._foreign("text/html" if body.lstrip()[:1] == b"<" else "", empty=not body) from None
        except RecursionError:
            raise self._foreign("") from None

    async def _refusal(self, response: Response) -> RemoteError:
        status = response.status_code
        if status == 407:
            return wants_password(self.base)
        try:
            async with asyncio.timeout(ANSWER):
                body = await self._body(response)
        except TimeoutError:
            body = b""
        said = self.said(body)
        if status in (401, 403) and not (status == 403 and said):
            problem = "refuses the key" if self._key else "wants a key"
            hint = "Put it into SQUISH_API_KEY, or name the variable that has it: --key-env VAR."
            return Refusal(f"{self.name} {problem} ({status}).", status, hint=hint)
        if "plain HTTP request was sent to HTTPS port" in said or "HTTP request to an HTTPS server" in said:
            return RemoteError(f"{self.name} speaks HTTPS.", hint=f"Connect to https://{self.name}.")
        problem = f"{self.name} answered {status}: {said}" if said else f"{self.name} answered {status}."
        return Refusal(problem, status, refused=_refused(body))

    def said(self, body: bytes) -> str:
        """What an error's body says in words; empty where it is none that we know."""
        try:
            found = msgspec.json.decode(body)
        except (msgspec.MsgspecError, RecursionError):
            found = "" if body.lstrip()[:1] in b"<{[" else body[:2000].decode(errors="replace")
        for name in ("error", "message", "detail"):
            if isinstance(found, dict):
                found = found.get(name, found)
        text = found if isinstance(found, str) else ""
        return self.shown(text)

    def shown(self, text: str) -> str:
        """Words of the server, fit for a message: short, clean, in one line, without the key."""
        text = text.replace(self._key, "…") if self._key else text
        return " ".join(clean(text).split())[:400]

    def _foreign(self, kind: str, *, empty: bool = False) -> NotJson:
        if kind == "text/html":
            problem = f"{self.name} answers with a web page, not with the API of models."
        else:
            problem = f"{self.name} answers with something that is not OpenAI's API."
        return NotJson(
            problem, hint="Check the address: the API is below /v1 of what is given with --connect.", empty=empty
        )

    def _too_large(self) -> RemoteError:
        return RemoteError(f"{self.name} sends more than fits an answer; the connection was closed.")

    @contextmanager
    def _in_words(self, *, streaming: bool = False) -> Iterator[None]:
        """Turn errors of the HTTP library into RemoteErrors."""
        try:
            yield
        except (HTTPError, InvalidURL) as error:
            raise failure(error, self.base, CONNECT, streaming=streaming) from None


def _refused(body: bytes) -> str:
    """The field that an error of OpenAI's kind is about; empty where it is about none."""
    try:
        return msgspec.json.decode(body, type=ErrorBody).error.param or ""
    except (msgspec.MsgspecError, RecursionError):
        return ""
