"""How far from the machine's limits: what a token reads and computes, from files whose sizes are known."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squish.bench.limits import TokenCost, cost_of, limits, most
from squish.bench.measure import AnswerTiming, Figure
from squish.config.settings import Settings
from squish.errors import CorruptModel
from squish.models.store import Store
from squish.system.probed import Probed
from tests.bench.shape import RandomMatrix
from tests.conftest import MODEL
from tests.worker.gguf.writer import Q4_0, Blob, unpack

BITS = {"F16": 16, "U32": 32, "F32": 32}
PROBED = Probed("0", "d", "CPU", "b", None, "r", gflops=50.0, read_gbps=20.0, most_gflops=500.0)


def write(folder: Path, config: dict[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> Path:
    """A model directory whose weights are zeros."""
    header, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (offset, offset + size)}
        offset += size
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_packed_matrix_counts_its_numbers_and_its_bytes(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": ("F16", (10, 64)),
        "lm_head.weight": ("U32", (10, 8)),
        "lm_head.scales": ("F16", (10, 2)),
        "lm_head.biases": ("F16", (10, 2)),
        "model.norm.weight": ("F16", (64,)),
    }
    found = cost_of(write(tmp_path, {"quantization": {"group_size": 32, "bits": 4}}, tensors))
    every = 2 * 10 * 64
    assert found == TokenCost(read=10 * 8 * 4 + 2 * 10 * 2 * 2 + 64 * 2, operations=every, logits=every)


def test_bytes_are_those_in_memory_where_they_are_known(tmp_path: Path) -> None:
    tensors = {"model.embed_tokens.weight": ("F16", (10, 64)), "lm_head.weight": ("F16", (10, 64))}
    model = write(tmp_path, {}, tensors)
    assert cost_of(model, 2 * 10 * 64 * 4).read == 10 * 64 * 4
    assert cost_of(model).read == 10 * 64 * 2


def test_a_k_quant_counts_its_numbers(tmp_path: Path) -> None:
    tensors = {"lm_head.weight": ("U32", (10, 48)), "lm_head.scales": ("F32", (10, 16))}
    found = cost_of(write(tmp_path, {"quantization": {"bits": 6}, "squish_k_quants": {"lm_head": 6}}, tensors))
    assert found.operations == 2 * 10 * 256


def test_an_embedding_that_is_the_head_too_is_read(tmp_path: Path) -> None:
    found = cost_of(write(tmp_path, {}, {"model.embed_tokens.weight": ("F16", (10, 64))}))
    assert found == TokenCost(10 * 64 * 2, 2 * 10 * 64, 2 * 10 * 64)


@pytest.mark.parametrize("names", [("num_experts_per_tok", "num_local_experts"), ("moe_topk", "num_experts")])
def test_of_experts_a_token_reads_those_that_it_goes_through(tmp_path: Path, names: tuple[str, str]) -> None:
    tensors = {
        "lm_head.weight": ("F16", (4, 8)),
        "model.layers.0.mlp.switch_mlp.up_proj.weight": ("F16", (8, 4, 8)),
    }
    config = {"text_config": dict(zip(names, (2, 8), strict=True))}
    found = cost_of(write(tmp_path, config, tensors))
    assert found == TokenCost(4 * 8 * 2 + 2 * 4 * 8 * 2, 2 * (4 * 8 + 2 * 4 * 8), 2 * 4 * 8)


def test_the_real_model(real_settings: Settings) -> None:
    found = cost_of(Store(real_settings.cache_dir).find(MODEL).path)
    size = sum(file.stat().st_size for file in Store(real_settings.cache_dir).find(MODEL).path.glob("*.safetensors"))
    assert 0.99 * size < found.read < size
    assert found.operations == pytest.approx(2 * 134.5e6, rel=0.01)
    assert found.logits == 2 * 49152 * 576


@pytest.mark.parametrize("text", ["{", '{"a": ' + "[" * 100_000, "\xff"])
def test_damage_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CorruptModel, match=r"config\.json"):
        cost_of(tmp_path)


@pytest.mark.parametrize(
    ("embedding", "head"), [("model.embed_tokens", "lm_head"), ("model.tok_embeddings", "output"), ("wte", "")]
)
def test_a_prompt_makes_logits_once(tmp_path: Path, embedding: str, head: str) -> None:
    names = [embedding, *([head] if head else []), "model.layers.0.attention.output"]
    found = cost_of(write(tmp_path, {}, {f"{name}.weight": ("F16", (10, 64)) for name in names}))
    one = 2 * 10 * 64
    assert found == TokenCost(2 * 10 * 64 * 2, 2 * one, one)
    assert found.of_prompt(7) == 7 * one + one


def test_guessed_tokens_read_no_weights() -> None:
    """Each round by itself: how many are guessed depends on what the model says."""
    answers = (AnswerTiming(1.0, 2.0, 9, 0, 41, guessed=30), AnswerTiming(1.0, 3.0, 9, 0, 41, guessed=0))
    decode = Figure("decode, 1 stream", "tok/s", (40.0, 20.0), answers)
    assert decode.guessed == 30
    found = {each.name: each.values for each in limits([decode], TokenCost(10**9, 4 * 10**9), PROBED)}
    assert found["passes while decoding"] == (10.0, 20.0)
    assert found["read while decoding"] == (10.0, 20.0)


def test_what_was_reached_stands_beside_what_could_be() -> None:
    """Of a prompt the tokens count that it turned out to have, and those that were not cached."""

    def prefill(tokens: int, *took: tuple[int, int, float]) -> Figure:
        answers = tuple(AnswerTiming(first, first, prompt, cached, 2) for prompt, cached, first in took)
        return Figure(f"first token, {tokens} tokens", "s", tuple(first for *_, first in took), answers=answers)

    figures = [
        prefill(100, (100, 0, 0.5)),
        prefill(200, (199, 0, 2.0), (208, 9, 4.0)),
        Figure("first token, 200 tokens again", "s", (0.1,)),
        Figure("decode, 1 stream", "tok/s", (10.0,), answers=(AnswerTiming(1.0, 2.0, 9, 0, 11),)),
    ]
    found = {
        each.name: (each.unit, each.values) for each in limits(figures, TokenCost(10**9, 4 * 10**9, 10**9), PROBED)
    }
    assert found == {
        "bytes read per pass": ("MB", (1000.0,)),
        "passes while decoding": ("per second", (10.0,)),
        "read while decoding": ("GB/s", (10.0,)),
        "memory, at most": ("GB/s", (20.0,)),
        "prefill, 200 tokens": ("GFLOP/s", (299.0, 149.5)),
        "products, at most": ("GFLOP/s", (500.0,)),
    }
    assert [each.name for each in limits([], TokenCost(1, 1), PROBED)][1] == "memory, at most"


def test_the_higher_limit_counts() -> None:
    busy = Probed("0", "d", "CPU", "b", None, "r", gflops=50.0, read_gbps=30.0, most_gflops=100.0)
    found = most(PROBED, busy)
    assert (found.read_gbps, found.most_gflops) == (30.0, 500.0)


def test_random_weights_are_spread_like_trained_ones() -> None:
    matrix = RandomMatrix((64, 2048), Q4_0, b"", 3)
    content = matrix.content()
    assert len(content) == matrix.size
    values = unpack(Blob(matrix.shape, Q4_0, content))
    assert 0.015 < float(np.std(values)) < 0.025
    assert content == matrix.content()


def test_an_answer_that_came_in_one_piece_has_a_speed() -> None:
    assert AnswerTiming(0.5, 1.5, prompt=9, cached=0, completion=8).tps == 7
    assert AnswerTiming(0.5, 0.5, prompt=9, cached=0, completion=8).tps == 16
    assert AnswerTiming(0.5, 0.5, prompt=9, cached=0, completion=8, guessed=4).passes_per_second == 8
