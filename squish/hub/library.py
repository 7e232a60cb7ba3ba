"""huggingface_hub, which does the asking, over connections of our own.

The library is synchronous and waits for as long as a server likes. So each of its calls runs in a thread, and what it
sends goes back to the event loop, where ask.py bounds it. When the task of a call is cancelled, its thread ends too.
The library takes its time to load, and is loaded in that thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from squish.config.settings import Settings
from squish.errors import HubError
from squish.hub.ask import HubRequest, HubResponse, ask, require_online, unreachable

if TYPE_CHECKING:
    from httpx2 import Request

USER_AGENT = "squish"

Result = TypeVar("Result")


async def asking(settings: Settings, request: HubRequest, work: Callable[[], Result]) -> Result:
    """What `work` returns, which calls the library, in a thread.

    Raises what it raises, and Offline, HubUnreachable, HubError, ConfigError.
    """
    require_online(settings)
    line = _Line(settings, request)
    try:
        return await asyncio.to_thread(_work, line, work)
    finally:
        line.close()


@cache
def prepare() -> None:
    """Let the library connect in calls of `asking` only, ask nothing of its own, and write nothing to the terminal."""
    import httpx2
    from huggingface_hub import constants, set_client_factory

    class Transport(httpx2.BaseTransport):
        def handle_request(self, sent: Request) -> httpx2.Response:
            line = _line.get(None)
            if line is None or sent.method != "GET":
                raise httpx2.UnsupportedProtocol(f"{sent.method} {sent.url.host}: nobody asked for it")
            answer = line.ask(sent)
            # An error says what it is in its headers.
            body = line.request.checked(answer.body) if answer.status == 200 else b""
            return httpx2.Response(answer.status, headers=dict(answer.headers), content=body)

    place = constants.ENDPOINT.replace("{", "{{").replace("}", "}}")  # braces of a password are not a template's
    constants.HUGGINGFACE_CO_URL_TEMPLATE = place + "/{repo_id}/resolve/{revision}/{filename}"
    constants.HF_HUB_DISABLE_TELEMETRY = True  # else it asks the Hub how to tell which agent runs it
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    set_client_factory(lambda: httpx2.Client(transport=Transport(), timeout=None, trust_env=False))


class _Line:
    """From the thread of one call to the event loop that it was made on."""

    def __init__(self, settings: Settings, request: HubRequest) -> None:
        self.settings, self.request = settings, request
        self._loop = asyncio.get_running_loop()
        self._asking: asyncio.Task[object] | None = None
        self._closed = False

    def ask(self, sent: Request) -> HubResponse:
        """The answer to what the library sends, in its thread. Raises as squish.hub.ask does, and CancelledError."""
        own = {"User-Agent": USER_AGENT}
        if allowed := sent.headers.get("authorization"):
            own["Authorization"] = allowed
        return asyncio.run_coroutine_threadsafe(self._ask(str(sent.url), own), self._loop).result()

    def close(self) -> None:
        """End what is being asked, and ask nothing more. To be called on the event loop."""
        self._closed = True
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self, url: str, own: dict[str, str]) -> HubResponse:
        if self._closed:
            raise asyncio.CancelledError
        self._asking = asyncio.current_task()
        try:
            return await ask(self.settings, self.request, url, own)
        finally:
            self._asking = None


_line: ContextVar[_Line] = ContextVar("line")


def _work(line: _Line, work: Callable[[], Result]) -> Result:
    prepare()
    import httpx2

    _line.set(line)
    try:
        return work()
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise unreachable(line.settings.hub_endpoint, error) from error
    except (ValueError, RecursionError) as error:
        raise HubError(f"The Hub's answer for {line.request.about} cannot be understood.") from error
