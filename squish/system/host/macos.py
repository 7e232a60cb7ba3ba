"""macOS: what the kernel says through sysctl and Mach, launchd's agents, and never a developer tool.

/usr/bin/g++, make and python3 are shims there that open an installation dialog where Apple's tools are missing: nothing
here or elsewhere starts them. The kernel's values are read through ctypes; whatever cannot be read falls back to
psutil, or to a cautious value. None of it has been run on a Mac yet: docs/macos.md says what is tested how.
"""

from __future__ import annotations

import ctypes
import os
import platform
import plistlib
import resource
import shutil
import struct
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from squish.system.host.contract import MemoryReading, Pressure, ServiceFile
from squish.text import whole

NAME = "macOS"
MARKER = "darwin"
COMPILES = False

_OLDEST = (14, 0)  # what MLX's wheels are built for
_LABEL = "squish.serve"
_EXIT_SECONDS = 45

# Of memory, what the GPU may hold unless the user says otherwise: two thirds of a small machine's, three quarters of a
# large one's.
_SMALL, _LARGE, _LARGE_FROM = 0.67, 0.75, 36 << 30

_HOST_VM_INFO64 = 4
# struct vm_statistics64 up to internal_page_count: 4 counts of 32 bits, 9 of 64, 2 of 32, 4 of 64, 4 of 32.
_VM_STATISTICS = struct.Struct("=4I 9Q 2I 4Q 4I Q")
_WIRED, _PURGEABLE, _COMPRESSOR, _INTERNAL = 3, 13, 19, 22

_RUSAGE_INFO_V4 = 4
_RUSAGE_BYTES = 512  # more than the structure has
_PHYS_FOOTPRINT, _LIFETIME_MAX = 16 + 7 * 8, 16 + 28 * 8  # after 16 bytes of uuid, numbers of 64 bits

_PRESSURE: dict[int, Pressure] = {1: "normal", 2: "warning", 4: "critical"}

# Only Foundation knows how much the system would clear for a file that matters to the user; JavaScript is its front
# door that every Mac has.
_PURGEABLE_SCRIPT = """
ObjC.import('Foundation');
function run(argv) {
  const found = Ref();
  $.NSURL.fileURLWithPath(argv[0]).getResourceValueForKeyError(
    found, $.NSURLVolumeAvailableCapacityForImportantUsageKey, null);
  return ObjC.unwrap(found[0]);
}
"""
_SCRIPT_SECONDS = 10


def unsuitable() -> str | None:
    if platform.machine() != "arm64":
        if sysctl("sysctl.proc_translated") == 1:
            return (
                "This Python runs under Rosetta, where MLX does not work. Install Squish, in its folder, with an arm64 "
                "Python: uv tool install --python cpython-3.12-macos-aarch64 ."
            )
        return "Squish needs a Mac with Apple silicon (M1 or later): MLX does not run on Intel processors."
    parts = (whole(part) for part in platform.mac_ver()[0].split(".")[:2])
    version = tuple(part for part in parts if part is not None)
    if version and version < _OLDEST:
        return f"Squish needs macOS 14 or later, and this is {platform.mac_ver()[0]}: update it in System Settings."
    return None


def version() -> str:
    """Of macOS; the kernel under it, Darwin, counts in its own way."""
    return platform.mac_ver()[0] or platform.release()


def memory() -> MemoryReading:
    """available leaves out what is wired, compressed or programs' own; caches of files are available."""
    total = sysctl("hw.memsize") or _psutil_memory()[0]
    taken = _taken_pages()
    available = _psutil_memory()[1] if taken is None else max(0, total - taken * _page_size())
    return MemoryReading(total, available, _gpu_limit(total))


def pressure() -> Pressure:
    return _PRESSURE.get(sysctl("kern.memorystatus_vm_pressure_level") or 1, "normal")


def footprint(pid: int) -> int | None:
    """What Activity Monitor calls Memory: with what the process has on the GPU, without what it shares."""
    usage = _rusage(pid)
    return None if usage is None else _number(usage, _PHYS_FOOTPRINT)


def peak() -> int:
    usage = _rusage(os.getpid())
    if usage is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return _number(usage, _LIFETIME_MAX)


def free_space(directory: Path) -> int:
    """With what the system clears when a file that matters needs room: local snapshots, caches of iCloud."""
    free = shutil.disk_usage(directory).free
    command = ["/usr/bin/osascript", "-l", "JavaScript", "-e", _PURGEABLE_SCRIPT, str(directory.resolve())]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=_SCRIPT_SECONDS, check=True).stdout
        return max(free, int(float(printed)))
    except (OSError, subprocess.SubprocessError, ValueError, OverflowError):
        return free


def awake_command(pid: int) -> tuple[str, ...]:
    """Neither the idle timer (-i) nor, on mains, the lid-open system (-s) sleeps; the display may."""
    return ("/usr/bin/caffeinate", "-i", "-s", "-w", str(pid))


def application_settings(home: Path) -> Path:
    return home / "Library" / "Application Support"


def service(home: Path, command: Sequence[str], log: Path) -> ServiceFile:
    """An agent of launchd: it starts when the user logs in."""
    path = home / "Library" / "LaunchAgents" / f"{_LABEL}.plist"
    agent = {
        "Label": _LABEL,
        "ProgramArguments": list(command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ProcessType": "Interactive",  # else the system slows it down as it does background work
        "ExitTimeOut": _EXIT_SECONDS,
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    domain = f"gui/{os.getuid()}"
    return ServiceFile(
        path,
        plistlib.dumps(agent).decode(),
        log,
        start=(("/bin/launchctl", "bootstrap", domain, str(path)),),
        stop=(("/bin/launchctl", "bootout", f"{domain}/{_LABEL}"),),
        state=("/bin/launchctl", "print", f"{domain}/{_LABEL}"),
        runs="state = running",
        why="last exit code",
        patience=_EXIT_SECONDS,
    )


def sysctl(name: str) -> int | None:
    """An integer of the kernel's, of 4 or 8 bytes; None where it has none of this name."""
    value, size = ctypes.create_string_buffer(8), ctypes.c_size_t(8)
    try:
        failed = libc().sysctlbyname(name.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0))
    except (AttributeError, OSError):
        return None
    return None if failed or size.value not in (4, 8) else int.from_bytes(value.raw[: size.value], "little")


def libc() -> ctypes.CDLL:
    """The system's C library: sysctl, Mach and libproc are in it."""
    return ctypes.CDLL(None)


def _gpu_limit(total: int) -> int:
    """What `sudo sysctl iogpu.wired_limit_mb=…` has set, or what macOS gives by itself."""
    if limit := sysctl("iogpu.wired_limit_mb"):
        return min(total, limit << 20)
    return int(total * (_LARGE if total > _LARGE_FROM else _SMALL))


def _taken_pages() -> int | None:
    """Pages that nothing else can have at once: wired, held by the compressor, and programs' own."""
    buffer = ctypes.create_string_buffer(_VM_STATISTICS.size)
    count = ctypes.c_uint(_VM_STATISTICS.size // 4)
    try:
        failed = libc().host_statistics64(_this_host(), _HOST_VM_INFO64, buffer, ctypes.byref(count))
    except (AttributeError, OSError):
        return None
    if failed:
        return None
    pages = _VM_STATISTICS.unpack(buffer.raw)
    return int(pages[_WIRED] + pages[_COMPRESSOR] + max(0, pages[_INTERNAL] - pages[_PURGEABLE]))


@cache
def _this_host() -> int:
    """A port to the kernel; each call of mach_host_self would hold one more."""
    call = libc().mach_host_self
    call.restype = ctypes.c_uint
    return int(call())


def _page_size() -> int:
    return resource.getpagesize()


def _psutil_memory() -> tuple[int, int]:
    import psutil

    reading = psutil.virtual_memory()
    return reading.total, reading.available


def _rusage(pid: int) -> bytes | None:
    buffer = ctypes.create_string_buffer(_RUSAGE_BYTES)
    try:
        failed = libc().proc_pid_rusage(ctypes.c_int(pid), ctypes.c_int(_RUSAGE_INFO_V4), buffer)
    except (AttributeError, OSError):
        return None
    return None if failed else buffer.raw


def _number(usage: bytes, offset: int) -> int:
    return int.from_bytes(usage[offset : offset + 8], "little")
