"""`make bench`: what Squish does, as ratios within one run on this machine.

    python -m tests.bench                  ourselves: streams, batch, prefix cache, fairness
    python -m tests.bench --peer           also mlx_lm.server on the same model, as shipped and with float32 weights

Every prompt is unique, so that no cache helps where it should not. The same client asks both sides through HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.conftest import MODEL, SQUISH, clean_environment

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
                (await self._client.get("/health")).raise_for_status()
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


async def ourselves(server: Server) -> tuple[float, float]:
    """Our own figures; returns TTFT of a 512-token prompt and tokens per second of one stream."""
    await server.ready()
    await server.stream(unique_prompt(64), 8)
    cold = statistics.median([(await server.stream(unique_prompt(512), 2)).ttft for _ in range(3)])
    single = statistics.median([(await server.stream(unique_prompt(16), 96)).tps for _ in range(3)])
    report("TTFT, unique 512 tokens", cold, "s")
    report("decode, one stream", single, "tok/s")
    await eight_streams(server, single)
    await repeated_prefix(server, cold)
    await fairness(server)
    return cold, single


async def eight_streams(server: Server, single: float) -> None:
    started = time.perf_counter()
    streams = await asyncio.gather(*(server.stream(unique_prompt(16), 96) for _ in range(8)))
    seconds = time.perf_counter() - started - min(each.ttft for each in streams)
    together = sum(len(each.pieces) for each in streams) / seconds
    report("decode, eight streams", together, "tok/s")
    report("  eight streams / one", together / single, "times", "goal: 3, aim 5")


async def repeated_prefix(server: Server, cold: float) -> None:
    prefix = unique_prompt(512)
    await server.stream(prefix, 2)
    warm = statistics.median([(await server.stream(f"{prefix} {unique_prompt(4)}", 2)).ttft for _ in range(3)])
    report("  TTFT of a repeated prefix / cold", warm / cold, "", "goal: at most 0.25")


async def fairness(server: Server) -> None:
    idle = statistics.median([(await server.stream(unique_prompt(16), 2)).ttft for _ in range(5)])
    running = asyncio.create_task(server.stream(unique_prompt(16), 160))
    await asyncio.sleep(1)
    busy = statistics.median([(await server.stream(unique_prompt(16), 2)).ttft for _ in range(3)])
    await running
    report("  TTFT of a short request beside a stream / idle", busy / idle, "", "goal: under 3")
    running = asyncio.create_task(server.stream(unique_prompt(16), 200))
    await asyncio.sleep(1)
    long = await server.stream(unique_prompt(1500), 2)
    stream = await running
    alone = (await server.stream(unique_prompt(1500), 2)).ttft
    report(
        "  longest gap while 1,500 tokens arrive / their prefill", stream.longest_gap / alone, "", "goal: under 0.35"
    )
    report("  TTFT of those 1,500 tokens beside a stream / alone", long.ttft / alone, "")


async def peer(name: str, path: Path, ours: tuple[float, float], goals: tuple[int, int]) -> None:
    """mlx_lm.server on a model directory, beside our figures."""
    port = free_port()
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(path), "--port", str(port)]
    with running(command, dict(os.environ) | {"HF_HUB_OFFLINE": "1"}):
        server = Server(f"http://127.0.0.1:{port}", str(path))
        await server.ready()
        await server.stream(unique_prompt(2), 2)
        ttft = (await server.stream(unique_prompt(512), 2)).ttft
        tps = (await server.stream(unique_prompt(4), 16)).tps
    report(f"mlx_lm.server, {name}: TTFT, unique 512 tokens", ttft, "s")
    report(f"mlx_lm.server, {name}: decode, one stream", tps, "tok/s")
    report("  its TTFT / ours", ttft / ours[0], "times", f"goal: {goals[0]}")
    report("  our decode / its", ours[1] / tps, "times", f"goal: {goals[1]}")


def in_float32(source: Path, target: Path) -> None:
    """The same model with its weights as float32, for a peer that does not convert by itself."""
    program = (
        "import sys, mlx.core as mx\n"
        "from mlx_lm.utils import dequantize_model, load, save\n"
        "model, tokenizer, config = load(sys.argv[1], return_config=True)\n"
        "model = dequantize_model(model)\n"
        "model.set_dtype(mx.float32)\n"
        "for key in ('quantization', 'quantization_config'): config.pop(key, None)\n"
        "save(sys.argv[2], sys.argv[1], model, tokenizer, config)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(source), str(target)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Squish, as ratios within one run.")
    parser.add_argument("--peer", action="store_true", help="also measure mlx_lm.server (takes ten minutes)")
    arguments = parser.parse_args()
    print(f"load average at the start: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = clean_environment(home)
        subprocess.run([SQUISH, "pull", MODEL], env=environment, check=True, stderr=subprocess.DEVNULL)
        port = free_port()
        with running([SQUISH, "serve", "--port", str(port)], environment):
            ours = asyncio.run(ourselves(Server(f"http://127.0.0.1:{port}", MODEL)))
        if arguments.peer:
            model = home / ".squish" / "models" / MODEL.replace(":", "+")
            asyncio.run(peer("as shipped", model, ours, (50, 10)))
            in_float32(model, home / "float32")
            asyncio.run(peer("float32", home / "float32", ours, (10, 2)))
    print(f"load average at the end: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
