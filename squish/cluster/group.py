"""The hosts of one `squish serve --hosts`: connected, compared, given the model, and where the ranks of a group start.

Connections last as long as the server; a host that was lost is connected to again when the next group is built. The
engine decides when that is: it sees `Ranks`, and no hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from squish.cluster import facts, remarks
from squish.cluster.connection import HostConnection, RemoteRank
from squish.cluster.handshake import new_token as new_join_token
from squish.cluster.hosts import HostGroup
from squish.cluster.joining import JoinListener
from squish.cluster.messages import Facts, Look, ModelThere, StartRank
from squish.cluster.remarks import Remark
from squish.cluster.sending import Report, deliver, require
from squish.cluster.ssh import open_ssh
from squish.cluster.verified import first_changed
from squish.config.settings import Settings
from squish.download.disk import in_thread
from squish.errors import EngineError, LoadFailed, ModelInUse
from squish.ipc.group import Rank, new_token
from squish.memory import shares
from squish.memory.fit import Machine
from squish.memory.shares import Share, Spread
from squish.models.manifest import Installed, read_json, read_manifest

_ENDING = 60.0  # seconds that an earlier group may take to end
_REJOINING = 30.0  # seconds in which a rank that was started by hand has to come back before requests are refused
CONTEXT = 4096  # tokens of one conversation that must fit for loading to be worthwhile


class ConnectedHosts:
    """`async with ConnectedHosts(hosts, settings, say) as connected:`; it is the Ranks of squish.ipc.group.

    say: gets sentences for the user, as what to type on a machine whose rank is started by hand. join_token: for those.
    """

    def __init__(
        self, hosts: HostGroup, settings: Settings, say: Callable[[str], None], join_token: str | None = None
    ) -> None:
        self.hosts = hosts
        self._settings = settings
        self._say = say
        self._shown_token = join_token is None
        self._join_token = join_token or new_join_token()
        self._listener: JoinListener | None = None
        self._connections: dict[int, HostConnection] = {}
        self._running: set[int] = set()
        self._free = asyncio.Event()
        self._serving = ""
        self.own: Facts = facts.gather(settings, 0)

    @property
    def size(self) -> int:
        return len(self.hosts.hosts)

    @property
    def here(self) -> int:
        return 1

    async def __aenter__(self) -> Self:
        if self.hosts.by_hand:
            self._listener = await JoinListener(self.hosts, self._join_token, self._say).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._listener is not None:
            await self._listener.__aexit__(kind, error, traceback)
        await asyncio.gather(*(each.close() for each in self._connections.values()))

    # ---- hosts

    async def connect(self, within: float | None = None) -> None:
        """Reach every host that is not connected; ranks that are started by hand are waited for, at most for so many
        seconds. Raises EngineError, LoadFailed where a host is not like this one."""
        missing = [rank for rank in range(1, self.size) if self._lost(rank)]
        for rank in missing:
            if rank in self._connections:
                await self._connections.pop(rank).close()
        opening = [asyncio.create_task(self._open(rank, within)) for rank in missing]
        try:
            found = await asyncio.gather(*opening)
        except BaseException:
            for task in opening:
                task.cancel()
            for done in await asyncio.gather(*opening, return_exceptions=True):
                if isinstance(done, HostConnection):
                    await done.close()
            raise
        self._connections.update(zip(missing, found, strict=True))
        for remark in self.differences():
            if remark.status == "broken":
                raise LoadFailed(f"{remark.host}: {remark.reason}.", hint=remark.fix, param="--hosts")
            if remark.status == "warning":
                self._say(f"{remark.host}: {remark.reason}. {remark.fix or ''}".rstrip())

    def adopt(self, connection: HostConnection) -> None:
        """Take a connection that somebody else has opened, and closes."""
        self._connections[connection.rank] = connection

    def connection(self, rank: int) -> HostConnection:
        """Of a rank above 0. Raises EngineError where it is lost."""
        if self._lost(rank):
            raise EngineError(f"{self.hosts.hosts[rank].name} is not connected.")
        return self._connections[rank]

    def differences(self) -> Iterator[Remark]:
        """What is to be said of the connected hosts beside this one."""
        yield from remarks.address(self.hosts.hosts[0], self.own)
        for connection in self._connections.values():
            yield from remarks.versions(connection.host, self.own, connection.facts)
            yield from remarks.address(connection.host, connection.facts)
            yield from remarks.clock(connection.host, connection.clock_offset)

    def _lost(self, rank: int) -> bool:
        return rank not in self._connections or self._connections[rank].lost

    async def _open(self, rank: int, within: float | None) -> HostConnection:
        host = self.hosts.hosts[rank]
        if host.ssh:
            return await open_ssh(host, rank)
        assert self._listener is not None
        if within is not None:
            return await self._come_back(rank, within)
        token = f" and give it this token: {self._join_token}" if self._shown_token else ""
        self._say(f"Waiting for {host.name}. There, run: {self._listener.command(rank)}{token}")
        return await self._listener.joined(rank)

    async def _come_back(self, rank: int, within: float) -> HostConnection:
        """A rank that was started by hand and lost: its `squish worker --join` connects again by itself."""
        assert self._listener is not None
        name = self.hosts.hosts[rank].name
        try:
            async with asyncio.timeout(within):
                return await self._listener.joined(rank)
        except TimeoutError:
            problem = f"{name} was lost, and has not come back within {within:.0f} s."
            hint = f"If `squish worker` does not run there any more, start it: {self._listener.command(rank)}"
            raise EngineError(problem, hint=hint) from None

    # ---- the model

    def shares(self, installed: Installed) -> tuple[Share, ...]:
        """What each host is to hold of a model."""
        return shares.shares(self.spread(installed), self._context(installed), self.machines())

    def enough(self, installed: Installed) -> tuple[str, ...] | None:
        """The fewest hosts that it fits on."""
        return shares.enough(self.spread(installed), self._context(installed), self.machines())

    def machines(self) -> list[tuple[str, Machine]]:
        found = [self.own, *(self.connection(rank).facts for rank in range(1, self.size))]
        hosts = self.hosts.hosts
        return [(host.name, shares.limited(each.machine, host.memory)) for host, each in zip(hosts, found, strict=True)]

    def require_room(self, installed: Installed) -> None:
        """Raises LoadFailed where a host is too small for its part; says where one is short now."""
        found = self.shares(installed)
        small = [each for each in found if each.fits == "no"]
        if small:
            names = self.enough(installed)
            alone = f" It fits on {' + '.join(names)}: take the others out of hosts.toml." if names else ""
            hint = alone.strip() or "Add a host, or take a smaller or more compressed model."
            reason = "; ".join(map(str, small))
            raise LoadFailed(f"{installed.manifest.id} does not fit: {reason}.", hint=hint, param="model")
        for each in found:
            if each.fits == "tight":
                self._say(f"{each}: close other programs there, or it will be slow.")

    async def deliver(self, installed: Installed, report: Report) -> None:
        """See to it that every host has the model; one after the other, for they share this machine's link.

        Raises CorruptModel also where the files here are not what was installed.
        """
        memory = self._settings.worker_cache / "verified"
        changed = await in_thread(first_changed, installed, installed.manifest.files, memory)
        if changed is not None:
            there = ModelThere("changed", changed)
            require(there, self.hosts.hosts[0].name, installed)
        for rank in range(1, self.size):
            await deliver(self.connection(rank), installed, report)

    def spread(self, installed: Installed) -> Spread:
        config = read_json(installed.path / "config.json")
        return Spread.of(config, installed.manifest.parameters, installed.manifest.weights)

    def _context(self, installed: Installed) -> int:
        return min(CONTEXT, installed.manifest.context_length)

    # ---- squish.ipc.group.Ranks

    async def plan(self, model: str, cache_dir: str) -> tuple[Rank, ...]:
        """The ranks of a new group. Raises what reaching a host meets, and CorruptModel where its files differ."""
        path = Path(model)
        installed = Installed(read_manifest(path), path)
        manifest = installed.manifest
        if self._running:
            await self._until_free(manifest.id)
        await self.connect(_REJOINING)
        for rank in range(1, self.size):
            connection = self.connection(rank)
            there = await connection.ask(Look(manifest.id, manifest.files), ModelThere)
            require(there, connection.host.name, installed)
        self._serving = manifest.id
        return plan(self.hosts, model, cache_dir)

    async def _until_free(self, id: str) -> None:
        """Wait for the end of an earlier group of the same model, which has lost a rank. Raises ModelInUse for another
        model's, whose end nobody has asked for."""
        if id == self._serving:
            with suppress(TimeoutError):
                async with asyncio.timeout(_ENDING):
                    await self._free.wait()
                return
        problem = f"These hosts already serve {self._serving}; they hold one model at a time."
        raise ModelInUse(problem, hint="Unload it first, or wait until it is idle.", param="model")

    async def start(self, rank: Rank) -> HostedRank:
        started = await self.connection(rank.rank).start_rank(StartRank(rank, self._serving))
        self._running.add(rank.rank)
        self._free.clear()
        return HostedRank(started, rank.rank, self._ended)

    def _ended(self, rank: int) -> None:
        self._running.discard(rank)
        if not self._running:
            self._free.set()


class HostedRank:
    """A started rank; the hosts are free for another group when all have been closed."""

    def __init__(self, started: RemoteRank, rank: int, on_closed: Callable[[int], None]) -> None:
        self._started = started
        self._rank = rank
        self._on_closed = on_closed

    async def ended(self) -> str:
        return await self._started.ended()

    async def close(self) -> None:
        try:
            await self._started.close()
        finally:
            self._on_closed(self._rank)


def plan(hosts: HostGroup, model: str, cache_dir: str) -> tuple[Rank, ...]:
    """The ranks of a group on these hosts, with a token of its own. model, cache_dir: as they are on this machine."""
    addresses = tuple(f"{host.address}:{host.port}" for host in hosts.hosts)
    devices = tuple(tuple(device or None for device in host.rdma) for host in hosts.hosts)
    control = f"{hosts.hosts[0].address}:{hosts.control_port}"
    coordinator = addresses[0] if hosts.backend == "jaccl" else ""
    token, matrix = new_token(), devices if coordinator else ()
    names = tuple(host.name for host in hosts.hosts)
    return tuple(
        Rank(rank, addresses, control, token, model, cache_dir, hosts.backend, matrix, coordinator, names)
        for rank in range(len(hosts.hosts))
    )
