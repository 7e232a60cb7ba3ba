"""An event loop that no name server can hold up.

asyncio looks names up in threads that it waits for when it ends, and a look-up cannot be stopped: a name server that
does not answer would keep the program alive long after Ctrl-C. Here nobody waits for those threads.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

from squish.system.loop import Loop

Result = TypeVar("Result")

_TICK = 0.25  # seconds until Ctrl-C is seen at the latest


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """asyncio.run, on such a loop."""
    with runner() as opened:
        return opened.run(main)


def runner() -> asyncio.Runner:
    """An asyncio.Runner with such a loop."""
    return asyncio.Runner(loop_factory=_Loop)


class _Loop(Loop):
    """It wakes regularly: a signal just before the loop goes to sleep would be seen at the next event only."""

    def __init__(self) -> None:
        super().__init__()
        self._wake()

    def _wake(self) -> None:
        self.call_later(_TICK, self._wake)

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """What socket.getaddrinfo gives, and raises."""
        found: asyncio.Future[Any] = self.create_future()

        def settle(result: Any, error: Exception | None) -> None:
            if found.done():  # nobody wants to know any more
                return
            if error is None:
                found.set_result(result)
            else:
                found.set_exception(error)

        def look_up() -> None:
            result, failure = None, None
            try:
                result = socket.getaddrinfo(host, port, **options)
            except (OSError, UnicodeError) as error:
                failure = error
            with suppress(RuntimeError):  # the loop is closed
                self.call_soon_threadsafe(settle, result, failure)

        Thread(target=look_up, daemon=True, name=f"look up {host}").start()
        return await found
