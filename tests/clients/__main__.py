"""`python -m tests.clients [NAME]...`: installs the programs named, or all, and runs them; says which got through."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.arguments import one_of
from tests.clients.checks import CHECKS, Check
from tests.clients.engine import RAN, server
from tests.clients.mcp_servers import SERVERS

FOLDER = Path(__file__).parent.parent.parent / "build" / "clients"
PROGRAMS, STANDARD = (Path(__file__).parent / name for name in ("programs", "standard"))
SECONDS = 600
LAST = 2_000  # characters of what a program that failed has printed


def main() -> int:
    """How many did not get through."""
    checks = (*CHECKS, *SERVERS)
    parser = argparse.ArgumentParser(prog="make clients", description=__doc__)
    parser.add_argument("names", nargs="*", type=one_of(check.name for check in checks), help="all, if none is named")
    names = parser.parse_args().names
    wanted = [check for check in checks if check.name in names or not names]
    failed = 0
    for check in wanted:
        try:
            last = install_and_run(check)
        except Failed as trouble:
            failed += 1
            print(f"failed  {check.name}\n{str(trouble)[-LAST:]}", flush=True)
        else:
            print(f"passed  {check.name}: {last}", flush=True)
    print(f"{len(wanted) - failed} of {len(wanted)} passed")
    return failed


class Failed(Exception):
    """What went wrong."""


def install_and_run(check: Check) -> str:
    """The last line that it printed. Raises Failed."""
    if trouble := install(check):
        raise Failed(trouble)
    return run(check)


def folder(check: Check) -> Path:
    """Each is installed by itself: what they need contradicts."""
    return FOLDER / check.name.split()[0]


def install(check: Check) -> str:
    """What went wrong; nothing for what is there."""
    place = folder(check)
    if (place / "installed").exists():
        return ""
    place.mkdir(parents=True, exist_ok=True)
    commands = []
    if check.pip:
        venv.create(place / "venv", with_pip=True)
        commands.append([str(place / "venv/bin/python"), "-m", "pip", "install", "--quiet", *check.pip])
    if check.npm:
        commands.append(["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(place), *check.npm])
    for command in commands:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"It cannot be installed: {done.stderr or done.stdout}"
    (place / "installed").touch()
    return ""


def run(check: Check) -> str:
    """The last line that it printed, in a home and a directory of its own. Raises Failed."""
    place = folder(check)
    with tempfile.TemporaryDirectory() as home, server(Path(home), real=check.real) as (url, sessions):
        work = Path(home) / "work"
        work.mkdir()
        path = [place / "node_modules/.bin", place / "venv/bin", Path(sys.executable).parent]
        environment = {
            "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]]),
            "HOME": home,
            "NODE_PATH": str(place / "node_modules"),
            "SQUISH_URL": url,
            "SQUISH_OFFLINE": "1",
        }
        filled = {"url": url, "programs": str(PROGRAMS), "standard": str(STANDARD)}
        command = [part.format_map(filled) for part in check.command]
        try:
            done = subprocess.run(
                command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Failed(f"It did not end within {SECONDS} s: {error.stdout!r} {error.stderr!r}") from None
    output = done.stdout + done.stderr
    if done.returncode:
        raise Failed(f"It ended with {done.returncode}: {output}")
    if check.expects not in done.stdout:
        raise Failed(f"It did not print {check.expects!r}: {output}")
    if check.tool and not any(RAN in result for result in sessions.seen):
        raise Failed(f"It did not run the tool (called: {sessions.called}, seen: {sessions.seen}): {output}")
    return done.stdout.strip().rpartition("\n")[2]


if __name__ == "__main__":
    sys.exit(main())
