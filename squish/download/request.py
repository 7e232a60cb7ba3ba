"""One HTTP request for a file or an answer: its redirects, who gets the token, its status, and how long it may take."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from squish.download.patience import Interrupted, Policy
from squish.errors import GatedRepo, HubError
from squish.text import whole

if TYPE_CHECKING:
    from httpx2 import URL, AsyncClient, Response

REDIRECTS = 5
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@asynccontextmanager
async def opened(
    client: AsyncClient, url: str, headers: Mapping[str, str], own: Mapping[str, str]
) -> AsyncIterator[Response]:
    """The response behind all redirects, whatever its status; its body is still to be read.

    own: headers, with the token, that go to the first host only. Raises HubError, and what the HTTP library raises.
    """
    import httpx2

    origin = target = httpx2.URL(url)
    for _ in range(REDIRECTS + 1):
        sent = {**headers, **(own if is_same_host(target, origin) else {})}
        response = await client.send(client.build_request("GET", target, headers=sent), stream=True)
        try:
            if not response.is_redirect:
                yield response
                return
            target = response.url.join(response.headers.get("location", ""))
        finally:
            await response.aclose()
        if target.scheme not in ("http", "https") or (origin.scheme == "https" and target.scheme != "https"):
            raise HubError("The server redirects a secure download to an address that is not secure.")
    raise HubError("The server redirects in a loop.")


@asynccontextmanager
async def file_response(
    client: AsyncClient, url: str, headers: Mapping[str, str], own: Mapping[str, str], policy: Policy
) -> AsyncIterator[Response]:
    """A response that carries bytes of a file: its status is 200, 206 or 416.

    Raises Interrupted, also where the head of the response takes longer than a stall period, GatedRepo, HubError.
    """
    import httpx2

    try:
        async with asyncio.timeout(policy.stall) as deadline, opened(client, url, headers, own) as response:
            deadline.reschedule(None)  # a Pace watches over the body
            _check_status(response, at_origin=is_same_host(response.url, httpx2.URL(url)))
            yield response
    except TimeoutError as error:
        raise Interrupted("the server does not answer") from error
    except httpx2.InvalidURL as error:
        raise HubError(f"The server sent an address that cannot be used: {error}.") from error
    except httpx2.HTTPError as error:
        raise Interrupted(str(error) or type(error).__name__) from error


class Pace:
    """Watches over the speed of a body that arrives."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._since, self._seen = time.monotonic(), 0

    def count(self, received: int) -> None:
        """Take in that so many bytes came. Raises Interrupted where a stall period brought fewer than `floor` bytes."""
        self._seen += received
        if time.monotonic() - self._since > self._policy.stall:
            if self._seen < self._policy.floor:
                raise Interrupted("the server sends too slowly")
            self._since, self._seen = time.monotonic(), 0


def is_same_host(one: URL, other: URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None where it is neither."""
    text = (value or "").strip()
    if (asked := whole(text)) is not None:
        return min(float(asked), 1e9)
    try:
        seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _check_status(response: Response, *, at_origin: bool) -> None:
    """Let 200, 206 and 416 pass.

    A signed address of another host that is refused has expired: the next try gets a new one.
    """
    status = response.status_code
    if status in (200, 206, 416):
        return
    if status in BUSY or (status in (401, 403) and not at_origin):
        raise Interrupted(f"the server answered {status}", retry_after(response.headers.get("retry-after")))
    if status in (401, 403):
        raise GatedRepo(f"The server refuses the download ({status}).", hint="Set HF_TOKEN to a token with access.")
    raise HubError(f"The server answered {status} for {response.url.path}.")
