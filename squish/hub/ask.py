"""One question to the Hub and its answer: a GET whose time, size and redirects are bounded, repeated while it is busy.

What goes wrong on the way is an error of errors.py; what an answer means is client.py.
"""

from __future__ import annotations

import asyncio
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squish.config.settings import Settings
from squish.download.request import BUSY, opened, retry_after
from squish.errors import HubError, HubUnreachable, Offline
from squish.hub import token
from squish.text import clean

if TYPE_CHECKING:
    from httpx2 import Response

SILENCE = 20.0  # seconds without a byte
DEADLINE = 60.0  # seconds for all of an answer
LARGEST = 64 * 1024 * 1024
_PAUSES = (1.0, 3.0)
_LONGEST_PAUSE = 10.0
NETWORK_HINT = "Check the network, HTTPS_PROXY and HF_ENDPOINT. Installed models work without it."

Query = Mapping[str, str | list[str]]

_ERRNO = re.compile(r"\A\[Errno -?\d+\] ")


@dataclass(frozen=True, slots=True)
class Answer:
    """status of HTTP; code and message: the Hub's own of an error; pause: seconds after which it wants to be asked."""

    status: int
    code: str
    message: str
    body: bytes
    pause: float | None


async def ask(settings: Settings, path: str, query: Query | None = None, *, most: int = LARGEST) -> Answer:
    """The Hub's answer for a path, cut off behind `most` bytes; an answer that says "busy" is asked for again.

    Raises Offline, HubUnreachable, HubError, ConfigError.
    """
    for pause in _PAUSES:
        answer = await ask_once(settings, path, query, most=most)
        if answer.status not in BUSY:
            return answer
        await asyncio.sleep(pause if answer.pause is None else min(answer.pause, _LONGEST_PAUSE))
    return await ask_once(settings, path, query, most=most)


async def ask_once(
    settings: Settings, path: str, query: Query | None = None, *, most: int = LARGEST, deadline: float | None = None
) -> Answer:
    """The same without asking again. deadline: seconds for all of it."""
    _require_online(settings)
    import httpx2

    from squish.download.client import open_client, proxy_for

    accepted, deadline = {"Accept-Encoding": "gzip"}, deadline or DEADLINE
    place = settings.hub_endpoint
    try:
        url = httpx2.URL(f"{place}{path}", params=query) if query else httpx2.URL(f"{place}{path}")
        if proxy := proxy_for(url):
            place += f", through the proxy of {proxy.variable},"
        async with (
            asyncio.timeout(deadline),
            open_client(httpx2.Timeout(SILENCE)) as client,
            opened(client, str(url), accepted, token.headers(settings)) as response,
        ):
            return await _answer(response, most)
    except TimeoutError as error:
        raise _silent(place, deadline) from error
    except httpx2.TimeoutException as error:
        raise _silent(place, SILENCE) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        reason = clean(_ERRNO.sub("", str(error))) or type(error).__name__
        raise HubUnreachable(f"{place} cannot be reached: {reason}.", hint=NETWORK_HINT) from error


def _require_online(settings: Settings) -> None:
    forbidden = "SQUISH_OFFLINE" if settings.offline else None
    if os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "TRUE", "YES", "ON"):
        forbidden = forbidden or "HF_HUB_OFFLINE"
    if forbidden:
        hint = f"Unset {forbidden}, or use a model that `squish list` shows."
        raise Offline(f"{forbidden} forbids the connection to the Hub.", hint=hint)


async def _answer(response: Response, most: int) -> Answer:
    given = response.headers
    code, message, wait = given.get("x-error-code", ""), given.get("x-error-message", ""), given.get("retry-after")
    return Answer(response.status_code, code, message, await _body(response, most), retry_after(wait))


async def _body(response: Response, most: int) -> bytes:
    """The first `most` bytes of a body, also of one that is compressed to far less."""
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity", "gzip"):
        raise HubError(f"The Hub's answer is packed in a way that was not asked for ({clean(packed)[:40]}).")
    unpack, body = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed == "gzip" else None, bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk if unpack is None else unpack.decompress(chunk, max(1, most - len(body)))
            if len(body) >= most:
                break
    except zlib.error as error:
        raise HubError("The Hub's answer cannot be unpacked.") from error
    return bytes(body[:most])


def _silent(place: str, seconds: float) -> HubUnreachable:
    return HubUnreachable(f"{place} did not answer within {seconds:.0f} seconds.", hint=NETWORK_HINT)
