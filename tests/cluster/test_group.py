"""When the hosts of a group are free for another one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from squish.cluster.connection import RemoteRank
from squish.cluster.group import ConnectedHosts, HostedRank
from squish.cluster.hosts import HostGroup
from squish.errors import ModelInUse
from tests.cluster.pairs import HERE, THERE, install, pair, settings_of

FILES = {"config.json": b"{}"}


async def test_a_group_is_built_anew_when_the_one_that_lost_a_rank_has_ended(tmp_path: Path) -> None:
    """The engine asks for it before all ranks of the old one have ended."""
    here, there = tmp_path / "here", tmp_path / "there"
    model, other = (install(here, id, FILES) for id in ("tiny:1b", "other:1b"))
    install(there, "tiny:1b", FILES)
    async with pair(there) as two:
        hosts = ConnectedHosts(HostGroup((HERE, THERE)), settings_of(here), lambda said: None)
        hosts.adopt(two.connection)
        await hosts.plan(str(model.path), "")
        hosts._running.add(1)
        rank = HostedRank(RemoteRank(two.connection, asyncio.Future()), 1, hosts._ended)
        with pytest.raises(ModelInUse, match=r"already serve tiny:1b"):
            await hosts.plan(str(other.path), "")
        planning = asyncio.create_task(hosts.plan(str(model.path), ""))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not planning.done()
        await rank.close()
        assert [each.rank for each in await planning] == [0, 1]
