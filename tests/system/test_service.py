"""`squish service` with a `systemctl` of ours that writes down what it is asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from squish.errors import SquishError
from squish.system import service
from squish.system.host import ServiceFile, linux, macos

Run = Callable[..., subprocess.CompletedProcess[str]]

SYSTEMCTL = """#!/bin/sh
cd "${0%/*}"
echo "$@" >> "asked"
case "$2" in
  is-active) cat "state"; test "$(cat "state")" = active ;;
  restart) echo active > "state" ;;
  disable) echo inactive > "state" ;;
esac
"""


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="launchctl has a path that is fixed")


@pytest.fixture
def systemctl(environment: dict[str, str], tmp_path: Path) -> Path:
    """The folder of a systemctl that is first in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text(SYSTEMCTL, encoding="utf-8")
    (folder / "systemctl").chmod(0o755)
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    (folder / "state").write_text("inactive", encoding="utf-8")
    return folder


@on_linux
def test_a_service_is_installed_asked_about_and_removed(
    squish: Run, systemctl: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("secret", encoding="utf-8")
    done = squish("service", "install", "--api-key-file", str(key), "--", "--port", "8080")
    assert done.returncode == 0, done.stderr
    assert (Path(environment["HOME"]) / ".squish").is_dir(), "neither system makes the log's folder"
    unit = linux.service(Path(environment["HOME"]), [], tmp_path).path
    text = unit.read_text(encoding="utf-8")
    assert f'"serve" "--port" "8080" "--api-key-file" "{key}"' in text
    assert "secret" not in text
    assert (systemctl / "asked").read_text(encoding="utf-8").splitlines() == [
        "--user daemon-reload",
        "--user enable squish.service",
        "--user restart squish.service",
    ]
    state = squish("service", "status")
    assert (state.returncode, state.stdout.startswith("running")) == (0, True)
    assert squish("service", "uninstall").returncode == 0
    assert not unit.exists()
    gone = squish("service", "status")
    assert gone.returncode == 1
    assert "squish service install" in gone.stderr


def test_a_key_in_the_environment_is_not_forgotten(squish: Run, systemctl: Path) -> None:
    done = squish("service", "install", SQUISH_API_KEY="secret")
    assert done.returncode != 0
    assert "--api-key-file" in done.stderr
    assert not (systemctl / "asked").exists()


def test_options_that_the_server_would_refuse_are_refused_at_once(squish: Run, systemctl: Path) -> None:
    done = squish("service", "install", "--", "--port", "99999")
    assert done.returncode == 2
    assert "99999" in done.stderr


def test_a_service_that_still_ends_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As launchd does it: what starts it is refused until the one before has ended."""
    waits: list[float] = []
    monkeypatch.setattr(service, "time", SimpleNamespace(sleep=waits.append))
    start = ("/bin/sh", "-c", f"echo x >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) -ge 3")
    described = ServiceFile(
        tmp_path / "agent", "text", tmp_path / "log", start=(start,), stop=(), state=("true",), patience=5
    )
    with pytest.raises(SquishError, match="exit code 1"):
        service.install(described)
    assert waits == [], "nothing was there that could still end"
    service.install(described)
    assert waits == [1]


def test_a_service_that_cannot_be_started_leaves_no_file(tmp_path: Path) -> None:
    missing = ((str(tmp_path / "launchctl"), "bootstrap"),)
    described = ServiceFile(tmp_path / "agent", "text", tmp_path / "log", start=missing, stop=missing, state=("true",))
    with pytest.raises(SquishError, match="is not on this machine"):
        service.install(described)
    assert not described.path.exists()
    described.path.touch()
    assert service.uninstall(described)
    assert not described.path.exists()


LOADED = """gui/501/squish.serve = {
	active count = 1
	state = running

	pid = 4242
	last exit code = (never exited)
	resource coalition = {
		state = active
	}
}
"""
FAILING = LOADED.replace("state = running", "state = spawn scheduled").replace("(never exited)", "78: EX_CONFIG")


@pytest.mark.parametrize(("printed", "running"), [(LOADED, True), (FAILING, False)])
def test_an_agent_that_is_loaded_need_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, running: bool
) -> None:
    """`launchctl print` ends with 0 for every agent that launchd knows."""
    agent = macos.service(tmp_path, ["squish"], tmp_path / "log")
    done = subprocess.CompletedProcess(agent.state, 0, printed, "")
    monkeypatch.setattr(service, "subprocess", SimpleNamespace(run=lambda command, **options: done))
    found = service.state(agent)
    assert found.running == running
    assert running or found.said == "last exit code = 78: EX_CONFIG"


@on_linux
def test_without_systemd_it_says_what_to_do(squish: Run, tmp_path: Path) -> None:
    done = squish("service", "install", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "systemctl is not on this machine" in done.stderr
