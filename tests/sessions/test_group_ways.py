"""The ways in which a model is divided, and by which ranks compute together, on tiny models."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from squish.config.settings import Settings
from squish.generation import GenerationRequest, SamplingParams, TextPrompt
from squish.ipc.environment import environment
from squish.ipc.group import Rank, command, new_token
from squish.ipc.local_ranks import LocalMember, LocalRanks
from squish.models.store import Store
from squish.runtime import Runtime
from squish.worker.group.collectives import RING
from tests.conftest import PATIENCE, home_settings
from tests.sessions.test_sessions import collect, text
from tests.worker.group import tiny

ASKED = (TextPrompt("Once upon a time there was a fox"), TextPrompt("A"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of a store with a model for each way."""
    made = replace(home_settings(tmp_path_factory.mktemp("tiny")), cpu_precision="float32", offline=True)
    store = Store(made.cache_dir)
    tiny.install(store, "heads:tiny", "llama", key_heads=2, layers=2)
    tiny.install(store, "layers:tiny", "qwen2", key_heads=1, layers=4)
    return made


async def said(runtime: Runtime, model: str) -> tuple[str, ...]:
    events = await collect(runtime, GenerationRequest(model, ASKED, SamplingParams(temperature=0, max_tokens=12)))
    return tuple(text(events, index) for index in range(len(ASKED)))


async def backend(runtime: Runtime, model: str) -> str:
    return (await runtime.sessions.load(model)).backend


async def test_a_model_with_one_head_is_divided_by_layers(settings: Settings) -> None:
    async with Runtime(settings) as runtime:
        alone = await said(runtime, "layers:tiny")
    async with Runtime(settings, LocalRanks(3)) as runtime:
        assert "the layers divided among 3 ranks" in await backend(runtime, "layers:tiny")
        assert await said(runtime, "layers:tiny") == alone


async def test_every_rank_keeps_its_heads_with_the_bits_that_are_set(settings: Settings) -> None:
    few = replace(settings, kv_bits="8")
    async with Runtime(few) as runtime:
        alone = await said(runtime, "heads:tiny")
    async with Runtime(few, LocalRanks(2)) as runtime:
        assert "8-bit KV cache, each layer divided among 2 ranks" in await backend(runtime, "heads:tiny")
        assert await said(runtime, "heads:tiny") == alone


async def test_the_ring_of_mlx_gives_the_same_text(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Runtime(settings) as runtime:
        alone = await said(runtime, "heads:tiny")
    monkeypatch.setenv(RING, "1")
    async with Runtime(settings, LocalRanks(2)) as runtime:
        assert "each layer divided among 2 ranks" in await backend(runtime, "heads:tiny")
        assert await said(runtime, "heads:tiny") == alone


# ---- network namespaces: this process is in one, and rank 1 in another

HERE, THERE = "10.213.7.1", "10.213.7.2"
INSIDE = "SQUISH_TEST_OTHER_NETWORK"


class OtherNetwork:
    """Rank 1 has a network of its own, that of a process, and is reached by its address."""

    size = here = 2

    def __init__(self, process: int) -> None:
        self._process = process

    async def plan(self, model: str, cache_dir: str) -> tuple[Rank, ...]:
        addresses, token = (f"{HERE}:7001", f"{THERE}:7001"), new_token()
        return tuple(Rank(rank, addresses, f"{HERE}:7000", token, model, cache_dir) for rank in range(2))

    async def start(self, rank: Rank) -> LocalMember:
        started = command(rank)
        process = await asyncio.create_subprocess_exec(
            "nsenter", "-t", str(self._process), "-n", *started.argv,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(started.stdin)
        return LocalMember(process)


@pytest.fixture
def other_network() -> Iterator[int]:
    """A process in another network, connected to this one."""
    with subprocess.Popen(["unshare", "-n", "sleep", str(PATIENCE)]) as process:
        try:
            own = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{process.pid}/ns/net").readlink() == own:
                pass
            into = ("nsenter", "-t", str(process.pid), "-n")
            for step in (
                ("ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(process.pid)),
                ("ip", "addr", "add", f"{HERE}/24", "dev", "here"),
                ("ip", "link", "set", "here", "up"),
                (*into, "ip", "addr", "add", f"{THERE}/24", "dev", "there"),
                (*into, "ip", "link", "set", "there", "up"),
            ):
                subprocess.run(step, check=True, capture_output=True)
            yield process.pid
        finally:
            process.kill()


@pytest.mark.skipif(INSIDE not in os.environ, reason="runs inside test_ranks_on_two_networks")
async def test_inside_two_networks(settings: Settings, other_network: int) -> None:
    async with Runtime(settings) as runtime:
        alone = await said(runtime, "heads:tiny")
    async with Runtime(settings, OtherNetwork(other_network)) as runtime:
        assert await said(runtime, "heads:tiny") == alone


def may_have_networks() -> bool:
    tools = all(map(shutil.which, ("unshare", "nsenter", "ip")))
    make = ("unshare", "-n", "ip", "link", "add", "here", "type", "veth", "peer", "name", "there")
    return tools and subprocess.run(make, check=False, capture_output=True).returncode == 0


@pytest.mark.long  # test_over_ssh.py has ranks that know each other by their addresses
def test_ranks_on_two_networks_find_each_other_by_their_addresses() -> None:
    if not may_have_networks():
        pytest.skip("networks of its own are only for root, with unshare, nsenter and ip")
    test = f"{Path(__file__)}::{test_inside_two_networks.__name__}"
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        env=os.environ | {INSIDE: "1"}, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.startswith(".")  # it ran, and was not left out
