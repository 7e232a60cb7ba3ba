"""`squish worker`: this machine's part of a model that `squish serve --hosts` spreads over several."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from squish import console
from squish.commands.flags import Whole
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import ConfigError, InvalidInput

if TYPE_CHECKING:
    from squish.cluster.channel import Channel
    from squish.cluster.messages import FromAgent, ToAgent, Working


@click.command()
@click.option("--rank", type=Whole(1, 63), required=True, help="Which host of hosts.toml this is; the first is 0.")
@click.option("--join", "address", metavar="ADDRESS", help="Where squish serve --hosts waits: HOST or HOST:PORT.")
def worker(rank: int, address: str | None) -> None:
    """Join squish serve --hosts as one of its machines.

    With --join, it asks for the token that the server shows, or takes it from SQUISH_JOIN_TOKEN, and stays until the
    server ends, reconnecting if needed. Without --join, it is what the server starts over ssh.

    \b
    squish worker --join 10.0.0.1 --rank 1
    """
    settings = Settings.from_environment()
    if address is not None:
        from squish.cluster.joining import split

        split(address)  # before anybody types a token
        resolver.run(_join(settings, address, rank, _token()))
    elif not all(_carries(stream.fileno()) for stream in (sys.stdin, sys.stdout)):
        problem, hint = "squish serve starts this over ssh.", "By hand: squish worker --join ADDRESS --rank N"
        raise ConfigError(problem, hint=hint, param="--join")
    else:
        resolver.run(_serve_pipes(settings, rank))


def _carries(descriptor: int) -> bool:
    """Whether messages can go through it: not a terminal, a file or /dev/null."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _token() -> str:
    from squish.cluster.handshake import TOKEN_VARIABLE, require_token

    text = os.environ.get(TOKEN_VARIABLE)
    if text is None:
        asked = sys.stdin.isatty()
        text = click.prompt("Token", hide_input=True, err=True) if asked else sys.stdin.readline()
        if not text.strip():
            problem = "No join token came: standard input is not a terminal, and there is nothing in its first line."
            hint = f"Set {TOKEN_VARIABLE} to the token that `squish serve --hosts` shows, or send it to standard input."
            raise InvalidInput(problem, hint=hint, param="--join")
    return require_token(text)


async def _join(settings: Settings, address: str, rank: int, token: str) -> None:
    from squish.cluster.joining import join, rejoin

    channel = await join(address, rank, token)
    console.note(f"This is rank {rank} of {address} until that server ends (Ctrl-C leaves)")
    while lost := await _run(settings, rank, channel):
        console.note(f"Lost {address}: {lost}. Connecting again until it is there (Ctrl-C ends this)")
        channel = await rejoin(address, rank, token)
        console.note(f"This is rank {rank} of {address} again")
    console.note(f"Left {address}: that server has ended.")


async def _serve_pipes(settings: Settings, rank: int) -> None:
    """Speak over standard input and output; what anything else would print goes to standard error."""
    from squish.cluster.channel import MAGIC, Channel
    from squish.cluster.messages import ToAgent

    ours = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(ours, "wb", buffering=0)
    )
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    writer.write(MAGIC)
    await _run(settings, rank, Channel(reader, writer, ToAgent))  # type: ignore[arg-type]


async def _run(settings: Settings, rank: int, channel: Channel[FromAgent, ToAgent]) -> str | None:
    """Be an agent until the connection ends; how it was lost, None where the server said that it ends."""
    from squish.cluster.agent import Agent

    async def pull(name: str, report: Callable[[Working], None]) -> None:
        await _pull(settings, name, report)

    try:
        await Agent(channel, rank, settings, pull).run()
    except ConnectionError as error:
        return str(error)
    return None


async def _pull(settings: Settings, name: str, report: Callable[[Working], None]) -> None:
    from squish.cluster.messages import Working
    from squish.models.store import Store
    from squish.pull.events import Progress
    from squish.pull.pull import pull

    async with pull(name, settings=settings, store=Store(settings.cache_dir)) as events:
        async for event in events:
            if isinstance(event, Progress):
                report(Working(event.phase, event.done, event.total))
