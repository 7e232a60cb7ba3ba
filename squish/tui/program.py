"""The way into the full-screen app and out of it: the terminal around it, one app after the other, the exit code."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import EngineError, InvalidInput, RemoteError, SquishError
from squish.runtime import Runtime
from squish.tui import leaving, preferences
from squish.tui.app import SquishApp
from squish.tui.server.api_server import Serve
from squish.tui.terminal.connecting import connecting
from squish.tui.terminal.guard import ended_by_signals, guarded_stderr, own_driver_parts


def run(
    settings: Settings,
    model: str | None = None,
    *,
    serve: Serve | None = None,
    connect: tuple[str, str] | None = None,
    in_browser: bool = False,
) -> int:
    """Run the app until the user leaves it; the exit code. Raises InvalidInput without a terminal.

    EngineError, when the terminal is as it was before: the app met a fault of its own.
    serve: runs the API behind the server screen. connect: the address of a server whose models are used, and its key;
    raises RemoteError where it cannot be used. in_browser: what is drawn goes to a page, see `squish web`.
    """
    if not in_browser and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput("The full-screen chat needs a terminal.", hint='Run: squish run MODEL --prompt "…"')
    log = settings.home / "logs" / "tui.log"
    with guarded_stderr(log), own_driver_parts():
        code, fault = resolver.run(_run(settings, model, serve, connect))
    if fault:
        raise EngineError(f"Squish had to close: {fault}. The log has the details: {log}")
    return code


async def _run(
    settings: Settings, model: str | None, serve: Serve | None, connect: tuple[str, str] | None
) -> tuple[int, str]:
    """One app after the other, for as long as each ends by choosing another server.

    One that cannot be used when it is chosen leads to the models of this machine, and is said there.
    """
    app = await (_connected(settings, model, *connect) if connect else _here(settings, model, serve))
    while app.connect_to and not app.fault:
        try:
            app = await _connected(settings, model, *app.connect_to)
        except RemoteError as error:
            app = await _here(settings, model, serve, error)
    return app.return_code or 0, app.fault


async def _here(
    settings: Settings, model: str | None, serve: Serve | None, failed: SquishError | None = None
) -> SquishApp:
    async with Runtime(settings) as runtime:
        return await _shown(SquishApp(runtime, model, serve=serve, failed=failed), settings)


async def _connected(settings: Settings, model: str | None, url: str, key: str) -> SquishApp:
    from squish.remote.connected import connected

    async with AsyncExitStack() as stack:
        async with connecting(url):
            backend = await stack.enter_async_context(connected(settings, url, key))
        listed = any(each.id == model for each in backend.store.list())
        return await _shown(SquishApp(backend, model if listed else None), settings)


async def _shown(app: SquishApp, settings: Settings) -> SquishApp:
    """A signal ends it in good order; an app that is busy with something else is broken off after a while."""
    preferences.apply(app, settings)
    loop, running, insisting = asyncio.get_running_loop(), asyncio.current_task(), list[asyncio.TimerHandle]()
    assert running is not None

    def end(code: int) -> None:
        app.exit(return_code=code)
        insisting.append(loop.call_later(leaving.PATIENCE, running.cancel))

    with ended_by_signals(end):
        await app.run_async()
    for each in insisting:
        each.cancel()
    while running.cancelling():
        running.uncancel()
    return app
