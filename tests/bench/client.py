"""What the benchmarks share: a client that times an OpenAI server's streams, and a process to serve them."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

_WORDS = ("river", "stone", "lamp", "green", "seven", "paper", "north", "cloud", "apple", "winter", "glass", "road")


@dataclass(frozen=True)
class Stream:
    """One streamed answer: seconds from the request to each piece of text."""

    started: float
    pieces: list[float]

    @property
    def ttft(self) -> float:
        return self.pieces[0]

    @property
    def tps(self) -> float:
        return (len(self.pieces) - 1) / (self.pieces[-1] - self.pieces[0])

    @property
    def longest_gap(self) -> float:
        return max(b - a for a, b in zip(self.pieces, self.pieces[1:], strict=False))


def unique_prompt(words: int) -> str:
    """About as many tokens as words, and never the same twice."""
    return " ".join(random.choice(_WORDS) for _ in range(words))


class Server:
    """An OpenAI server and the model to ask it for."""

    def __init__(self, url: str, model: str) -> None:
        self.model = model
        self._client = httpx2.AsyncClient(base_url=url, timeout=1800)

    async def stream(self, prompt: str, max_tokens: int) -> Stream:
        body = {"model": self.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True}
        started = time.perf_counter()
        pieces: list[float] = []
        async with self._client.stream("POST", "/v1/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {") and json.loads(line[6:])["choices"][0].get("text"):
                    pieces.append(time.perf_counter() - started)
        return Stream(started, pieces)

    async def ready(self) -> None:
        while True:
            try:
                (await self._client.get("/v1/models")).raise_for_status()
                return
            except httpx2.HTTPError:
                await asyncio.sleep(0.1)


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def report(name: str, value: float, unit: str, goal: str = "") -> None:
    print(f"{name:<58}{value:>9.2f} {unit:<7}{goal}", flush=True)
