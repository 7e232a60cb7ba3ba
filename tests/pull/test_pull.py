"""Pulling a model: what reaches the disk, what is asked of the Hub, and what is not asked twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from squish.config.settings import Settings
from squish.download.disk import require_space
from squish.download.patience import Policy
from squish.errors import (
    ConfigError,
    CorruptModel,
    GatedRepo,
    HubError,
    HubUnreachable,
    InvalidInput,
    ModelNotFound,
    Offline,
    SquishError,
    StoreError,
    UnsupportedModel,
)
from squish.models.catalog import PackageSource, packaged_file
from squish.models.recipes import CompressionOptions
from squish.models.store import Store
from squish.pull.events import Progress, Pulled, PullEvent, PullStarted
from squish.pull.pull import pull
from squish.pull.stream import Pull
from tests.conftest import PATIENCE, share_compiled
from tests.local_hub import GOOD_TOKEN, Fault, LocalHub, tiny_model

REPO, WEIGHTS = "org/tiny", "model.safetensors"
MIB = 1024 * 1024
ROOT = Path(__file__).parents[2]  # from which a program can import tests
QUICK = Policy(attempts=3, first_delay=0.0, longest_wait=0.0, stall=PATIENCE)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


class Machine:
    """A home with a store, and what pulling there gives."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.settings = Settings(home=home, cache_dir=home / "models", hub_endpoint=endpoint, hf_token=GOOD_TOKEN)
        share_compiled(self.settings.worker_cache)
        self.store = Store(self.settings.cache_dir)

    def set(self, **values: object) -> None:
        fields = {name: getattr(self.settings, name) for name in Settings.__dataclass_fields__}
        self.settings = Settings(**(fields | values))

    def start(self, name: str, force: bool = False, as_name: str | None = None, policy: Policy = QUICK) -> Pull:
        """A pull of the files as they are."""
        return pull(
            name,
            settings=self.settings,
            store=self.store,
            force=force,
            as_name=as_name or (None if name.startswith("/") else name.partition("@")[0]),
            compression=CompressionOptions(None, explicit=True),
            policy=policy,
        )

    async def events(self, name: str, **options: Any) -> list[PullEvent]:
        async with self.start(name, **options) as found:
            return [event async for event in found]

    def pull(self, name: str, **options: object) -> Pulled:
        last = asyncio.run(self.events(name, **options))[-1]  # type: ignore[arg-type]
        assert isinstance(last, Pulled)
        return last

    def partial(self) -> list[Path]:
        return [path for path in (self.settings.cache_dir / ".partial").rglob("*") if path.is_file()]


@pytest.fixture
def machine(tmp_path: Path, hub: LocalHub) -> Machine:
    return Machine(tmp_path / "home", hub.url)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_repository_is_installed_with_its_weights_and_without_its_code(machine: Machine, hub: LocalHub) -> None:
    repo = hub.add_repo(REPO, tiny_model())
    events = asyncio.run(machine.events(REPO))
    assert events[0] == PullStarted(REPO, f"hub:{REPO}")
    assert isinstance(events[-1], Pulled)
    manifest = machine.store.find(REPO).manifest
    assert {file.path for file in manifest.files} == {
        "config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS
    }  # fmt: skip
    assert (manifest.source, manifest.revision, manifest.license) == (f"hub:{REPO}", repo.commit, "apache-2.0")
    assert (manifest.architecture, manifest.quantization, manifest.context_length) == ("llama", "f32", 2048)
    machine.store.verify(REPO)
    assert machine.partial() == []
    assert hub.sent("modeling_tiny.py") == hub.sent("pytorch_model.bin") == 0
    downloads = [event for event in events if isinstance(event, Progress) and event.phase == "download"]
    assert downloads[-1].done == downloads[-1].total == manifest.size


def test_an_installed_model_is_not_asked_for_again(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model())
    assert machine.pull(REPO).fresh
    seen = len(hub.requests)
    assert not machine.pull(REPO).fresh
    assert len(hub.requests) == seen
    assert machine.pull(REPO, force=True).fresh
    assert len(hub.requests) > seen


def test_a_cut_connection_goes_on_where_it_stopped(machine: Machine, hub: LocalHub) -> None:
    files = hub.add_repo(REPO, tiny_model(3 * MIB)).files
    hub.fault(WEIGHTS, Fault(cut_after=MIB), Fault(cut_after=MIB), Fault(cut_after=1000))
    machine.pull(REPO)
    assert hub.sent(WEIGHTS) == len(files[WEIGHTS])
    assert [each.headers.get("range") for each in hub.reads(WEIGHTS)] == [
        None, f"bytes={MIB}-", f"bytes={2 * MIB}-", f"bytes={2 * MIB + 1000}-"
    ]  # fmt: skip


def test_a_failed_pull_is_taken_up_by_the_next(machine: Machine, hub: LocalHub) -> None:
    files = hub.add_repo(REPO, tiny_model(2 * MIB)).files
    hub.fault(WEIGHTS, Fault(cut_after=MIB), *[Fault(status=500)] * 3)
    with pytest.raises(HubUnreachable) as caught:
        machine.pull(REPO)
    assert "continues where it stopped" in (caught.value.hint or "")
    assert machine.store.list() == []
    machine.pull(REPO)
    assert hub.sent(WEIGHTS) == len(files[WEIGHTS])
    assert hub.sent("config.json") == len(files["config.json"])
    assert machine.partial() == []


@pytest.mark.long  # so is one of several ranges, below
def test_a_killed_pull_is_taken_up_by_the_next(machine: Machine, hub: LocalHub) -> None:
    files = hub.add_repo(REPO, tiny_model(4 * MIB)).files
    hub.fault(WEIGHTS, Fault(hold_after=3 * MIB + MIB // 2))
    script = f"""
import asyncio
from pathlib import Path
from tests.pull.test_pull import Machine
asyncio.run(Machine(Path({str(machine.settings.home)!r}), {hub.url!r}).events({REPO!r}))
"""
    part = machine.settings.cache_dir / ".partial" / "org--tiny" / "parts" / f"{WEIGHTS}.part"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as child:
        until(lambda: part.exists() and part.stat().st_size >= 3 * MIB)
        child.send_signal(signal.SIGKILL)
    hub.release()
    assert machine.store.list() == []
    before = hub.sent(WEIGHTS)
    machine.pull(REPO)
    assert hub.sent(WEIGHTS) - before <= len(files[WEIGHTS]) - 3 * MIB
    machine.store.verify(REPO)


RANGED = Policy(attempts=3, first_delay=0.0, longest_wait=0.0, stall=PATIENCE, span=2 * MIB)


def test_a_large_file_comes_in_several_ranges_at_once(machine: Machine, hub: LocalHub) -> None:
    files = hub.add_repo(REPO, tiny_model(9 * MIB)).files
    hub.fault(WEIGHTS, *[Fault(hold_after=MIB)] * 4)
    requests = 0

    async def watch() -> None:
        nonlocal requests
        async with machine.start(REPO, policy=RANGED) as events:
            async for event in events:
                held = [each for each in hub.reads(WEIGHTS) if each.sent == MIB]
                if isinstance(event, Progress) and len(held) == 4 and not hub.released.is_set():
                    requests = len(hub.reads(WEIGHTS))
                    hub.release()

    asyncio.run(watch())
    assert requests == 4, "as many as there are connections"
    assert hub.sent(WEIGHTS) == len(files[WEIGHTS])
    machine.store.verify(REPO)


def test_ranges_of_a_killed_pull_are_taken_up_one_by_one(machine: Machine, hub: LocalHub) -> None:
    files = hub.add_repo(REPO, tiny_model(16 * MIB)).files
    held = [2 * MIB + 400_000, MIB + 700_000, MIB // 2, 3 * MIB + 400_000]
    hub.fault(WEIGHTS, *[Fault(hold_after=each) for each in held])
    script = f"""
import asyncio
from pathlib import Path
from squish.download.patience import Policy
from tests.pull.test_pull import Machine
asyncio.run(Machine(Path({str(machine.settings.home)!r}), {hub.url!r}).events({REPO!r}, policy=Policy(span={4 * MIB})))
"""
    sidecar = machine.settings.cache_dir / ".partial" / "org--tiny" / "parts" / f"{WEIGHTS}.json"

    def kept() -> int:
        found = json.loads(sidecar.read_bytes()) if sidecar.exists() else {}
        return sum(found.get("done", ()))

    least = sum(each // MIB * MIB for each in held)
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as child:
        until(lambda: kept() >= least)
        child.send_signal(signal.SIGKILL)
    hub.release()
    before = hub.sent(WEIGHTS)
    machine.pull(REPO, policy=RANGED)
    again = hub.sent(WEIGHTS) - before - (len(files[WEIGHTS]) - sum(held))
    assert 0 <= again <= 4 * MIB, "at most a chunk of each range that was open"
    machine.store.verify(REPO)


def test_a_range_that_is_cut_goes_on_where_it_stopped(machine: Machine, hub: LocalHub) -> None:
    files = hub.add_repo(REPO, tiny_model(9 * MIB)).files
    hub.fault(WEIGHTS, *[Fault(cut_after=each) for each in (MIB, 1000, 2 * MIB - 1, MIB, 5)])
    machine.pull(REPO, policy=RANGED)
    assert hub.sent(WEIGHTS) == len(files[WEIGHTS])


@pytest.mark.parametrize(
    "fault", [Fault(ignore_range=True), pytest.param(Fault(corrupt=True, cut_after=MIB), marks=pytest.mark.long)]
)
def test_ranges_that_do_not_go_together_start_over(machine: Machine, hub: LocalHub, fault: Fault) -> None:
    hub.add_repo(REPO, tiny_model(9 * MIB))
    hub.fault(WEIGHTS, fault)
    machine.pull(REPO, policy=RANGED)
    machine.store.verify(REPO)
    hub.add_repo(REPO, tiny_model(9 * MIB)).wrong_hashes[WEIGHTS] = "0" * 64
    before = hub.sent(WEIGHTS)
    with pytest.raises(CorruptModel, match="damaged"):
        machine.pull(REPO, force=True, policy=RANGED)
    assert hub.sent(WEIGHTS) - before < 10 * MIB, "what is wrong on the server is not fetched twice"


def test_stopping_a_pull_keeps_what_came(machine: Machine, hub: LocalHub) -> None:
    files = hub.add_repo(REPO, tiny_model(3 * MIB)).files
    hub.fault(WEIGHTS, Fault(hold_after=2 * MIB))

    async def stop() -> None:
        async with machine.start(REPO) as events:
            async for event in events:
                if isinstance(event, Progress) and event.done >= 2 * MIB - 300_000:
                    return

    asyncio.run(stop())
    hub.release()
    seen = [event for event in asyncio.run(machine.events(REPO)) if isinstance(event, Progress)]
    assert hub.sent(WEIGHTS) - len(files[WEIGHTS]) < MIB // 2, "no more than what was on its way"
    first = next(event for event in seen if event.phase == "download")
    assert first.done >= 2 * MIB - 300_000, "what is there counts from the start"
    assert (first.speed, first.eta) == (None, None)


def test_a_file_that_changed_on_the_server_starts_over(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model(2 * MIB))
    hub.fault(WEIGHTS, Fault(cut_after=MIB), *[Fault(status=500)] * 3)
    with pytest.raises(HubUnreachable):
        machine.pull(REPO)
    changed = tiny_model(2 * MIB)
    changed[WEIGHTS] = changed[WEIGHTS][:-4] + b"\x00" * 4
    repo = hub.add_repo(REPO, changed)
    before = hub.sent(WEIGHTS)
    machine.pull(REPO)
    assert hub.sent(WEIGHTS) - before == len(changed[WEIGHTS])
    assert machine.store.find(REPO).manifest.revision == repo.commit
    machine.store.verify(REPO)


def test_a_server_that_ignores_ranges_is_read_from_the_start(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model(2 * MIB))
    hub.fault(WEIGHTS, Fault(cut_after=MIB), Fault(ignore_range=True))
    machine.pull(REPO)
    machine.store.verify(REPO)


def test_a_damaged_beginning_is_thrown_away_once(machine: Machine, hub: LocalHub) -> None:
    files = hub.add_repo(REPO, tiny_model(2 * MIB)).files
    hub.fault(WEIGHTS, Fault(cut_after=MIB, corrupt=True))
    machine.pull(REPO)
    machine.store.verify(REPO)
    assert hub.sent(WEIGHTS) == 2 * len(files[WEIGHTS])


def test_a_file_with_another_hash_is_never_installed(machine: Machine, hub: LocalHub) -> None:
    for file in (WEIGHTS, "config.json"):
        repo = hub.add_repo(REPO, tiny_model())
        repo.wrong_hashes[file] = "0" * (64 if file == WEIGHTS else 40)
        with pytest.raises(CorruptModel, match=file.replace(".", r"\.")):
            machine.pull(REPO)
        assert machine.store.list() == []


def test_more_bytes_than_announced_are_refused(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model())
    hub.fault(WEIGHTS, *[Fault(extra=b"x" * 100_000)] * 2)
    with pytest.raises(CorruptModel, match=r"more of model\.safetensors than it announced") as caught:
        machine.pull(REPO)
    assert "another repository" in (caught.value.hint or "")
    hub.fault(WEIGHTS, Fault(extra=b"x" * 100_000))
    assert machine.pull(REPO).fresh, "once may be an accident"


def test_a_busy_server_is_asked_again_when_it_says(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model())
    hub.fault(WEIGHTS, Fault(status=429, retry_after="0", at_hub=True), Fault(status=503, retry_after="²"))
    machine.pull(REPO)
    assert [each.status for each in hub.requests if each.file == WEIGHTS] == [429, 302, 503, 302, 200]


def test_a_server_that_falls_silent_is_left(machine: Machine, hub: LocalHub) -> None:
    files = hub.add_repo(REPO, tiny_model(2 * MIB)).files
    hub.fault(WEIGHTS, Fault(hold_after=MIB))
    machine.pull(REPO, policy=Policy(attempts=1000, first_delay=0.0, stall=0.3))  # a busy machine falls silent too
    assert not hub.released.is_set(), "the first connection would be silent still"
    assert hub.sent(WEIGHTS) >= len(files[WEIGHTS])
    machine.store.verify(REPO)


def test_the_token_goes_to_the_hub_and_not_to_the_cdn(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model())
    machine.pull(REPO)
    sent = {each.server: set() for each in hub.requests}  # type: dict[str, set[str | None]]
    for each in hub.requests:
        sent[each.server].add(each.headers.get("authorization"))
    assert sent == {"hub": {f"Bearer {GOOD_TOKEN}"}, "cdn": {None}}


def test_a_gated_repository_says_where_to_accept_its_license(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model(), gated=True)
    machine.set(hf_token="hf_other")
    with pytest.raises(GatedRepo) as caught:
        machine.pull(REPO)
    assert f"{hub.url}/{REPO}" in (caught.value.hint or "")
    machine.set(hf_token=GOOD_TOKEN)
    assert machine.pull(REPO).fresh


def test_a_repository_that_does_not_exist(machine: Machine, hub: LocalHub) -> None:
    with pytest.raises(ModelNotFound, match="org/none is not on the Hub") as caught:
        machine.pull("org/none")
    assert caught.value.hint
    with pytest.raises(ModelNotFound) as caught:
        machine.pull("someone/SmolLM2-135M")
    assert "smollm2:135m" in (caught.value.hint or "")
    with pytest.raises(ModelNotFound) as caught:
        machine.pull("mlx-community/Qwen3-8B-4bit", as_name="qwen3:8b")
    assert "qwen3:8b," not in (caught.value.hint or ""), "what is not there is not advised"
    hub.add_repo(REPO, tiny_model())
    with pytest.raises(ModelNotFound, match="revision"):
        machine.pull(f"{REPO}@v9")
    with pytest.raises(ModelNotFound, match="catalog") as caught:
        machine.pull("smolm2:135m")
    assert "smollm2:135m" in (caught.value.hint or "")


def test_a_file_that_went_missing_after_it_was_listed(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model())
    hub.fault(WEIGHTS, Fault(status=404))
    with pytest.raises(HubError, match="404"):
        machine.pull(REPO)


def test_a_hub_that_cannot_be_reached(machine: Machine) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        machine.set(hub_endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(HubUnreachable) as caught:
            machine.pull(REPO)
    assert "HF_ENDPOINT" in (caught.value.hint or "")


def test_a_file_of_certificates_that_is_none_is_named(
    machine: Machine, hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for name, problem in (("gone.pem", "cannot be read: No such file"), ("ca.pem", "holds no certificates")):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        with pytest.raises(ConfigError, match=f"SSL_CERT_FILE names .*{name}, which {problem}"):
            machine.pull(REPO)
    assert not hub.requests


def test_offline_no_connection_is_tried(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a connection was tried")

    machine.set(offline=True)
    monkeypatch.setattr("squish.pull.sources.packaged_file", lambda source: None)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in (REPO, "smollm2", "llama3.1:8b"):
        with pytest.raises(Offline, match="SQUISH_OFFLINE"):
            machine.pull(name)


def test_two_pulls_at_once_share_one_download(machine: Machine, hub: LocalHub) -> None:
    files = hub.add_repo(REPO, tiny_model(2 * MIB)).files

    async def both() -> list[list[PullEvent]]:
        return list(await asyncio.gather(machine.events(REPO), machine.events(REPO)))

    ends = [events[-1] for events in asyncio.run(both())]
    assert sorted(end.fresh for end in ends if isinstance(end, Pulled)) == [False, True]
    assert hub.sent(WEIGHTS) == len(files[WEIGHTS])


def test_a_disk_without_room_is_noticed_before_the_download(
    machine: Machine, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo(REPO, tiny_model())
    usage = shutil.disk_usage(Path.cwd())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StoreError, match="free"):
        machine.pull(REPO)
    assert hub.sent(WEIGHTS) == 0


def test_a_small_file_does_not_ask_for_much_more_room_than_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(Path.cwd())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=130_000_000))
    require_space(tmp_path, 100_000_000)
    with pytest.raises(StoreError, match=r"The disk has 130 MB free; this needs 137 MB\."):
        require_space(tmp_path, 120_000_000)


def test_names_that_leave_the_directory_are_not_taken(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model() | {"../evil.json": b"{}", "/abs.json": b"{}", "sub/../../up.json": b"{}"})
    machine.pull(REPO)
    assert [path for path in machine.settings.home.rglob("*.json") if path.name in ("evil.json", "up.json")] == []
    hub.add_repo("org/gguf", {"../evil-Q8_0.gguf": b"GGUF"})
    with pytest.raises(HubError, match="not safe"):
        machine.pull("org/gguf:Q8_0")


@pytest.mark.parametrize(
    "name",
    [
        "C:\\evil.json", "C:evil.json", "nul\x00.json", "red\x1b[31m.json", "bell\x07.json", "turn\u202e.json",
        "new\nline.json", f"{'x' * 300}.json", "model\\..\\up.safetensors", "Config.json",
    ],
)  # fmt: skip
def test_a_name_that_is_not_safe_is_refused_before_a_byte_is_sent(machine: Machine, hub: LocalHub, name: str) -> None:
    hub.add_repo(REPO, tiny_model() | {name: b"{}"})
    with pytest.raises(HubError, match=r"not safe|upper and lower") as caught:
        machine.pull(REPO)
    assert caught.value.message.isprintable() and len(caught.value.message) < 160
    assert {each.path.partition("?")[0] for each in hub.requests} == {f"/api/models/{REPO}"}
    assert list((machine.settings.cache_dir / ".partial").iterdir()) == []


def test_a_repository_of_pickles_is_not_supported(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(UnsupportedModel, match="safetensors"):
        machine.pull(REPO)
    assert hub.sent("pytorch_model.bin") == 0


def test_an_architecture_that_is_not_run_leaves_no_bytes_behind(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model() | {"config.json": b'{"model_type": "made_up"}'})
    with pytest.raises(UnsupportedModel, match="made_up"):
        machine.pull(REPO)
    assert machine.partial() == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer.json": None}, f"{REPO} has no tokenizer"),
        ({"config.json": b'{"model_type": ["llama"]}'}, "does not name a model_type"),
        ({WEIGHTS: None, "adapters.safetensors": b"weights"}, r"no weights that can be taken as they are"),
        ({"model.safetensors.index.json": b"[1]"}, r"model\.safetensors\.index\.json of org/tiny cannot be read"),
    ],
)
def test_what_small_files_tell_is_refused_before_weights_are_sent(
    machine: Machine, hub: LocalHub, changed: dict[str, bytes | None], message: str
) -> None:
    files = tiny_model() | changed
    hub.add_repo(REPO, {name: content for name, content in files.items() if content is not None})
    with pytest.raises(UnsupportedModel, match=message):
        machine.pull(REPO)
    assert not hub.sent(WEIGHTS) and not hub.sent("adapters.safetensors")
    assert machine.partial() == []


def test_weights_beside_the_model_are_left_out(machine: Machine, hub: LocalHub) -> None:
    config = json.loads(tiny_model()["config.json"]) | {"quantization": {"bits": 4, "group_size": 64}}
    lie = {"config.json": json.dumps(config).encode()}
    hub.add_repo(REPO, tiny_model() | lie | {"adapters.safetensors": b"weights"})
    found = machine.pull(REPO).installed
    assert "adapters.safetensors" not in {file.path for file in found.manifest.files}
    assert found.manifest.quantization == "f32", "what the weights are, not what config.json says"


def test_a_missing_shard_is_named_before_weights_are_sent(machine: Machine, hub: LocalHub, tmp_path: Path) -> None:
    index = {"weight_map": {"model.norm.weight": WEIGHTS, "lm_head.weight": "model-00002.safetensors"}}
    files = tiny_model() | {"model.safetensors.index.json": json.dumps(index).encode()}
    hub.add_repo(REPO, files)
    with pytest.raises(UnsupportedModel, match=rf"model-00002\.safetensors of {REPO} is missing"):
        machine.pull(REPO)
    assert not hub.sent(WEIGHTS)
    with pytest.raises(CorruptModel, match=r"model-00002\.safetensors of copy is missing"):
        machine.pull(str(_write(tmp_path / "copy", files)))
    assert (machine.store.list(), machine.partial()) == ([], [])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b'{"model_type": "llama"}', f"{REPO} do not fit together: config.json lacks 'hidden_size'"),
        pytest.param(
            "config.json",
            tiny_model(2048)["config.json"],
            f"{REPO} do not fit together: Expected shape",
            marks=pytest.mark.long,
        ),
        pytest.param(WEIGHTS, tiny_model()[WEIGHTS][:-4], rf"{WEIGHTS} of {REPO} is damaged", marks=pytest.mark.long),
        pytest.param(
            "config.json",
            b'{"model_type": "llama", "hidden_size": "4"}',
            f"{REPO} do not fit together",
            marks=pytest.mark.long,
        ),
        ("tokenizer.json", b"{}", f"tokenizer of {REPO} cannot be loaded"),
    ],
)
def test_what_could_not_be_loaded_is_not_installed(
    machine: Machine, hub: LocalHub, file: str, content: bytes, message: str
) -> None:
    hub.add_repo(REPO, tiny_model() | {file: content})
    with pytest.raises(CorruptModel, match=message) as refused:
        machine.pull(REPO)
    assert "Error" not in refused.value.message
    assert (machine.store.list(), machine.partial()) == ([], [])


def test_a_variant_takes_the_one_gguf_file(machine: Machine, hub: LocalHub) -> None:
    hub.add_repo(REPO, {f"m-{name}.gguf": b"GGUF" for name in ("Q8_0", "Q4_K_M", "IQ4_XS")})
    with pytest.raises(SquishError):  # four bytes are no GGUF file
        machine.pull(f"{REPO}:q8_0")
    assert {each.file for each in hub.requests if each.server == "cdn"} == {"m-Q8_0.gguf"}
    for name in (REPO, f"{REPO}:Q5_K"):
        with pytest.raises(ModelNotFound) as caught:
            machine.pull(name)
        assert "Q4_K_M" in (caught.value.hint or "")
    hub.add_repo("org/plain", tiny_model())
    with pytest.raises(ModelNotFound) as caught:
        machine.pull("org/plain:Q8_0")
    assert "squish pull org/plain," in (caught.value.hint or "") and "Q8_0" not in (caught.value.hint or "")


def _write(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def test_a_local_directory_is_copied(machine: Machine, tmp_path: Path) -> None:
    source = _write(tmp_path / "My Model (v2)", tiny_model())
    installed = machine.pull(str(source)).installed
    assert installed.manifest.id == "my-model-v2"
    assert "modeling_tiny.py" not in {path.name for path in installed.path.iterdir()}
    assert not machine.pull(str(source)).fresh
    (source / "config.json").unlink()
    machine.store.verify("my-model-v2")
    assert machine.store.find(str(source)).manifest.id == "my-model-v2"


def test_a_snapshot_of_a_hub_cache_is_copied_and_other_links_are_not(machine: Machine, tmp_path: Path) -> None:
    cache = tmp_path / "hub" / "models--org--tiny"
    blobs, snapshot = _write(cache / "blobs", tiny_model()), cache / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    installed = machine.pull(str(snapshot), as_name="cached").installed
    assert not any(path.is_symlink() for path in installed.path.iterdir())
    secret = tmp_path / "secret.json"
    secret.write_bytes(b'{"key": "value"}')
    for target in (secret, Path("../secret.json"), tmp_path / "none"):
        source = _write(tmp_path / f"model-{target.name}-{target.is_absolute()}", tiny_model())
        (source / "chat.json").symlink_to(target)
        if target.name == "none":  # a link to nothing is no file at all
            assert machine.pull(str(source)).fresh
            continue
        with pytest.raises(UnsupportedModel, match=r"chat\.json .* outside"):
            machine.pull(str(source))
    (snapshot / "evil.json").symlink_to(secret)
    with pytest.raises(UnsupportedModel, match=r"evil\.json"):
        machine.pull(str(snapshot), as_name="cached:2")


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("here", [False, pytest.param(True, marks=pytest.mark.long)], ids=["hub", "directory"])
def test_a_byte_order_mark_before_json_does_no_harm(
    here: bool, machine: Machine, hub: LocalHub, tmp_path: Path
) -> None:
    files = tiny_model() | {"generation_config.json": b'{"eos_token_id": 0}'}
    marked = {name: MARK + content if name.endswith(".json") else content for name, content in files.items()}
    hub.add_repo(REPO, marked)
    installed = machine.pull(str(_write(tmp_path / "copy", marked)) if here else REPO).installed
    machine.store.verify(installed.manifest.id)
    found = {path.name: path.read_bytes() for path in installed.path.glob("*.json")}
    assert found == {name: files[name] for name in found} and "generation_config.json" in found


def test_the_address_of_a_page_is_a_name_also_at_another_hub(machine: Machine, hub: LocalHub) -> None:
    commit = hub.add_repo(REPO, tiny_model()).commit
    pages = ("", "/tree/main", "/blob/main/model.safetensors", f"/blob/{commit}/config.json?x=y")
    for page, place in zip(pages, ("https://huggingface.co", hub.url) * 2, strict=True):
        pulled = machine.pull(f"{place}/{REPO}{page}", as_name="it", force=True)
        assert pulled.installed.manifest.source == f"hub:{REPO}"


def test_a_pipe_is_no_model(machine: Machine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(UnsupportedModel, match="neither a regular file"):
        machine.pull(str(tmp_path / "pipe.gguf"))


def test_a_name_that_is_taken_by_another_file_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.pull(str(_write(tmp_path / "a" / "model", tiny_model())))
    other = _write(tmp_path / "b" / "model", tiny_model())
    with pytest.raises(InvalidInput, match="installed from"):
        machine.pull(str(other))
    assert machine.pull(str(other), as_name="other:v1").installed.manifest.id == "other:v1"


def test_a_path_that_does_not_exist(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="does not exist"):
        machine.pull(f"{tmp_path}/none.gguf")


def test_a_package_is_found_without_running_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "carrier", {"__init__.py": b"raise SystemExit", "m.gguf": b"GGUF"})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert packaged_file(PackageSource("carrier", "m.gguf")) == tmp_path / "carrier" / "m.gguf"
    assert packaged_file(PackageSource("carrier", "other.gguf")) is None
    assert packaged_file(PackageSource("no_such_carrier", "m.gguf")) is None
    assert "carrier" not in sys.modules
