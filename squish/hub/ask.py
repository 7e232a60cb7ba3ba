"""One question to the Hub and its answer: a GET whose time, size and redirects are bounded, repeated while it is busy.

It is what the Hub's library sends through; library.py brings the two together. What goes wrong on the way is an error
of errors.py.
"""

from __future__ import annotations

import asyncio
import os
import re
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from squish.config.settings import Settings
from squish.download.request import BUSY, opened, retry_after
from squish.errors import HubError, HubUnreachable, Offline
from squish.text import clean

if TYPE_CHECKING:
    from httpx2 import Response

SILENCE = 20.0  # seconds without a byte
DEADLINE = 60.0  # seconds for all of an answer
LARGEST = 64 * 1024 * 1024
_PAUSES = (1.0, 3.0)
_LONGEST_PAUSE = 10.0
_KEPT = ("x-error-code", "x-error-message")  # no Link: one search is one answer

_ERRNO = re.compile(r"\A\[Errno -?\d+\] ")


class HubRequest(msgspec.Struct, frozen=True):
    """about: what is asked for, in a user's words.

    most: bytes behind which an answer is cut off; None where a longer one is an error. deadline: seconds for an answer.
    patient: whether a busy Hub is asked again. checked: the answer's body in a form that the library can read, or
    ValueError.
    """

    about: str
    most: int | None = None
    deadline: float | None = None
    patient: bool = True
    checked: Callable[[bytes], bytes] = bytes


class HubResponse(msgspec.Struct, frozen=True):
    """status of HTTP; headers: what an error is; pause: seconds after which the Hub wants to be asked again."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    pause: float | None


async def ask(settings: Settings, request: HubRequest, url: str, own: Mapping[str, str]) -> HubResponse:
    """The Hub's answer for an address. own: headers, with the token, that go to no other host.

    Raises HubUnreachable, HubError, ConfigError.
    """
    for pause in _PAUSES if request.patient else ():
        answer = await _ask_once(settings, request, url, own)
        if answer.status not in BUSY:
            return answer
        await asyncio.sleep(pause if answer.pause is None else min(answer.pause, _LONGEST_PAUSE))
    answer = await _ask_once(settings, request, url, own)
    if request.patient and answer.status in BUSY:  # the library would go on asking
        raise refused(answer.status, request)
    return answer


def require_online(settings: Settings) -> None:
    """Raises Offline where a setting forbids connections."""
    forbidden = "SQUISH_OFFLINE" if settings.offline else None
    if os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "TRUE", "YES", "ON"):
        forbidden = forbidden or "HF_HUB_OFFLINE"
    if forbidden:
        hint = f"Unset {forbidden}, or use a model that `squish list` shows."
        raise Offline(f"{forbidden} forbids the connection to the Hub.", hint=hint)


def refused(status: int, request: HubRequest) -> HubError:
    """The error for a status that says nothing of a repository."""
    hint = "HF_TOKEN is not valid." if status in (401, 403) else "Try again later."
    return HubError(f"The Hub answered {status} for {request.about}.", hint=hint)


def unreachable(place: str, error: Exception, proxy: str = "HTTPS_PROXY") -> HubUnreachable:
    """The error for a connection that cannot be made. proxy: the setting that names the proxy in use, or would."""
    reason = clean(_ERRNO.sub("", str(error))) or type(error).__name__
    return HubUnreachable(f"{place} cannot be reached: {reason}.", hint=_network_hint(proxy))


async def _ask_once(settings: Settings, request: HubRequest, url: str, own: Mapping[str, str]) -> HubResponse:
    import httpx2

    from squish.download.client import open_client, proxy_for

    accepted, deadline, place = {"Accept-Encoding": "gzip"}, request.deadline or DEADLINE, settings.hub_endpoint
    setting = "HTTPS_PROXY"
    try:
        if proxy := proxy_for(httpx2.URL(url)):
            setting = proxy.variable
            place += f", through the proxy of {setting},"
        async with (
            asyncio.timeout(deadline),
            open_client(httpx2.Timeout(SILENCE)) as client,
            opened(client, url, accepted, own) as response,
        ):
            return await _answer(response, request.most)
    except TimeoutError as error:
        raise _silent(place, deadline, setting) from error
    except httpx2.TimeoutException as error:
        raise _silent(place, SILENCE, setting) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise unreachable(place, error, setting) from error


async def _answer(response: Response, most: int | None) -> HubResponse:
    given = response.headers
    body = await _body(response, LARGEST if most is None else most)
    if most is None and len(body) >= LARGEST:
        raise HubError("The Hub's answer is too long to be genuine.")
    kept = {name: given[name] for name in _KEPT if name in given}
    return HubResponse(response.status_code, kept, body, retry_after(given.get("retry-after")))


async def _body(response: Response, most: int) -> bytes:
    """The first `most` bytes of a body, also of one that is compressed to far less."""
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity", "gzip"):
        raise HubError(f"The Hub's answer is compressed in a way that was not requested ({clean(packed)[:40]}).")
    unpack, body = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed == "gzip" else None, bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk if unpack is None else unpack.decompress(chunk, max(1, most - len(body)))
            if len(body) >= most:
                break
    except zlib.error as error:
        raise HubError("The Hub's answer cannot be decompressed.") from error
    return bytes(body[:most])


def _silent(place: str, seconds: float, proxy: str) -> HubUnreachable:
    return HubUnreachable(f"{place} did not answer within {seconds:.0f} seconds.", hint=_network_hint(proxy))


def _network_hint(proxy: str) -> str:
    return f"Check the network, {proxy} and HF_ENDPOINT. Installed models work without it."
