"""Over a real ssh to a real sshd on loopback, whose HOME is another machine's: starting, copying, cutting, refusing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from squish.cluster.group import ConnectedHosts
from squish.cluster.hosts import GroupHost, HostGroup
from squish.cluster.messages import CHUNK, Look, ModelThere, StartRank
from squish.cluster.sending import deliver
from squish.cluster.ssh import open_ssh
from squish.errors import EngineError, LoadFailed, WorkerDied
from squish.generation import GenerationRequest, SamplingParams, TextPrompt
from squish.ipc.group import Rank
from squish.models.store import Store
from squish.runtime import Runtime
from tests.cluster.machines import BIN, SshMachine, start
from tests.cluster.pairs import install, settings_of
from tests.conftest import home_settings, share_compiled
from tests.ports import own_port, own_ports
from tests.sessions.test_sessions import collect, text
from tests.worker.group import tiny

ID = "tiny:1b"
FILES = {"config.json": b"{}", "model.safetensors": os.urandom(12 * CHUNK + 17)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshMachine]:
    machine = start(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.close()


@pytest.fixture
def machine(running: SshMachine, monkeypatch: pytest.MonkeyPatch) -> SshMachine:
    monkeypatch.setenv("PATH", f"{running.ssh}:{os.environ['PATH']}")
    return running


def there(ssh: str = "elsewhere", squish: str = "squish") -> GroupHost:
    return GroupHost("there", "127.0.0.2", 11440, ssh, squish)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (there("nowhere"), "cannot be reached: .*Connection refused"),
        (there("stranger"), "does not know the host key"),
        (there("locked"), "does not let ssh in: .*Permission denied"),
        (there(squish="/no/such/squish"), "/no/such/squish cannot be run"),
        (there(squish="false"), "could not be started there"),
    ],
)
async def test_why_a_host_cannot_be_reached(machine: SshMachine, host: GroupHost, said: str) -> None:
    with pytest.raises(EngineError, match=said) as raised:
        await open_ssh(host, 1)
    assert raised.value.hint


async def test_another_version_of_squish_is_refused_by_name(machine: SshMachine, tmp_path: Path) -> None:
    old = machine.program(
        "old-squish",
        f'#!/bin/sh\necho Welcome to this machine\nexec {BIN / "python"} -c "import sys, squish; squish.__version__ = '
        "'0.0.9'; sys.argv[0] = 'squish'; from squish.cli import main; main()\" \"$@\"\n",
    )
    hosts = HostGroup((GroupHost("here", "127.0.0.1"), there(squish=old)))
    async with ConnectedHosts(hosts, settings_of(tmp_path), lambda text: None) as connected:
        with pytest.raises(LoadFailed, match=r"there: Squish is 0\.0\.9 there and .* here") as raised:
            await connected.connect()
        assert raised.value.hint and raised.value.hint.startswith("Install Squish")


async def test_a_copy_that_ssh_cuts_is_gone_on_with(machine: SshMachine, tmp_path: Path) -> None:
    model = install(tmp_path, ID, FILES)

    def cut(host: str, done: int, total: int) -> None:
        if done > CHUNK:
            machine.cut()

    connection = await open_ssh(there(), 1)
    with pytest.raises(WorkerDied, match="there is lost"):
        await deliver(connection, model, cut)
    await connection.close()
    again = await open_ssh(there(), 1)
    before = await again.ask(Look(ID, model.manifest.files), ModelThere)
    assert before.state == "absent" and CHUNK < before.partial < model.manifest.size
    await deliver(again, model, lambda *what: None)
    await again.close()
    Store(settings_of(machine.home).cache_dir).verify(ID)


async def test_a_rank_ends_with_the_connection_and_has_no_secret_in_its_arguments(
    machine: SshMachine, tmp_path: Path
) -> None:
    model = install(tmp_path, ID, {"config.json": b"{}"})
    connection = await open_ssh(there(), 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the rank connects, and waits for a word
        control = f"127.0.0.1:{silent.getsockname()[1]}"
        addresses = tuple(f"127.0.0.{number}:{own_port()}" for number in (1, 2))
        store = Store(settings_of(machine.home).cache_dir)
        if not (store.cache_dir / "tiny+1b").exists():
            await deliver(connection, model, lambda *what: None)
        rank = Rank(1, addresses, control, "the-secret-of-this-group", "", "")
        started = await connection.start_rank(StartRank(rank, ID))
        silent.setblocking(False)
        peer, _ = await asyncio.get_running_loop().sock_accept(silent)
        with peer:
            arguments = [
                each.info["cmdline"] or []  # of a process that has just ended nothing is known
                for each in psutil.process_iter(["cmdline"])
            ]
            assert any("squish.worker.group" in each for each in arguments)
            assert not any(rank.token in " ".join(each) for each in arguments)
            machine.cut()
            assert "there is lost" in await started.ended()
            assert await asyncio.get_running_loop().sock_recv(peer, 1 << 16) is not None
            while await asyncio.get_running_loop().sock_recv(peer, 1 << 16):
                pass  # its process has ended: the connection closes
    await started.close()
    assert connection.lost
    await connection.close()


async def test_a_group_over_ssh_answers_as_one_machine_does_and_comes_back_after_a_cut(
    machine: SshMachine, tmp_path: Path
) -> None:
    share_compiled(machine.home / ".squish" / "cache")
    settings = replace(home_settings(tmp_path), cpu_precision="float32", offline=True)
    tiny.install(Store(settings.cache_dir), "heads:tiny", "llama", key_heads=2, layers=2)
    installed = Store(settings.cache_dir).find("heads:tiny")
    request = GenerationRequest(
        "heads:tiny", (TextPrompt("Once upon a time"),), SamplingParams(temperature=0, max_tokens=8)
    )
    async with Runtime(settings) as runtime:
        alone = text(await collect(runtime, request), 0)
    ports = own_ports(3)
    hosts = HostGroup(
        (GroupHost("here", "127.0.0.1", ports[0]), replace(there(), port=ports[1])), control_port=ports[2]
    )
    async with ConnectedHosts(hosts, settings, lambda said: None) as connected:
        await connected.connect()
        connected.require_room(installed)
        await connected.deliver(installed, lambda *what: None)
        async with Runtime(settings, connected) as runtime:
            assert text(await collect(runtime, request), 0) == alone
            first = connected.connection(1)
            machine.cut()
            while not first.lost or any(each.state == "ready" for each in runtime.sessions.status()):
                await asyncio.sleep(0.01)
            assert text(await collect(runtime, request), 0) == alone
            assert connected.connection(1) is not first
