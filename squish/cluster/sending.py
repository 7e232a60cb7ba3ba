"""A model's way to another machine: looked for there by hash, copied from here or pulled there from the Hub.

A copy that was cut off goes on where it was. What is there under the same id with other files is never replaced.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

from squish.cluster.connection import HostConnection
from squish.cluster.messages import (
    CHUNK,
    Chunk,
    Fetch,
    FileEnd,
    FileWhole,
    Have,
    Install,
    Look,
    ModelThere,
    Receive,
    ToFront,
    Written,
)
from squish.errors import CorruptModel, StoreError
from squish.models.manifest import Installed

_ON_THE_WAY = 8  # chunks that may be unanswered
_ATTEMPTS = 2  # for a file whose beginning was left by a copy of another version

Report = Callable[[str, int, int], None]
"""host, bytes done, bytes in all"""


async def deliver(connection: HostConnection, installed: Installed, report: Report) -> None:
    """See to it that a host has a model, byte for byte. Raises CorruptModel where it has another one by that id."""
    manifest, host = installed.manifest, connection.host
    connection.report = lambda working: report(host.name, working.done, working.total)
    try:
        there = await connection.ask(Look(manifest.id, manifest.files), ModelThere)
        if there.state == "absent":
            if host.model == "pull":
                order = Fetch(manifest.pulled or manifest.id, manifest.id, manifest.files)
                there = await connection.ask(order, ModelThere)
            else:
                there = await _copy(connection, installed, report)
        require(there, host.name, installed)
    finally:
        connection.report = lambda working: None


def require(there: ModelThere, host: str, installed: Installed) -> None:
    """Raises CorruptModel that says what is wrong with a model on another host, and what to do there."""
    id = installed.manifest.id
    if there.state == "same":
        return
    if there.state == "changed":
        raise CorruptModel(
            f"{there.file} of {id} on {host} is not what was installed there.",
            hint=f"On {host}: {installed.manifest.pull_command}, or squish rm {id}, after which it can be copied.",
            param="model",
        )
    if there.state == "other":
        raise CorruptModel(
            f"{id} on {host} has other files than {id} here.",
            hint=f"On {host}: squish rm {id}, after which it is copied from here.",
            param="model",
        )
    raise CorruptModel(f"{id} is not installed on {host}.", hint="squish serve --hosts copies it.", param="model")


async def _copy(connection: HostConnection, installed: Installed, report: Report) -> ModelThere:
    manifest = installed.manifest
    have = (await connection.ask(Receive(manifest), Have)).sizes
    done = sum(have)

    def written(count: int) -> None:
        nonlocal done
        done += count
        report(connection.host.name, done, manifest.size)

    for number, file in enumerate(manifest.files):
        start = have[number]
        for _ in range(_ATTEMPTS):
            await _send(connection, installed.path / file.path, number, start, written)
            if (await connection.ask(FileEnd(number), FileWhole)).whole:
                break
            done -= file.size
            start = 0
        else:
            raise CorruptModel(
                f"{file.path} of {manifest.id} arrived on {connection.host.name} as something else.",
                hint=f"Check it here: squish verify {manifest.id}",
                param="model",
            )
    return await connection.ask(Install(), ModelThere)


async def _send(
    connection: HostConnection, path: Path, number: int, offset: int, written: Callable[[int], None]
) -> None:
    """The bytes of a file from an offset on, a few chunks at a time."""
    on_the_way: deque[asyncio.Future[ToFront]] = deque()
    try:
        with path.open("rb") as source:
            source.seek(offset)
            while data := await asyncio.to_thread(source.read, CHUNK):
                on_the_way.append(connection.post(Chunk(number, offset, data)))
                offset += len(data)
                if len(on_the_way) >= _ON_THE_WAY:
                    written((await connection.result(on_the_way.popleft(), Written)).size)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from None
    while on_the_way:
        written((await connection.result(on_the_way.popleft(), Written)).size)
