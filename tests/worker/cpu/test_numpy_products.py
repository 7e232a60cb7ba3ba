"""Products by numpy equal MLX's own, and with them a model answers without a compiler and without the extension."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from squish.config.settings import Settings
from squish.models.store import Store
from squish.worker import device
from squish.worker.cpu.numpy_products import Products
from tests.conftest import MODEL
from tests.worker.cpu.opened import CACHE, native

pytestmark = pytest.mark.skipif(not device.on_cpu(), reason="a GPU has MLX's own")


@pytest.fixture(autouse=True)
def _seed() -> None:
    mx.random.seed(0)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1, 5), (1, 1, 3000), (2, 7, 64), (1, 300, 1000)])
def test_a_product_is_mlx_s(shape: tuple[int, int, int], threads: int) -> None:
    x, weight = mx.random.normal(shape), mx.random.normal((701, shape[-1]))
    found = Products(threads).with_weights(x, weight)
    expected = np.array(x).astype(np.float64) @ np.array(weight).astype(np.float64).T
    assert found.shape == (*shape[:2], 701)
    assert np.allclose(np.array(found), expected, rtol=1e-4, atol=1e-3)


def test_arrays_that_are_views_are_read_as_they_are() -> None:
    x, weight = mx.random.normal((64, 3)).T, mx.random.normal((64, 90))[:, 10:50].T
    assert mx.allclose(Products(1).with_weights(x, weight), x @ weight.T, atol=1e-4)


@pytest.mark.parametrize(("length", "keys"), [(1, 1), (1, 70), (40, 40), (40, 70)])
@pytest.mark.parametrize("mask", ["none", "causal", "shared", "each", "of keys"])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_attention_is_mlx_s(length: int, keys: int, mask: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, heads, key_heads, size = 2, 6, 3, 16
    monkeypatch.setattr("squish.worker.cpu.numpy_products._SCORES", 4 * batch * heads * keys * step)
    q = mx.random.normal((batch, heads, length, size))
    k, v = (mx.random.normal((batch, key_heads, keys, size)) for _ in range(2))
    visible = {
        "none": None,
        "causal": "causal",
        "shared": mx.random.uniform(shape=(length, keys)) < 0.7,
        "each": mx.random.uniform(shape=(batch, 1, length, keys)) < 0.7,
        "of keys": mx.random.uniform(shape=(batch, 1, 1, keys)) < 0.7,
    }[mask]
    if isinstance(visible, mx.array):
        visible[..., 0] = True  # nobody sees nothing
    expected = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.25, mask=visible)
    found = Products(1).attention(q, k, v, 0.25, visible)
    assert found.shape == expected.shape
    assert mx.allclose(found, expected, atol=1e-5)


def printed(code: str, *arguments: Path, path: Path) -> list[str]:
    """Lines that `code` prints in a process of its own, whose PATH is this folder: without a compiler."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SQUISH_", "MLX_"))}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env={**kept, "PATH": str(path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# A process without the extension and without a compiler: PATH is empty. It says what it is warned of, and what a model
# answers. The first argument is a cache, the second the model, the third what is known of tokenizers.
WITHOUT_COMPILER = """
import sys
from pathlib import Path
from squish.worker.cpu import build
from squish.worker.cpu.install import compiles_first, install, prepare
cache = Path(sys.argv[1])
build.BUNDLED = cache / "nothing"
report = prepare(cache)
said = compiles_first(cache)
engine = install(report, cache)
sentences = [each.sentence for each in engine.warnings]
print(said, engine.kernel or engine.blas.kind, engine.precision, len(sentences), *sentences)
from mlx_lm import stream_generate
from squish.worker.model.load import load
from squish.worker.tokenizer.facts import Shelf
loaded = load(Path(sys.argv[2]), shelf=Shelf(Path(sys.argv[3])))
chat = loaded.tokenizer.apply_chat_template(
    [{"role": "user", "content": "What is the capital of Germany?"}], add_generation_prompt=True
)
print("".join(part.text for part in stream_generate(loaded.model, loaded.tokenizer, chat, max_tokens=7)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has no BLAS of its own")
def test_without_a_compiler_a_model_answers_and_one_warning_says_how(real_settings: Settings, tmp_path: Path) -> None:
    model = Store(real_settings.cache_dir).find(MODEL).path
    shelf = real_settings.worker_cache / "tokenizers"
    engine, *answer = printed(WITHOUT_COMPILER, tmp_path, model, shelf, path=tmp_path)
    said, kind, precision, warnings, warning = engine.split(" ", 4)
    assert (said, precision, warnings) == ("False", "float32", "1")
    assert kind in ("numpy", "system-openblas")
    through = "numpy" if kind == "numpy" else "the system's OpenBLAS"
    assert warning == (
        "The CPU engine is not in use (no C++ compiler was found), so models run slower, in float32 "
        f"through {through}. Install a C++ compiler, e.g. g++."
    )
    assert "Berlin" in " ".join(answer)


COMPILED_BEFORE = """
import sys
from pathlib import Path
from squish.worker.cpu.install import compiles_first, install, prepare
cache = Path(sys.argv[1])
report = prepare(cache)
print(compiles_first(cache))
engine = install(report, cache)
print(bool(engine.kernel), engine.warnings)
"""


def test_an_engine_that_came_compiled_needs_no_compiler_and_warns_of_nothing(tmp_path: Path) -> None:
    native()  # or there is none
    assert printed(COMPILED_BEFORE, CACHE, path=tmp_path) == ["False", "True ()"]
