"""mlx_lm.server beside ours, on the same weights."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from squish.bench.measure import Endpoint
from tests.bench.client import report, running, unique_prompt
from tests.ports import own_port


def mlx_lm(model: Path, plain: Path, ours: tuple[float, float]) -> None:
    """mlx_lm.server on a model directory, as shipped, and on the same weights as float32, made in `plain`."""
    in_float32(model, plain)
    for name, path, goals in (("as shipped", model, (50, 10)), ("float32", plain, (10, 2))):
        port = own_port()
        command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(path), "--port", str(port)]
        environment = dict(os.environ) | {"HF_HUB_OFFLINE": "1"}
        with running(command, port, environment, plain.with_suffix(".log")) as url:
            asyncio.run(compare(f"mlx_lm.server, {name}", url, str(path), ours, goals))


async def compare(name: str, url: str, model: str, ours: tuple[float, float], goals: tuple[int, int]) -> None:
    async with Endpoint(url, model) as server:
        await server.ask(unique_prompt(2), 2)
        ttft = (await server.ask(unique_prompt(512), 2)).first
        tps = (await server.ask(unique_prompt(4), 16)).tps
    report(f"{name}: TTFT, unique 512 tokens", ttft, "s")
    report(f"{name}: decode, one stream", tps, "tok/s")
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
