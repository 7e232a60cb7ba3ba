"""`squish doctor`: what it finds, how it says to fix it, and what it never shows."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from squish.api.clients.keys import ApiKey, KeyFile
from squish.api.clients.usage import UsageFile
from squish.chats.chats import Chats
from squish.config.settings import Settings
from squish.doctor.computer import machine, packages, places
from squish.doctor.engine import probe
from squish.doctor.examine import unknown_variables
from squish.doctor.finding import Finding, line
from squish.doctor.kept import kept
from squish.doctor.models import store
from squish.doctor.network import hub, port
from squish.errors import StoreError
from squish.models.store import directory_name
from squish.system.probed import BYTES_OF_A_WEIGHT, Probed
from squish.worker.cpu import build
from tests.conftest import MODEL, share_compiled

Squish = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"HOME": str(tmp_path), "SQUISH_OFFLINE": "1", "SQUISH_PORT": "0"})


def only(findings: Iterator[Finding], topic: str) -> Finding:
    [found] = [finding for finding in findings if finding.topic == topic]
    return found


def test_a_machine_that_works_is_well(squish: Squish) -> None:
    done = squish("doctor", "--json", SQUISH_OFFLINE="1", SQUISH_PORT="0")
    findings = {finding["topic"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert {"config", "machine", "memory", "disk", "MLX", "matrices", "versions", "models", "Hub"} <= set(findings)
    assert "GFLOP/s" in findings["matrices"]["reason"]
    assert findings["models"]["reason"].startswith("1 installed")
    assert all(finding["status"] != "broken" for finding in findings.values())


def test_what_is_broken_ends_with_1_and_says_how_to_fix_it(squish: Squish, tmp_path: Path) -> None:
    models = tmp_path / ".squish" / "models"
    for name in (directory_name(MODEL), "mine+7b", "no name"):
        (models / name).mkdir(parents=True)
    (models.parent / "config.toml").write_text("\nports = 3\nkeep_alive = 'x'\n")
    done = squish("doctor", HOME=str(tmp_path), SQUISH_OFFLINE="1", SQUISH_PORT="http", SQUISH_BLAS="fast")
    assert done.returncode == 1
    assert "→ unset SQUISH_BLAS" in done.stdout  # which also spares measuring the machine
    assert "SQUISH_PORT is 'http'" in done.stdout
    assert "→ unset SQUISH_PORT" in done.stdout
    assert "config.toml, line 2: ports is not a setting." in done.stdout
    assert "Did you mean port?" in done.stdout
    assert "config.toml, line 3: keep_alive must be a time" in done.stdout
    assert f"→ squish pull --force {MODEL}" in done.stdout
    assert "→ squish rm mine:7b" in done.stdout
    assert f"→ rm -r '{models / 'no name'}'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_file_that_lost_its_end_is_named(real_home: Path, tmp_path: Path) -> None:
    model = directory_name(MODEL)
    shutil.copytree(real_home / ".squish" / "models" / model, tmp_path / model)
    (tmp_path / model / "tokenizer.json").write_bytes(b"{}")
    environment = {"HOME": str(tmp_path), "SQUISH_CACHE_DIR": str(tmp_path)}
    [finding] = [each for each in store(Settings.from_environment(environment)) if each.status == "broken"]
    assert finding.reason.startswith(f"tokenizer.json of {MODEL} is gone")
    assert finding.fix and finding.fix.startswith(f"squish pull --force {MODEL}")


def damaged(path: Path) -> None:
    """As a disk leaves it that lost some of its blocks."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(path.stat().st_size - 4096))


def test_what_is_kept_in_the_home_is_looked_through(settings: Settings) -> None:
    home = settings.home
    assert list(kept(settings)) == []
    with closing(Chats(home / "chats.db")) as chats:
        chats.create("m", title="Moon")
    usage = UsageFile(home)
    usage.count("me", "m", requests=1)
    usage.flush()
    KeyFile(home).add(ApiKey(name="me", hash=""))
    assert [finding.status for finding in kept(settings)] == ["ok"]
    for name in ("chats.db", "usage.db"):
        damaged(home / name)
    (home / "keys.toml").write_text("[me\n")
    found = {finding.topic: finding for finding in kept(settings)}
    assert {topic: finding.status for topic, finding in found.items()} == {
        "chats": "broken", "keys": "broken", "usage": "warning"
    }  # fmt: skip
    assert "keys.toml is not valid TOML" in found["keys"].reason
    for topic in ("chats", "usage"):  # what it says to run helps
        command, _, _ = (found[topic].fix or "").partition("   ")
        subprocess.run(["sh", "-c", command], check=True)
    assert [finding.topic for finding in kept(settings)] == ["keys"]
    with closing(Chats(home / "chats.db")) as chats:
        chats.create("m", title="Sun")
        assert [chat.title for chat in chats.recent()] == ["Sun"]


def test_a_conversation_that_cannot_be_read_leads_to_the_doctor(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / "chats.db").write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="not a database") as refused:
        Chats(settings.home / "chats.db").recent()
    assert refused.value.hint == "squish doctor says how to go on."


def test_a_download_that_was_cut_off_is_listed_with_its_size(settings: Settings) -> None:
    partial = settings.cache_dir / ".partial" / directory_name("qwen3:8b")
    partial.mkdir(parents=True)
    (partial / "model.safetensors.part").write_bytes(b"x" * 5000)
    finding = only(store(settings), "downloads")
    assert (finding.status, "5 kB" in finding.reason) == ("warning", True)
    assert finding.fix and finding.fix.startswith("squish pull qwen3:8b")


def test_a_port_that_is_taken_names_who_has_it(settings: Settings) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        number = listener.getsockname()[1]
        environment = {"HOME": str(settings.home.parent), "SQUISH_PORT": str(number)}
        finding = only(port(Settings.from_environment(environment)), "port")
    assert finding.status == "warning"
    assert str(number) in finding.reason
    assert finding.fix == f"squish serve --port {min(number + 1, 65535)}"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "models"
    environment = {"HOME": str(tmp_path), "SQUISH_CACHE_DIR": str(place)}
    [finding] = places(Settings.from_environment(environment))
    assert (finding.status, finding.reason.startswith(str(place))) == ("warning", True)


def test_a_model_that_is_set_and_not_installed_is_named(tmp_path: Path) -> None:
    findings = store(Settings.from_environment({"HOME": str(tmp_path), "SQUISH_MODEL": "mine:7b"}))
    assert [finding.status for finding in findings if "mine:7b" in finding.reason] == ["warning"]


def test_drafts_that_cannot_guess_are_named(real_settings: Settings) -> None:
    settings = replace(real_settings, draft=((MODEL, MODEL), ("smollm2", MODEL)))
    found = [each.reason for each in store(settings) if each.topic == "drafts"]
    assert found == [
        f"{MODEL} cannot be the draft model of {MODEL}: it is that model.",
        "[draft] in config.toml has smollm2, which is not installed",
    ]
    gone = only(store(replace(real_settings, draft=((MODEL, "nope:1b"),))), "drafts")
    assert (gone.status, gone.reason) == ("warning", f"The draft model of {MODEL}, nope:1b, is not installed.")


def test_a_wrong_choice_of_blas_is_no_broken_mlx(squish: Squish) -> None:
    done = squish("doctor", "--json", SQUISH_OFFLINE="1", SQUISH_PORT="0", SQUISH_BLAS="fast")
    [finding] = [each for each in json.loads(done.stdout) if each["topic"] == "MLX"]
    assert (done.returncode, finding["fix"]) == (1, "unset SQUISH_BLAS")
    assert "ConfigError" not in finding["reason"]


def test_a_kernel_that_is_none_is_named_with_those_that_there_are(squish: Squish) -> None:
    done = squish("doctor", "--json", SQUISH_OFFLINE="1", SQUISH_PORT="0", SQUISH_CPU_KERNEL="fast")
    findings = json.loads(done.stdout)
    if not any("SQUISH_CPU_KERNEL" in finding["reason"] for finding in findings):
        assert not build.supported()
        return
    [finding] = [each for each in findings if each["status"] == "broken"]
    assert (done.returncode, finding["fix"]) == (1, "unset SQUISH_CPU_KERNEL")
    assert "SQUISH_CPU_KERNEL is 'fast'" in finding["reason"]


@pytest.mark.long
def test_what_computes_is_said_in_the_precision_that_is_set(squish: Squish) -> None:
    done = squish("doctor", "--json", SQUISH_OFFLINE="1", SQUISH_PORT="0", SQUISH_CPU_PRECISION="float32")
    found = [each["reason"] for each in json.loads(done.stdout) if each["topic"] == "CPU engine"]
    assert all(", float32, " in reason or "in float32 through" in reason for reason in found)


def test_the_cores_that_may_be_used_are_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: 16)
    for usable, said in ((3, "3 of 16 cores, because the affinity or a quota"), (16, "16 cores")):
        monkeypatch.setattr("squish.doctor.computer.cores", lambda usable=usable: usable)
        assert said in only(machine(settings), "machine").reason


ON_ONE_CORE = """
import os
from squish.api.clients.keys import ApiKey, KeyFile
from squish.api.clients.usage import UsageFile
from squish.chats.chats import Chats
from squish.config.settings import Settings
from squish.doctor.computer import machine
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print([finding.reason for finding in machine(Settings.from_environment()) if finding.topic == "machine"])
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux has an affinity")
def test_the_affinity_counts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_ONE_CORE], env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    count = psutil.cpu_count() or 1
    assert (f", 1 of {count} cores, because" if count > 1 else ", 1 core'") in done.stdout


@pytest.mark.long  # two seconds of measuring, which test_a_machine_that_works_is_well does too
def test_no_limit_is_exceeded_by_what_the_probe_itself_does(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "SQUISH_CPU_PRECISION": "float32"}
    share_compiled(tmp_path / ".squish" / "cache")
    probed = probe(Settings.from_environment(environment))
    assert isinstance(probed, Probed), probed
    assert probed.precision == "float32"
    assert 0 < probed.gflops <= probed.most_gflops
    assert probed.weights_per_ns * BYTES_OF_A_WEIGHT <= probed.read_gbps


def test_a_variable_that_nothing_reads_is_named() -> None:
    environment = {"SQUISH_CPU_PRECISON": "float32", "SQUISH_ZZZ": "1", "SQUISH_BLAS": "mlx", "HOME": "/"}
    found = {each.reason.split()[0]: each.fix for each in unknown_variables(environment)}
    assert found == {
        "SQUISH_CPU_PRECISON": "Did you mean SQUISH_CPU_PRECISION?",
        "SQUISH_ZZZ": "unset SQUISH_ZZZ; squish config show lists what can be set",
    }


def test_offline_asks_nobody(settings: Settings) -> None:
    assert [finding.status for finding in hub(settings)] == ["ok"]


def test_a_hub_that_cannot_be_reached_is_no_failure(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    [finding] = hub(Settings.from_environment(environment))
    assert finding.status == "warning"


@pytest.mark.parametrize(
    ("answer", "topic", "status"),
    [(200, "token", "ok"), (401, "token", "broken"), (503, "Hub", "warning")],
)
def test_the_token_is_checked_and_never_shown(tmp_path: Path, answer: int, topic: str, status: str) -> None:
    with whoami(answer) as (url, seen):
        environment = {"HOME": str(tmp_path), "HF_ENDPOINT": url, "HF_TOKEN": "hf_hushhush"}
        findings = list(hub(Settings.from_environment(environment)))
    assert seen == ["Bearer hf_hushhush"]
    assert [finding.status for finding in findings if finding.topic == topic] == [status]
    assert "hushhush" not in repr(findings)


@contextmanager
def whoami(status: int) -> Iterator[tuple[str, list[str | None]]]:
    """A Hub that gives every request this status, and the Authorization headers it was sent."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def test_versions_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["click>=99,<100", "absent>=1", "x; extra == 'y'"])
    broken = [finding for finding in packages(settings) if finding.status == "broken"]
    assert [finding.reason.split(";")[0].split()[0] for finding in broken] == ["absent", "click"]


def test_a_fix_that_names_a_file_cannot_control_the_terminal() -> None:
    assert "\x1b" not in line(Finding("models", "broken", "x", "rm -r 'a\x1b]52;c;aGk=\x07b'"))
