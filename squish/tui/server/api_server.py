"""The API as the app runs it: on the app's own session manager and event loop, started and stopped from a screen.

The server is handed in, so that nothing here imports a web framework. It keeps the tail of the log. Knows no widget.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Literal, Protocol

from squish.errors import ConfigError, EngineError, SquishError
from squish.runtime import Runtime
from squish.system import ports, servers
from squish.text import clean
from squish.tui.background import Background

LOG_LINES = 200
_NEXT_PORT = "{key:server.port} takes the next free port, {key:server.toggle} starts there."
_PORTS_TRIED = 50

State = Literal["off", "starting", "on", "stopping", "failed", "connected", "lost"]


Ready = Callable[[str, Callable[[], bool]], None]


class Serve(Protocol):
    """Serves the API until stop is set. on_ready gets the address when requests are answered, and what tells whether
    they must have a key.

    Raises ConfigError with param "port" when the port is taken, and other SquishErrors.
    """

    def __call__(
        self, runtime: Runtime, host: str, port: int, *, stop: asyncio.Event, on_ready: Ready
    ) -> Coroutine[None, None, None]: ...


class ShownServer(Protocol):
    """A server as the server screen shows it: the one of this app, or the one that it is connected to.

    ours: it is started and stopped here. about: what else is to be said of it.
    """

    log: deque[str]
    lines_seen: int

    @property
    def ours(self) -> bool: ...

    @property
    def state(self) -> State: ...

    @property
    def url(self) -> str: ...

    @property
    def about(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def error(self) -> SquishError | None: ...

    def one_line(self) -> Background:
        """What the status strip says."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def next_port(self) -> None: ...

    async def close(self) -> None: ...


class ApiServer:
    """One server, on or off. port is the one that is or will be listened on."""

    ours = True

    def __init__(self, runtime: Runtime, serve: Serve | None) -> None:
        self.host, self.port = runtime.settings.host, runtime.settings.port
        self.state: State = "off"
        self.url = ""
        self.error: SquishError | None = None
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.lines_seen = 0
        self._runtime, self._serve = runtime, serve
        self._needs_key: Callable[[], bool] = lambda: bool(runtime.settings.api_key)
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def about(self) -> str:
        return "clients must send a key" if self._needs_key() else "no API key is set"

    @property
    def port_taken(self) -> bool:
        return isinstance(self.error, ConfigError) and self.error.param == "port"

    def one_line(self) -> Background:
        """What the status strip says."""
        if self.state == "on":
            return Background(f"api:{self.port}", "on")
        return Background("api failed" if self.state == "failed" else "")

    def start(self) -> None:
        """Start unless it runs; `state` says how far it is."""
        if self._serve is None or self.state in ("starting", "on", "stopping"):
            return
        self.state, self.error, self.url = "starting", None, ""
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._run(self._serve), name="api server")

    def stop(self) -> None:
        """Ask it to end; requests in flight may finish for a moment."""
        if self.state in ("starting", "on"):
            self.state = "stopping"
            self._stop.set()

    def next_port(self) -> None:
        """Choose the next port that nothing listens on."""
        for port in range(self.port + 1, min(self.port + _PORTS_TRIED, 65536)):
            if ports.can_bind(self.host, port):
                self.port, self.error = port, None
                self.state = "off" if self.state == "failed" else self.state
                return

    async def close(self) -> None:
        """Stop, and wait until nothing is served any more."""
        self.stop()
        if self._task:
            await asyncio.wait({self._task}, timeout=5)
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self, serve: Serve) -> None:
        tail = _Tail(self._add_line)
        logger = logging.getLogger("squish")
        level, propagate = logger.level, logger.propagate
        logger.addHandler(tail)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            await serve(self._runtime, self.host, self.port, stop=self._stop, on_ready=self._ready)
            self.state = "off"
        except SquishError as error:
            self.state, self.error = "failed", error
            if self.port_taken:
                self.error = await self._who_listens()
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the app down
            self.state = "failed"
            self.error = EngineError(f"The server had an internal error ({type(error).__name__}).")
        finally:
            logger.removeHandler(tail)
            logger.setLevel(level)
            logger.propagate = propagate

    async def _who_listens(self) -> ConfigError:
        other = await asyncio.to_thread(servers.at_port, self._runtime.settings.home, self.port)
        text, hint = f"Another program already listens on port {self.port}.", _NEXT_PORT
        if other is not None:
            text = f"`squish serve` (process {other.pid}) already listens on port {self.port}."
            hint = "{key:app.connect} uses the models of that server; " + _NEXT_PORT
        return ConfigError(text, hint=hint, param="port")

    def _ready(self, url: str, needs_key: Callable[[], bool]) -> None:
        self.url, self.state, self._needs_key = url, "on", needs_key

    def _add_line(self, line: str) -> None:
        self.log.append(line)
        self.lines_seen += 1


class _Tail(logging.Handler):
    """Hands every line of a log on, safe to show."""

    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(clean(self.format(record)).replace("\n", " "))
