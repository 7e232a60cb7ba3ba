"""`--hosts hosts.toml`: several machines hold a model between them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from squish import console
from squish.config.settings import Settings
from squish.figures import percent, size

if TYPE_CHECKING:
    from squish.cluster.group import ConnectedHosts


def require_one_way(hosts: Path | None, ranks: int, models: Sequence[str]) -> None:
    """Raises UsageError where --hosts does not go with what else is given."""
    if hosts is None:
        return
    if ranks > 1:
        raise click.UsageError("--ranks divides a model on this machine, --hosts among several: give one of them.")
    if len(models) != 1:
        raise click.UsageError("--hosts is for one MODEL.")


@asynccontextmanager
async def gathered(path: Path, model: str, settings: Settings) -> AsyncIterator[ConnectedHosts]:
    """The hosts of a file, each connected, of this version, with room for its part of the model, and with its files.

    Raises SquishErrors that name the host, or the line of the file, and what to do.
    """
    from squish.cluster.group import ConnectedHosts
    from squish.cluster.handshake import TOKEN_VARIABLE, require_token
    from squish.cluster.hosts import read_hosts
    from squish.models.store import Store

    hosts = read_hosts(path)
    installed = Store(settings.cache_dir).find(model)
    installed.manifest.require("chat")
    given = os.environ.get(TOKEN_VARIABLE)
    token = None if given is None else require_token(given)
    async with ConnectedHosts(hosts, settings, console.note, token) as connected:
        others = ", ".join(host.name for host in hosts.hosts[1:])
        console.note(f"Connecting to {others}")
        await connected.connect()
        connected.require_room(installed)
        status = console.Status()

        def report(host: str, done: int, total: int) -> None:
            status.show(f"{model} on {host}: {size(done)} of {size(total)}, {percent(done / max(total, 1))}")

        try:
            await connected.deliver(installed, report)
        finally:
            status.clear()
        for share in connected.shares(installed):
            console.note(f"{share.host} will hold {size(share.needed)} of {model}")
        yield connected
