"""`--calibrate`: with known inputs a matrix loses less of its products, and the model is like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from squish.errors import InvalidInput
from squish.ipc.frames import QuantizeShards
from squish.models import recipes
from squish.worker.jobs.calibrate import usual_text
from squish.worker.jobs.compensate import also_looked_up, compensated, inputs
from squish.worker.jobs.quantize import quantize_shards
from tests.pull.shards import byte_tokenizer, in_shards, tiny_llama

RANDOM = np.random.default_rng(11)
MIXING = RANDOM.standard_normal((128, 128)) * np.exp(RANDOM.standard_normal(128))
X = mx.array((RANDOM.standard_normal((2, 300, 128)) @ MIXING).astype(np.float32))
WEIGHT = mx.array(RANDOM.standard_normal((48, 128)).astype(np.float32))


def lost(triple: tuple[mx.array, ...], bits: int, group: int, weight: mx.array = WEIGHT) -> float:
    """The squared error of the products."""
    packed, scales, offsets = triple
    rounded = mx.dequantize(packed, scales.astype(mx.float32), offsets.astype(mx.float32), group, bits)
    difference = np.array(weight.astype(mx.float32) - rounded)
    return float(np.square(np.array(X) @ difference.T).sum())


def written(directory: Path) -> dict[str, mx.array]:
    """All arrays of a model."""
    files: list[Any] = [mx.load(str(path)) for path in directory.glob("*.safetensors")]
    return {name: array for each in files for name, array in each.items()}


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(
    "dtype", [mx.bfloat16, *(pytest.param(other, marks=pytest.mark.long) for other in (mx.float32, mx.float16))]
)
def test_products_with_such_inputs_lose_less_than_half(bits: int, dtype: mx.Dtype) -> None:
    weight = WEIGHT.astype(dtype)
    plain, found = mx.quantize(weight, 64, bits), compensated(weight, bits, 64, inputs(X, 64))
    assert [(each.shape, each.dtype) for each in found] == [(each.shape, each.dtype) for each in plain]
    assert lost(found, bits, 64, weight) < 0.5 * lost(tuple(plain), bits, 64, weight)


def test_inputs_that_never_vary_do_no_harm() -> None:
    dead = X * mx.array(np.arange(128) % 2)
    found = compensated(WEIGHT, 4, 32, also_looked_up(inputs(dead, 32)))
    none = compensated(WEIGHT, 4, 32, inputs(mx.zeros((40, 128)), 32))
    for triple in (found, none):
        assert all(mx.isfinite(each.astype(mx.float32)).all().item() for each in triple)
    assert lost(found, 4, 32) < lost(tuple(mx.quantize(WEIGHT, 32, 4)), 4, 32)


def test_a_model_is_written_whole_and_every_matrix_that_multiplies_was_calibrated(tmp_path: Path) -> None:
    source, out, plain = tmp_path / "source", tmp_path / "out", tmp_path / "plain"
    for name, content in (in_shards(*tiny_llama(), source, 2) | byte_tokenizer()).items():
        (source / name).write_bytes(content)
    shards = tuple(sorted(path.name for path in source.glob("*.safetensors")))
    headers = tmp_path / "headers"
    headers.mkdir()
    for shard in shards:
        (headers / f"{shard}.json").write_text("{}")
    done: list[float] = []
    for directory, recipe in ((plain, recipes.DEFAULT), (out, recipes.recipe("4", None, calibrated=True))):
        assert recipe is not None
        job = QuantizeShards(str(source), str(headers), str(directory), shards, recipe, text="one two three " * 60)
        assert quantize_shards(job, lambda phase, fraction: done.append(fraction)).complete
    ours, theirs = (written(directory) for directory in (out, plain))
    assert {name: each.shape for name, each in ours.items()} == {name: each.shape for name, each in theirs.items()}
    packed = [name.removesuffix(".scales") for name in ours if name.endswith(".scales")]
    assert all((ours[f"{name}.weight"] != theirs[f"{name}.weight"]).any().item() for name in packed)
    assert json.loads((out / "config.json").read_bytes()) == json.loads((plain / "config.json").read_bytes())
    assert done[-1] == 1.0


def test_names_and_options_say_the_same() -> None:
    chosen = recipes.recipe("3", 32, calibrated=True)
    assert recipes.tag(chosen) == "3bit-g32-calibrated"
    named = recipes.from_tag("3bit-g32-calibrated")
    assert named is not None and named.recipe == chosen
    assert recipes.from_tag("mxfp4-calibrated") is None
    for bits, search in (("none", False), ("mxfp4", False), ("4", True)):
        with pytest.raises(InvalidInput):
            recipes.recipe(bits, None, search, True)


def test_the_usual_text_comes_with_python() -> None:
    assert len(usual_text()) > 30_000
