"""What the benchmarks share: prompts that nobody has seen, servers as processes, and how a figure is printed."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2

_WORDS = ("river", "stone", "lamp", "green", "seven", "paper", "north", "cloud", "apple", "winter", "glass", "road")
_START = 300.0


def unique_prompt(words: int) -> str:
    """About as many tokens as words, and never the same twice."""
    return " ".join(random.choice(_WORDS) for _ in range(words))


@contextmanager
def running(command: list[str], port: int, environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """A server until the block is left; gives its address once it answers. log: what it says."""
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as said, subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process:
        try:
            _wait(process, url, log)
            yield url
        finally:
            process.terminate()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end:
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise SystemExit("\n".join([f"A server ended with {process.returncode}; last it said:", *last]))
        try:
            if httpx2.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"The server at {url} does not answer; see {log}.")


def report(name: str, value: float, unit: str, goal: str = "") -> None:
    print(f"{name:<58}{value:>9.2f} {unit:<7}{goal}", flush=True)
