"""`--search`: its scales are never worse than plain ones, and the model is like any other of its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squish.errors import InvalidInput
from squish.models import recipes
from squish.worker.jobs.rounding import importance, is_searched, searched
from tests.local_hub import TOKENIZER, LocalHub
from tests.pull.shards import byte_tokenizer, in_shards, tiny_llama, tiny_mixtral
from tests.pull.test_compress import Puller, as_mlx_lm_does, bits, config_of

FILES = {"tokenizer.json": TOKENIZER, "tokenizer_config.json": b"{}"}
DTYPES = (mx.float16, mx.bfloat16, mx.float32)


def weighted_error(weight: mx.array, triple: Any, size: int, group: int) -> Any:
    """The squared error of each group, as the search counts it."""
    packed, scales, offsets = (triple[0], *(each.astype(mx.float32) for each in triple[1:]))
    got = np.array(mx.dequantize(packed, scales, offsets, group, size)).reshape(-1, group)
    exact = np.array(weight.astype(mx.float32)).reshape(-1, group)
    return (importance(exact) * (got - exact) ** 2).sum(axis=1)


@settings(deadline=None, max_examples=40)
@given(
    size=st.sampled_from(recipes.AFFINE),
    group=st.sampled_from(recipes.GROUPS),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
    spread=st.sampled_from((1e-6, 0.02, 1.0, 100.0)),
    shift=st.sampled_from((0.0, 0.5, -3.0)),
    power=st.sampled_from((1, 3)),
)
def test_no_group_is_worse_than_by_plain_rounding(
    size: int, group: int, dtype: mx.Dtype, seed: int, spread: float, shift: float, power: int
) -> None:
    drawn = np.random.default_rng(seed).standard_normal((3, 5, 2 * group)).astype(np.float32)
    weight = mx.array((drawn**power + shift) * spread).astype(dtype)
    plain = mx.quantize(weight, group, size)
    found = searched(weight, size, group)
    assert [(each.shape, each.dtype) for each in found] == [(each.shape, each.dtype) for each in plain]
    ours, theirs = (weighted_error(weight, each, size, group) for each in (found, plain))
    assert (ours <= theirs * (1 + 1e-4) + 1e-30).all()


@pytest.mark.parametrize(("size", "kept"), [(2, 0.75), (3, 0.87), (4, 0.93), (5, 0.95)])
def test_weights_like_those_of_models_lose_less(size: int, kept: float) -> None:
    weight = mx.array(np.random.default_rng(3).standard_normal((64, 512)).astype(np.float32))
    found, usual = searched(weight, size, 64), mx.quantize(weight, 64, size)
    ours, plain = (weighted_error(weight, each, size, 64).sum() for each in (found, usual))
    assert ours < kept * plain


@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_where_errors_are_known_to_count_differently_they_lose_less(size: int) -> None:
    random = np.random.default_rng(5)
    weight = mx.array(random.standard_normal((2, 40, 128)).astype(np.float32))
    counts = [
        (each, np.exp(2 * random.standard_normal(128)).astype(np.float32)) for each in np.eye(2, 40, dtype="f4") + 1
    ]

    def lost(triple: Any) -> float:
        error = np.array(mx.square(mx.dequantize(triple[0], triple[1], triple[2], 64, size) - weight))
        return float(sum((error * rows[:, None] * columns).sum() for rows, columns in counts))

    assert lost(searched(weight, size, 64, counts)) < 0.75 * lost(mx.quantize(weight, 64, size))
    alone = searched(weight[1], size, 64, counts)
    assert all(
        mx.array_equal(whole[1], one).item()
        for whole, one in zip(searched(weight, size, 64, counts), alone, strict=True)
    )


def test_below_4_bits_what_the_residual_stream_gets_is_rounded_plainly() -> None:
    names = [f"model.layers.0.{each}" for each in ("self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")]
    assert not any(is_searched(name, 3) for name in names)
    assert all(is_searched(name, 4) for name in names)
    assert all(is_searched(name, 3) for name in ("model.embed_tokens", "lm_head", "model.layers.9.mlp.gate_proj"))


def test_a_pull_calibrates_once_all_shards_are_here(tmp_path: Path) -> None:
    options = recipes.CompressionOptions(
        recipes.recipe("4", None, calibrated=True), explicit=True, text="A text to calibrate with. " * 20
    )
    with LocalHub() as hub:
        hub.add_repo("org/full", in_shards(*tiny_llama(), tmp_path, 5) | byte_tokenizer())
        user = Puller(tmp_path / "home", hub.url)
        pulled = user.pull("org/full", options)
    assert pulled.installed.manifest.id == "org/full:4bit-calibrated"
    user.store.verify(pulled.installed.manifest.id)
    assert config_of(pulled)["quantization"] == {"group_size": 64, "bits": 4, "mode": "affine"}


@pytest.mark.parametrize("value", [0.0, 3.0, -1.5])
def test_a_group_of_one_value_stays_exact(value: float) -> None:
    weight = mx.full((4, 64), value, dtype=mx.float16)
    assert (mx.dequantize(*searched(weight, 4, 64), 64, 4) == weight).all()


def test_the_search_goes_by_groups_however_a_weight_is_cut() -> None:
    weight = mx.array(np.random.default_rng(5).standard_normal((2100, 64)).astype(np.float32))
    whole = searched(weight, 4, 64)
    halves = [searched(weight[:700], 4, 64), searched(weight[700:], 4, 64)]
    for each, *parts in zip(whole, *halves, strict=True):
        assert mx.array_equal(each, mx.concatenate(parts))


@pytest.mark.parametrize("make", [pytest.param(tiny_llama, marks=pytest.mark.long), tiny_mixtral])
def test_the_model_has_the_format_of_a_plain_one_and_other_numbers(make: Any, tmp_path: Path) -> None:
    weights, config = make()
    with LocalHub() as hub:
        hub.add_repo("org/full", in_shards(weights, config, tmp_path, 2) | FILES)
        pulled = Puller(tmp_path / "home", hub.url).pull("org/full", bits("4", search=True))
    assert pulled.installed.manifest.id == "org/full:4bit-search"
    found: dict[str, mx.array] = {}
    for path in pulled.installed.path.glob("*.safetensors"):
        found |= mx.load(str(path))  # type: ignore[operator, arg-type]
    expected = as_mlx_lm_does(weights, config, 4, 64)
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {k: (v.shape, v.dtype) for k, v in expected.items()}
    changed = {name for name in found if not mx.array_equal(found[name], expected[name])}
    quantized = {name.removesuffix(".scales") for name in expected if name.endswith(".scales")}
    assert {name.rpartition(".")[0] for name in changed} == quantized
    assert config_of(pulled)["quantization"] == {"group_size": 64, "bits": 4, "mode": "affine"}


@pytest.mark.parametrize("name", ["none", *recipes.MODES])
def test_what_has_no_scales_of_its_own_is_not_searched(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        recipes.recipe(name, search=True)
    assert caught.value.param == "--search"
    assert recipes.from_tag(f"{name}-search") is None


@pytest.mark.parametrize(("size", "group"), [("4", None), ("3", 32), ("mixed_3_6", None), ("mixed_4_6", 128)])
def test_a_tag_says_that_the_scales_were_searched(size: str, group: int | None) -> None:
    recipe = recipes.recipe(size, group, search=True)
    name = recipes.tag(recipe)
    assert name.endswith("-search")
    options = recipes.from_tag(name)
    assert options is not None
    assert options.recipe == recipe
