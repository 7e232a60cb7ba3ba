"""`make bench`: what Squish does, as ratios within one run on this machine.

    python -m tests.bench                  ourselves: streams, batch, prefix cache, fairness
    python -m tests.bench --peer           also mlx_lm.server on the same model, as shipped and with float32 weights
    python -m tests.bench --llama PYTHON   also llama.cpp on the same GGUF, by that Python's llama-cpp-python[server]

Every prompt is unique, so that no cache helps where it should not. The same client asks both sides through HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import peers
from tests.bench.client import Server, free_port, report, running, unique_prompt
from tests.conftest import MODEL, SQUISH, clean_environment


async def ourselves(server: Server, long: str) -> tuple[float, float]:
    """Our own figures, and `long` left on disk; returns TTFT of 512 tokens, and tokens per second of one stream."""
    await server.ready()
    await server.stream(unique_prompt(64), 8)
    cold = statistics.median([(await server.stream(unique_prompt(512), 2)).ttft for _ in range(3)])
    single = statistics.median([(await server.stream(unique_prompt(16), 96)).tps for _ in range(3)])
    report("TTFT, unique 512 tokens", cold, "s")
    report("decode, one stream", single, "tok/s")
    await eight_streams(server, single)
    await repeated_prefix(server, cold)
    await fairness(server)
    await server.stream(long, 2)
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


async def after_a_restart(server: Server, prompt: str, cold: float) -> None:
    await server.ready()
    await server.stream(unique_prompt(64), 8)
    report("  TTFT of a prefix after a restart / cold", (await server.stream(prompt, 2)).ttft / cold, "", "goal: 0.4")


ALONE = """
import sys
from pathlib import Path
from squish.worker.cpu import blas
from squish.worker.cpu import kernels
kernels.prepare(Path(sys.argv[2]))
blas.prepare(Path(sys.argv[2]))
import mlx.core as mx
from mlx_lm import stream_generate
from squish.worker.cpu.attention import use_fused_attention
from squish.worker.cpu.rotary import use_short_rotation
from squish.worker.load import load
use_fused_attention()
use_short_rotation()
loaded = load(Path(sys.argv[1]))
speeds = []
for _ in range(4):
    for last in stream_generate(loaded.model, loaded.tokenizer, "Once upon a time", max_tokens=96):
        pass
    speeds.append(last.generation_tps)
print(sorted(speeds[1:])[1])
"""


def in_one_process(model: Path, cache_dir: Path) -> float:
    """Tokens per second of the same model in a plain loop of mlx-lm, with our BLAS and kernels."""
    command = [sys.executable, "-c", ALONE, str(model), str(cache_dir)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Squish, as ratios within one run.")
    parser.add_argument("--peer", action="store_true", help="also measure mlx_lm.server (takes ten minutes)")
    parser.add_argument("--llama", metavar="PYTHON", help="also llama.cpp, in that Python")
    arguments = parser.parse_args()
    print(f"load average at the start: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = clean_environment(home)
        subprocess.run([SQUISH, "pull", MODEL], env=environment, check=True, stderr=subprocess.DEVNULL)
        model = home / ".squish" / "models" / MODEL.replace(":", "+")
        port = free_port()
        server = [SQUISH, "serve", "--port", str(port)]
        url = f"http://127.0.0.1:{port}"
        long = unique_prompt(512)
        with running(server, environment):
            ours = asyncio.run(ourselves(Server(url, MODEL), long))
        with running(server, environment):
            asyncio.run(after_a_restart(Server(url, MODEL), long, ours[0]))
        alone = in_one_process(model, home / ".squish" / "cache")
        report("decode, in one process without a server", alone, "tok/s")
        report("  one stream through HTTP / that", ours[1] / alone, "", "goal: 0.95")
        if arguments.llama:
            peers.llama(arguments.llama, ours)
        if arguments.peer:
            peers.mlx_lm(model, home / "float32", ours)
    print(f"load average at the end: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
