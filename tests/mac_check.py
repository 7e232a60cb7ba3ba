"""`make mac-check`: what only a Mac can show, as a report to paste. Elsewhere it reports what this system says.

It changes nothing but a temporary home and takes some minutes: the demo model is installed and asked once.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from squish import files
from squish.system import ports
from squish.system.awake import awake
from squish.system.host import HOST
from squish.system.versions import summary

SQUISH = [sys.executable, "-P", "-m", "squish"]


def main() -> None:
    print(f"## {HOST.NAME} {HOST.version()} ({platform.release()}) {platform.machine()} · {summary()}\n")
    for name, check in CHECKS.items():
        print(f"### {name}")
        try:
            for line in check():
                print(f"    {line}", flush=True)
        except Exception as error:  # noqa: BLE001 - a report with a hole in it is still worth pasting
            print(f"    FAILED: {type(error).__name__}: {error}")
        print()


def machine() -> Iterator[str]:
    yield f"unsuitable: {HOST.unsuitable()}"
    yield f"memory: {HOST.memory()}"
    yield f"pressure: {HOST.pressure()}"
    yield f"this process: {HOST.footprint(os.getpid())} now, {HOST.peak()} at most"
    yield _said("ps", "-o", "rss=", "-p", str(os.getpid()))


def disk() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        before = time.monotonic()
        files.write_whole(Path(folder) / "a", b"x")
        yield f"one durable write: {(time.monotonic() - before) * 1000:.1f} ms"
        yield f"free: {HOST.free_space(Path(folder))}"
        yield _said("df", "-k", folder)


def sleep() -> Iterator[str]:
    with awake():
        yield _said("pmset", "-g", "assertions")


def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        yield f"taken: {[ports.is_taken(host, port) for host in ('127.0.0.1', '0.0.0.0')]}"
    yield f"localhost: {[each[4][0] for each in socket.getaddrinfo('localhost', 80, type=socket.SOCK_STREAM)]}"


def service() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        found = HOST.service(Path(folder), [*SQUISH, "serve"], Path(folder) / "log")
        path = Path(folder) / found.path.name
        path.write_text(found.text, encoding="utf-8")
        yield _said("plutil", "-lint", str(path))


def program() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"HOME": home}
        for command in (("doctor",), ("demo",), ("bench", "smollm2:135m", "--rounds", "1")):
            yield f"$ squish {' '.join(command)}"
            yield from _said(*SQUISH, *command, environment=environment).splitlines()


CHECKS: dict[str, Callable[[], Iterator[str]]] = {
    "machine": machine, "disk": disk, "sleep": sleep, "ports": listening, "service": service, "program": program,
}  # fmt: skip


def _said(*command: str, environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    return (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"


if __name__ == "__main__":
    main()
