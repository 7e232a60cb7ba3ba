"""`squish serve`: its options, and the life of the server process from the first check to the last drained request."""

from __future__ import annotations

import asyncio
import gc
import os
import stat
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from squish import console, figures
from squish.commands import interrupts
from squish.commands.flags import Seconds, Whole, kv_bits_option
from squish.commands.serving.draft import suggestion, with_draft
from squish.commands.serving.hosts import gathered, require_one_way
from squish.commands.serving.ranks import here, ranks_option
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import ConfigError, SquishError
from squish.system import loop, servers

if TYPE_CHECKING:
    from squish.api.serving.opening import Opening
    from squish.api.serving.options import Options
    from squish.api.serving.server import Address, Shutdown
    from squish.ipc.group import Ranks
    from squish.runtime import Runtime

_MAX_KEY_FILE = 4096
_DRAIN_BESIDE = 3.0


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=Whole(0, 65535), help="0 takes a free one.  [default: 11435]")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="A file with the key that clients must send.")
@click.option("--max-queue", type=Whole(0, 100_000), help="Requests that may wait per model.  [default: 64]")
@click.option("--max-concurrency", type=Whole(1, 256), help="Answers generated at the same time.  [default: 32]")
@click.option("--keep-alive", type=Seconds(), help="How long an idle model stays loaded; -1: forever.  [default: 300]")
@click.option(
    "--cors-origin", "origins", multiple=True, help="A web origin whose pages may use the server; repeatable."
)
@kv_bits_option
@click.option("--draft", metavar="MODEL", help="A smaller installed model that drafts tokens for the MODELs named.")
@ranks_option
@click.option("--hosts", type=click.Path(path_type=Path), help="Split MODEL across the machines in this hosts.toml.")
@click.option("--allow-pull", is_flag=True, help="Let clients install, copy and delete models.")
@click.option(
    "--shutdown-delay",
    type=Seconds(),
    default=0.0,
    help="Keep serving this long after SIGTERM, with /ready at 503, for routers.  [default: 0]",
)
@click.option(
    "--log-level", type=click.Choice(("debug", "info", "warning", "error")), default="info", show_default=True
)
@click.option("--print-openapi", is_flag=True, help="Print the API's OpenAPI document and exit.")
def serve(
    models: tuple[str, ...],
    api_key_file: Path | None,
    origins: tuple[str, ...],
    draft: str | None,
    ranks: int,
    hosts: Path | None,
    allow_pull: bool,
    shutdown_delay: float,
    log_level: Any,
    print_openapi: bool,
    **given: Any,
) -> None:
    """Serve models to clients of OpenAI, Anthropic and Ollama.

    For OpenAI, chat, completions and the Responses API.

    The MODELs named are loaded at once, the others when they are first requested.

    SQUISH_API_KEY, or --api-key-file, sets the key that clients must send; `squish keys` makes several.

    \b
    squish serve
    squish serve qwen3:8b --port 8080 --keep-alive -1
    squish serve --host 0.0.0.0 --api-key-file ~/.squish-key
    squish serve llama3.3:70b --hosts hosts.toml
    """
    if print_openapi:
        from squish.api.openapi import document

        console.out(document().rstrip())
        return
    settings = replace(Settings.from_environment(), **{key: value for key, value in given.items() if value is not None})
    if api_key_file is not None:
        settings = replace(settings, api_key=_read_key(api_key_file))
    if draft is not None and not models:
        raise click.UsageError("--draft guesses for the MODELs named, and none is.")
    require_one_way(hosts, ranks, models)
    settings = with_draft(settings, models, draft)
    from squish.api.serving import logs
    from squish.api.serving.options import Options
    from squish.api.serving.server import Shutdown

    options = Options(settings.host, settings.port, tuple(_origin(each) for each in origins), allow_pull)
    logs.configure(log_level)
    from squish.system.awake import awake

    run = resolver.run if allow_pull else loop.run  # a download looks names up
    with awake() if settings.keep_awake else nullcontext():
        run(_serve_on(hosts, here(ranks), settings, options, models, Shutdown(delay=max(0.0, shutdown_delay))))


async def _serve_on(
    hosts: Path | None,
    ranks: Ranks | None,
    settings: Settings,
    options: Options,
    models: tuple[str, ...],
    stop: Shutdown,
) -> None:
    if hosts is None:
        await _serve(settings, options, models, stop, ranks)
        return
    async with gathered(hosts, models[0], settings) as connected:
        await _serve(settings, options, models, stop, connected)


async def _serve(
    settings: Settings, options: Options, models: tuple[str, ...], stop: Shutdown, ranks: Ranks | None
) -> None:
    from squish.api.serving.opening import Opening
    from squish.api.serving.server import serve
    from squish.runtime import Runtime
    from squish.system.servers import Announcement

    opening = Opening(settings.max_queue)
    for number in interrupts.endings():
        asyncio.get_running_loop().add_signal_handler(number, _on_signal, stop)
    async with (
        Runtime(settings, ranks) as runtime,
        Announcement(settings.home, runtime.sessions.status) as announcement,
    ):
        for model in models:
            runtime.store.find(model)
        preloading: list[asyncio.Task[None]] = []

        def ready(address: Address) -> None:
            gc.freeze()  # what is here stays; a collection that went through it would stop every answer for a while
            _warn(runtime, options)
            announcement.listening(address.url)
            preloading.append(asyncio.create_task(_open(runtime, address, models, opening, stop)))

        try:
            await serve(runtime, options, stop=stop, on_ready=ready, opening=opening)
        except ConfigError as error:
            raise with_who_listens(error, settings) from None
        for task in preloading:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def with_who_listens(error: ConfigError, settings: Settings) -> ConfigError:
    """Where a Squish of this home has the port, it can be used as it is."""
    other = servers.at_port(settings.home, settings.port) if error.param == "port" else None
    if other is None:
        return error
    problem = f"A Squish (process {other.pid}) already serves at {other.url}."
    hint = f"Use it: squish --connect {other.url}\n        {error.hint}"
    return ConfigError(problem, hint=hint, param="port")


async def serve_beside(
    runtime: Runtime, host: str, port: int, *, stop: asyncio.Event, on_ready: Callable[[str, Callable[[], bool]], None]
) -> None:
    """Serve inside another front door, on its runtime, until stop is set; on_ready gets the URL, and what tells whether
    a request must have a key: the first can be made meanwhile.

    Raises what serving raises: ConfigError with param "port" where the port is taken.
    """
    from squish.api.clients.clients import Clients
    from squish.api.serving.options import Options
    from squish.api.serving.server import Shutdown, serve
    from squish.system.servers import Announcement

    clients = Clients(runtime.settings.home, runtime.settings.api_key, runtime.store)
    async with Announcement(runtime.settings.home, runtime.sessions.status, beside=True) as announcement:

        def ready(address: Address) -> None:
            announcement.listening(address.url)
            on_ready(address.url, lambda: clients.need_keys)

        await serve(runtime, Options(host, port), stop=Shutdown(gently=stop, drain=_DRAIN_BESIDE), on_ready=ready)


async def _open(runtime: Runtime, address: Address, models: tuple[str, ...], opening: Opening, stop: Shutdown) -> None:
    """Load what was named, one after the other, then let requests in. What cannot be loaded ends the server."""
    reason = "This server ends: it could not load what it was started with."
    try:
        if models:
            console.note(f"Loading {', '.join(models)}; until then requests to {address.url} wait")
        for model in models:
            if short := await runtime.sessions.shortage(model):  # it was named on purpose
                console.note(str(short))
                runtime.sessions.load_anyway(model)
            loaded = await runtime.sessions.load(model)
            console.note(
                f"{model} is loaded: {figures.size(loaded.weights_bytes)} of weights in memory, {loaded.backend}"
            )
            if advice := suggestion(runtime.settings, runtime.store, model):
                console.note(advice)
        if opening.decided:  # asked to stop meanwhile
            return
        opening.open()
        count = len(runtime.store.list())
        console.note(
            f"Squish serves {count} model{'s' * (count != 1)} at {address.url}/v1 "
            "(for clients of Anthropic and Ollama without /v1; Ctrl-C stops)"
        )
        runtime.sessions.keep_spare()
    except SquishError as error:
        reason = f"{reason} {error.message}"
        raise
    finally:
        if not opening.decided:
            opening.close(reason)
            stop.gently.set()


def _warn(runtime: Runtime, options: Options) -> None:
    """Say who may use a server without a key, where that is more than this machine."""
    from squish.api.access import cors
    from squish.api.clients.clients import Clients
    from squish.system.loopback import is_loopback

    if Clients(runtime.settings.home, runtime.settings.api_key, runtime.store).need_keys:
        return
    if not is_loopback(options.host):
        console.note(
            f"WARNING: anyone who can reach {options.host} may use this server"
            f"{', and install and delete models,' if options.allow_pull else ','} because it has no key.\n"
            "         Set SQUISH_API_KEY or --api-key-file, make keys with squish keys add, or listen on 127.0.0.1."
        )
    if cors.ANY in options.cors_origins:
        console.note(
            "WARNING: every web page open in a browser here may use this server and read its answers,\n"
            "         because --cors-origin is * and no key is set. Name the origins, or set SQUISH_API_KEY."
        )


def _on_signal(stop: Shutdown) -> None:
    if stop.ask():
        begin = f"Stopping in {stop.delay:.0f} s; then" if stop.delay else "Stopping:"
        console.note(f"{begin} requests in flight have {stop.drain:.0f} s (Ctrl-C again stops at once)")


def _read_key(path: Path) -> str:
    """The key in a file. Raises ConfigError when there is none that an HTTP header can carry."""
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            key = file.read(_MAX_KEY_FILE + 1).strip()
            readable = os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"The key file {path} cannot be read: {reason}.", param="--api-key-file") from None
    if not key or len(key) > _MAX_KEY_FILE or not (key.isascii() and key.isprintable()):
        hint = "It has to hold one line of plain ASCII."
        raise ConfigError(f"The key file {path} holds no usable key.", hint=hint, param="--api-key-file")
    if readable:
        console.note(f"Other users of this machine can read {path}. Better: chmod 600 {path}")
    return key


def _origin(text: str) -> str:
    """An origin as browsers send it. Raises ConfigError for anything else, as it would never match."""
    if text in ("*", "null", "file://"):
        return text
    if "*" in text:
        hint = "Name each origin with a --cors-origin of its own, or write '*' for any."
        raise ConfigError(f"{text!r}: a part of an origin cannot be *.", hint=hint, param="--cors-origin")
    try:
        parts = urlsplit(text.rstrip("/"))
        valid = bool(parts.scheme and parts.netloc) and not (parts.path or parts.query or parts.fragment)
    except ValueError:
        valid = False
    if not valid or not text.isascii() or "@" in text:
        hint = "An origin is scheme, host and port: https://app.example or http://localhost:3000"
        raise ConfigError(f"{text!r} is not a web origin.", hint=hint, param="--cors-origin")
    return text.rstrip("/").lower()
