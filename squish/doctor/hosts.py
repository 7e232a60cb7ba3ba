"""The machines of a hosts.toml: reached, compared with this one, links measured, parts of a model counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from squish.cluster import link, remarks
from squish.cluster.agent import secret
from squish.cluster.connection import HostConnection
from squish.cluster.group import ConnectedHosts
from squish.cluster.hosts import GroupHost, HostGroup, examine
from squish.cluster.messages import LinkMeasured, LinkOpen, Look, MeasureLink, ModelThere, OpenLink
from squish.cluster.remarks import Remark
from squish.cluster.ssh import open_ssh
from squish.config.settings import Settings
from squish.doctor.finding import Finding
from squish.errors import SquishError
from squish.models.manifest import Installed
from squish.models.store import Store


def check_hosts(path: Path, model: str | None, settings: Settings) -> Iterator[Finding]:
    """Every finding about the hosts of a file. model: also whether it is there, and what each rank will hold."""
    hosts, problems = examine(path)
    for problem in problems:
        yield Finding("hosts", "broken", problem.message, problem.hint or f"$EDITOR {path}")
    if hosts is None:
        return
    yield Finding("hosts", "ok", f"{path}: {len(hosts.hosts)} hosts, {hosts.backend}")
    if hosts.backend == "jaccl":
        reason = "jaccl has never been tried by those who wrote Squish: they had no machines with Thunderbolt 5"
        yield Finding("hosts", "warning", reason, 'If it fails, backend = "ring" works over any network.')
    installed: Installed | None = None
    if model is not None:
        try:
            installed = Store(settings.cache_dir).find(model)
        except SquishError as error:
            yield Finding("hosts", "broken", error.message, error.hint)
    for remark in asyncio.run(_look(hosts, installed, settings)):
        yield Finding(remark.host, remark.status, remark.reason, remark.fix)


async def _look(hosts: HostGroup, installed: Installed | None, settings: Settings) -> list[Remark]:
    found: list[Remark] = []
    group = ConnectedHosts(hosts, settings, lambda text: None)
    reached = await _reach(hosts, found)
    try:
        for connection in reached.values():
            group.adopt(connection)
        found += group.differences()
        for rank in range(len(hosts.hosts)):
            found += await _link(hosts, reached, rank)
        if installed is not None:
            for connection in reached.values():
                found.append(await _model(connection, installed))
            if len(reached) == len(hosts.hosts) - 1:
                found += map(remarks.share, group.shares(installed))
                found.append(remarks.set_of(hosts, installed.manifest.id, group.enough(installed)))
    finally:
        await asyncio.gather(*(connection.close() for connection in reached.values()))
    return found


async def _reach(hosts: HostGroup, found: list[Remark]) -> dict[int, HostConnection]:
    """The hosts that can be reached, by rank."""
    asked = [rank for rank, host in enumerate(hosts.hosts) if host.ssh]
    opened = await asyncio.gather(*(open_ssh(hosts.hosts[rank], rank) for rank in asked), return_exceptions=True)
    reached: dict[int, HostConnection] = {}
    for rank, result in zip(asked, opened, strict=True):
        if isinstance(result, HostConnection):
            reached[rank] = result
        elif isinstance(result, SquishError):
            found.append(Remark(hosts.hosts[rank].name, "broken", result.message, result.hint))
        else:
            raise result
    for rank in hosts.by_hand:
        fix = "Give it an ssh in hosts.toml to have it checked."
        found.append(Remark(hosts.hosts[rank].name, "warning", "not looked at: its rank is started by hand", fix))
    return reached


async def _link(hosts: HostGroup, reached: dict[int, HostConnection], rank: int) -> list[Remark]:
    """The way from one rank to the next, which is the last one's first; nothing where one of them was not reached."""
    after = (rank + 1) % len(hosts.hosts)
    if not {rank, after} - {0} <= reached.keys():
        return []
    start, end, token = hosts.hosts[rank], hosts.hosts[after], secret()
    try:
        await _open(end, reached.get(after), token)
        return [remarks.link(start, end, await _measure(end, reached.get(rank), token))]
    except SquishError as error:
        fix = error.hint or f"Nothing may listen there yet, and firewalls have to let {start.name} reach it."
        return [Remark(f"{start.name} → {end.name}", "broken", error.message, fix)]


async def _open(end: GroupHost, connection: HostConnection | None, token: str) -> None:
    if connection is not None:
        await connection.ask(OpenLink(end.address, end.port, token), LinkOpen)
        return
    server = await asyncio.to_thread(link.listen, end.address, end.port)
    asyncio.get_running_loop().run_in_executor(None, link.answer, server, token)


async def _measure(end: GroupHost, connection: HostConnection | None, token: str) -> LinkMeasured:
    if connection is not None:
        return await connection.ask(MeasureLink(end.address, end.port, token), LinkMeasured)
    return await asyncio.to_thread(link.measure, end.address, end.port, token)


async def _model(connection: HostConnection, installed: Installed) -> Remark:
    manifest = installed.manifest
    try:
        there = await connection.ask(Look(manifest.id, manifest.files), ModelThere)
    except SquishError as error:
        return Remark(connection.host.name, "broken", error.message, error.hint)
    return remarks.model(connection.host, connection.facts, there, installed)
