"""The two systems' modules: the same names in both, and what macOS's kernel says read as it is meant.

No Mac runs these tests. What ctypes would call is a library of ours that fills the same structures, with values as a
16 GB machine reports them.
"""

from __future__ import annotations

import ast
import ctypes
import os
import plistlib
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest

from squish.system.host import HOST, Host, contract, linux, macos

PAGE = 16384
TOTAL = 16 << 30
# vm_stat of a 16 GB machine with a browser open, in pages.
PAGES = {
    "free": 12_000, "active": 310_000, "inactive": 290_000, "wired": 170_000, "purgeable": 9_000, "speculative": 15_000,
    "compressor": 140_000, "throttled": 0, "external": 240_000, "internal": 375_000,
}  # fmt: skip


class Kernel:
    """Stands in for the C library: sysctl values, the machine's pages, and what two processes take."""

    def __init__(self, **values: int) -> None:
        self.values = {"hw.memsize": TOTAL, "kern.memorystatus_vm_pressure_level": 1, "iogpu.wired_limit_mb": 0}
        self.values |= {name.replace("__", "."): value for name, value in values.items()}
        self.usage = {os.getpid(): (500 << 20, 700 << 20), 4242: (9 << 30, 10 << 30)}

    def sysctlbyname(self, name: bytes, value: Any, size: Any, new: None, length: Any) -> int:
        if name.decode() not in self.values:
            return -1
        width = 8 if name == b"hw.memsize" else 4
        value[:width] = self.values[name.decode()].to_bytes(width, "little")
        size._obj.value = width
        return 0

    @property
    def mach_host_self(self) -> Any:
        def call() -> int:
            return 771

        return call

    def host_statistics64(self, host: int, flavor: int, buffer: Any, count: Any) -> int:
        assert (host, flavor, count._obj.value) == (771, 4, 38)
        page = PAGES
        counts = struct.pack("<4I", page["free"], page["active"], page["inactive"], page["wired"])
        counts += struct.pack("<9Q", *range(9)) + struct.pack("<2I", page["purgeable"], page["speculative"])
        counts += struct.pack("<4Q", *range(4))
        counts += struct.pack("<4I", page["compressor"], page["throttled"], page["external"], page["internal"])
        buffer.raw = counts + struct.pack("<Q", 420_000)
        return 0

    def proc_pid_rusage(self, pid: Any, flavor: Any, buffer: Any) -> int:
        assert flavor.value == 4
        if pid.value not in self.usage:
            return -1
        now, most = self.usage[pid.value]
        fields = [0] * 36
        fields[7], fields[28] = now, most
        buffer[: 16 + 8 * 36] = bytes(16) + struct.pack("<36Q", *fields)
        return 0


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that is asked")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(macos, "libc", lambda: made)
    monkeypatch.setattr(macos, "_page_size", lambda: PAGE)
    monkeypatch.setattr(macos, "_this_host", lambda: 771)
    return made


def test_every_system_has_everything() -> None:
    """And nothing that only one of them has: whoever adds a function adds it to the contract."""
    names = {name for name in (*vars(Host), *Host.__annotations__) if not name.startswith("_")}
    for module in (linux, macos):
        assert {name for name in names if not hasattr(module, name)} == set(), module
    assert HOST in (linux, macos)


def test_no_other_module_asks_which_system_it_runs_on() -> None:
    root = Path(contract.__file__).parents[2]
    questions = {"sys.platform", "platform.system", "os.uname", "platform.mac_ver", "os.name"}
    may_ask = re.compile(r"\b(?:sys|platform|os)\s*\.\s*(?:platform|system|uname|mac_ver|name)\b")
    asking = set()
    for path in root.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if may_ask.search(source) else ():
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and f"{node.value.id}.{node.attr}" in questions
            ):
                asking.add(path.relative_to(root).parent.as_posix())
    assert asking == {"system/host"}


# ---- macOS


def test_memory_on_a_mac_is_what_programs_do_not_hold(kernel: Kernel) -> None:
    """Caches of files and purgeable pages are available; wired, compressed and programs' own pages are not."""
    found = macos.memory()
    assert found.total == TOTAL
    assert found.available == TOTAL - (170_000 + 140_000 + 375_000 - 9_000) * PAGE
    assert found.gpu == int(TOTAL * 0.67)


@pytest.mark.parametrize(
    ("total", "set_to", "gpu"),
    [(8 << 30, 0, int((8 << 30) * 0.67)), (64 << 30, 0, int((64 << 30) * 0.75)), (64 << 30, 57344, 57344 << 20)],
)
def test_the_gpu_has_a_share_or_what_the_user_sets(kernel: Kernel, total: int, set_to: int, gpu: int) -> None:
    kernel.values |= {"hw.memsize": total, "iogpu.wired_limit_mb": set_to}
    assert macos.memory().gpu == gpu


@on_linux
def test_what_the_kernel_does_not_say_psutil_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux the C library has none of these functions."""
    monkeypatch.setattr(macos, "libc", lambda: ctypes.CDLL(None))
    macos._this_host.cache_clear()
    found = macos.memory()
    assert found.total == psutil.virtual_memory().total
    assert 0 < found.available <= found.total
    assert macos.footprint(os.getpid()) is None
    assert macos.peak() > 0
    assert macos.pressure() == "normal"


@pytest.mark.parametrize(("level", "name"), [(1, "normal"), (2, "warning"), (4, "critical"), (7, "normal")])
def test_pressure_has_a_name(kernel: Kernel, level: int, name: str) -> None:
    kernel.values["kern.memorystatus_vm_pressure_level"] = level
    assert macos.pressure() == name


def test_a_process_takes_its_footprint(kernel: Kernel) -> None:
    assert macos.footprint(4242) == 9 << 30
    assert macos.footprint(1) is None
    assert macos.peak() == 700 << 20


@pytest.mark.parametrize(
    ("machine", "translated", "version", "words"),
    [
        ("arm64", 0, "14.0", None),
        ("arm64", 0, "26.1", None),
        ("arm64", 0, "13.6.4", "macOS 14 or later"),
        ("x86_64", 0, "14.0", "Intel"),
        ("x86_64", 1, "14.0", "Rosetta"),
    ],
)
def test_a_mac_that_mlx_does_not_run_on_is_told(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, machine: str, translated: int, version: str, words: str | None
) -> None:
    kernel.values["sysctl.proc_translated"] = translated
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.mac_ver", lambda: (version, ("", "", ""), machine))
    assert macos.version() == version
    reason = macos.unsuitable()
    assert (reason is None) if words is None else (reason is not None and words in reason)


def test_free_space_counts_what_the_system_would_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path).free
    said = [f"{free + 10**9}\n", "undefined\n", "1\n"]

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[0] == "/usr/bin/osascript"
        assert command[-1] == str(tmp_path)
        return subprocess.CompletedProcess(command, 0, said.pop(0), "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": free})())
    assert macos.free_space(tmp_path) == free + 10**9
    assert macos.free_space(tmp_path) == free
    assert macos.free_space(tmp_path) == free


def test_nothing_on_a_mac_is_a_developer_tool() -> None:
    """Apple's shims of these open an installation dialog; what is started lies in the base system."""
    source = Path(macos.__file__).read_text(encoding="utf-8")
    started = {word for word in source.split('"') if word.startswith(("/usr/", "/bin/"))}
    assert started == {"/usr/bin/osascript", "/usr/bin/caffeinate", "/bin/launchctl"}
    assert not macos.COMPILES


def test_an_agent_of_launchd_can_be_read_by_it(tmp_path: Path) -> None:
    command = ["/opt/py thon", "-m", "squish", "serve", "--api-key-file", "/Users/ö/key & more"]
    service = macos.service(tmp_path, command, tmp_path / "serve.log")
    agent = plistlib.loads(service.text.encode())
    assert agent["ProgramArguments"] == command
    assert agent["Label"] == service.path.stem == "squish.serve"
    assert agent["RunAtLoad"] is True
    assert service.path.parent == tmp_path / "Library" / "LaunchAgents"


# ---- Linux


@on_linux
def test_linux_reads_itself() -> None:
    reading = linux.memory()
    assert reading.gpu == 0
    assert 0 < reading.available <= reading.total
    mine = linux.footprint(os.getpid())
    assert mine is not None
    assert 0 < mine <= linux.peak()
    assert linux.awake_command(1) == ()


@on_linux
def test_memory_is_read_as_psutil_reads_it() -> None:
    assert linux.memory().total == psutil.virtual_memory().total
    with subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=PIPE, stdout=PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
        assert linux.footprint(child.pid) == psutil.Process(child.pid).memory_info().rss
        child.kill()
    assert linux.footprint(child.pid) is None


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    command = ["/bin/echo", "a b", 'with "quotes" and \\', "$HOME", "100%", "it's"]
    service = linux.service(tmp_path, command, tmp_path / "100% serve.log")
    service.path.parent.mkdir(parents=True)
    service.path.write_text(service.text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(service.path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert str(service.path.name) not in done.stderr
    assert done.returncode == 0, done.stderr
