"""Whether a model fits: the arithmetic, and the arithmetic against memory that was measured."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from squish.generation import Finished, SamplingParams, TokenPrompt
from squish.hub import search
from squish.ipc.frames import Events, Generate, Load, Loaded
from squish.ipc.process import Worker
from squish.memory.fit import (
    Estimate,
    Machine,
    Shape,
    estimate,
    guessed,
    largest_context,
    most_bits,
    shape_of,
    verdict,
    widened,
)
from squish.models import catalog
from tests.pull.shards import tiny_llama

GB = 10**9
MAC = Machine("unified memory", 24 * GB, 20 * GB, float32=False)
LINUX = Machine("RAM", 24 * GB, 20 * GB, float32=True)

LLAMA_8B = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 128256,
}  # fmt: skip


def cache(config: dict[str, Any], context: int, machine: Machine = MAC) -> int:
    return estimate(shape_of(config, 8 * GB), 5 * GB, context, machine).cache


def test_the_cache_of_a_plain_model_grows_with_the_context() -> None:
    assert cache(LLAMA_8B, 8192) == 2 * 32 * 8 * 128 * 2 * 8192
    assert cache(LLAMA_8B, 16384) == 2 * cache(LLAMA_8B, 8192)
    assert cache(LLAMA_8B, 8192, LINUX) == 2 * cache(LLAMA_8B, 8192)


def test_a_cache_that_can_have_fewer_bits_has_those_that_are_set() -> None:
    llama = LLAMA_8B | {"model_type": "llama"}
    numbers = 2 * 32 * 8 * 128 * 8192
    assert cache(llama, 8192, LINUX) == cache(llama, 8192, MAC) == 2 * numbers
    for bits, width in ((32, 4.0), (16, 2.0), (8, 34 / 32)):
        assert cache(llama, 8192, replace(LINUX, kv_bits=bits)) == numbers * width
        assert cache(llama, 8192, replace(LINUX, kv_bits=bits, packed=False)) == 4 * numbers
        assert cache(llama, 8192, replace(MAC, kv_bits=bits)) == 2 * numbers
        assert cache(LLAMA_8B | {"model_type": "phi3"}, 8192, replace(LINUX, kv_bits=bits)) == 4 * numbers


def test_layers_with_a_window_stop_growing() -> None:
    gemma = {"text_config": LLAMA_8B | {"model_type": "gemma3_text", "sliding_window": 1024, "num_hidden_layers": 36}}
    per_layer = 2 * 8 * 128 * 2
    assert cache(gemma, 32768) == per_layer * (6 * 32768 + 30 * 1024)
    named = LLAMA_8B | {"layer_types": ["sliding_attention", "full_attention"] * 16, "sliding_window": 128}
    assert cache(named, 8192) == per_layer * (16 * 8192 + 16 * 128)
    off = LLAMA_8B | {"sliding_window": 4096, "use_sliding_window": False}
    assert cache(off, 32768) == cache(LLAMA_8B, 32768)


def test_other_attention_has_smaller_caches() -> None:
    latent = LLAMA_8B | {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert cache(latent, 8192) == 32 * (512 + 64) * 2 * 8192
    hybrid = LLAMA_8B | {"full_attention_interval": 4}
    assert cache(hybrid, 8192) == cache(LLAMA_8B, 8192) // 4
    linear = LLAMA_8B | {"layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8}
    assert cache(linear, 8192) == cache(LLAMA_8B, 8192) // 4


def test_a_model_without_dimensions_is_guessed() -> None:
    shape = shape_of({"model_type": "odd"}, 8 * GB)
    assert shape == guessed(8 * GB) and not shape.exact
    assert (guessed(8 * GB).kv_numbers, guessed(2 * GB).kv_numbers) == (65_536, 32_768)
    assert estimate(shape, 5 * GB, 8192, MAC).cache == pytest.approx(cache(LLAMA_8B, 8192), rel=0.01)


def test_the_verdict_says_what_is_missing() -> None:
    shape = shape_of(LLAMA_8B, 8 * GB)
    found = estimate(shape, 5 * GB, 8192, MAC)
    assert verdict(found, MAC) == "yes"
    assert verdict(found, Machine("unified memory", 24 * GB, 4 * GB, float32=False)) == "tight"
    assert verdict(found, Machine("unified memory", 6 * GB, 6 * GB, float32=False)) == "no"


def test_on_a_cpu_quantized_weights_stay_packed_where_a_compiler_is() -> None:
    small, large = Shape(10**9, 1000), Shape(20 * GB, 1000)
    without = replace(LINUX, packed=False)
    assert estimate(small, GB // 2, 1024, LINUX).weights == GB // 2
    assert estimate(small, GB // 2, 1024, without).weights == 4 * 10**9
    assert estimate(large, 11 * GB, 1024, without).weights < 13 * GB
    half_precision = estimate(small, 2 * 10**9, 1024, LINUX)
    assert half_precision.weights == 2 * 10**9
    assert estimate(small, 2 * 10**9, 1024, without).weights == 4 * 10**9


@pytest.mark.parametrize(
    ("bits", "group", "widened"), [(4, 64, 5 / 4.5), (3, 64, 5 / 3.5), (6, 64, 9 / 6.5), (4, 32, 6 / 5)]
)
def test_packed_weights_take_whole_codes_and_float32_scales(bits: int, group: int, widened: float) -> None:
    config = LLAMA_8B | {"quantization": {"bits": bits, "group_size": group}}
    assert shape_of(config, 8 * GB).widened == pytest.approx(widened)


def test_the_catalog_says_of_a_model_what_its_config_says() -> None:
    for name, bits in (("llama3.1:8b", 4), ("llama3.1:8b-8bit", 8)):
        entry = next(each for each in catalog.entries() if each.id == name)
        config = LLAMA_8B | {"model_type": "llama", "quantization": {"bits": bits, "group_size": 64}}
        stored = int(entry.parameters * entry.bits / 8)
        exact, known = shape_of(config, entry.parameters), search.shape_of(entry)
        assert estimate(known, stored, 8192, LINUX) == estimate(exact, stored, 8192, LINUX)


def test_the_longest_context_is_the_last_that_fits() -> None:
    shape, machine = shape_of(LLAMA_8B, 8 * GB), Machine("unified memory", 8 * GB, 8 * GB, float32=False)
    longest = largest_context(shape, 5 * GB, machine, 131072)
    assert 0 < longest < 131072
    assert estimate(shape, 5 * GB, longest, machine).needed <= machine.total
    assert estimate(shape, 5 * GB, longest + 256, machine).needed > machine.total
    assert largest_context(shape, 50 * GB, machine, 131072) == 0


def test_the_longest_context_is_found_to_the_token() -> None:
    shape, machine = shape_of(LLAMA_8B, 8 * GB), Machine("unified memory", 8 * GB, 8 * GB, float32=False)
    longest = largest_context(shape, 5 * GB, machine, 131072)
    assert longest % 256 == 0
    assert estimate(shape, 5 * GB, longest + 1, machine).needed > machine.total
    full = estimate(shape, 5 * GB, 8192, machine).needed
    assert largest_context(shape, 5 * GB, replace(machine, total=full), 8192) == 8192
    assert largest_context(shape, 5 * GB, replace(machine, total=full - 1), 8192) == 8192 - 256


def test_every_context_is_found_where_memory_ends_with_it() -> None:
    for context in range(17):
        machine = replace(MAC, total=estimate(SMALL, GB, context, MAC).needed)
        assert largest_context(SMALL, GB, machine, 16) == context


SMALL = Shape(10**9, kv_numbers=1000, hidden=100, intermediate=300, vocabulary=50)


@pytest.mark.parametrize(("context", "step", "tokens"), [(8192, 2048, 8192), (1000, 1000, 1024), (0, 1, 0)])
def test_the_engine_takes_a_process_and_one_step_of_activations(context: int, step: int, tokens: int) -> None:
    overhead = 128_000_000 + step * 2 * (100 + 300) * 2 + 50 * 2 * 4
    found = estimate(SMALL, GB, context, MAC)
    assert found == Estimate(context, GB, 1000 * tokens * 2, overhead, exact=True)
    assert found.needed == GB + 1000 * tokens * 2 + overhead


def test_on_a_cpu_the_cache_is_counted_twice_or_what_loading_takes_if_that_is_more() -> None:
    step = 128_000_000 + 512 * 2 * (100 + 300) * 4 + 50 * 4 * 4
    cache = 1000 * 8192 * 4
    assert estimate(SMALL, GB, 8192, LINUX) == Estimate(8192, GB, cache, step + cache, exact=True)
    wide = replace(SMALL, parameters=200_000_000, hidden=1000, vocabulary=100_000)  # half of it is the embedding
    loading = 132_000_000 + 100_000_000 - 1000 * 256 * 4
    assert estimate(wide, 200_000_000, 256, LINUX).overhead == loading
    assert estimate(replace(SMALL, parameters=0), GB, 8192, LINUX).overhead == 132_000_000 + 5000 * GB - cache


def test_without_a_compiler_weights_are_float32_as_long_as_that_fits() -> None:
    machine = replace(LINUX, packed=False)
    step, cache = 128_000_000 + 512 * 2 * (100 + 300) * 4 + 50 * 4 * 4, 1000 * 8192 * 4
    reading = 132_000_000 - cache
    for stored, overhead in ((GB // 2, reading + GB // 2), (4 * GB - 1, reading + 4 * GB - 1), (4 * GB, step + cache)):
        assert estimate(SMALL, stored, 8192, machine) == Estimate(8192, 4 * GB, cache, overhead, exact=True)
    enough = 4 * GB + GB // 2 + 2 * cache + step
    assert estimate(SMALL, GB // 2, 8192, replace(machine, total=enough)).weights == 4 * GB
    tight = estimate(SMALL, GB // 2, 8192, replace(machine, total=enough - 1))
    assert (tight.weights, tight.overhead) == (int(GB // 2 * SMALL.widened), step + cache)
    for stored, total in ((4 * GB, 24 * GB), (GB // 2, GB)):  # nothing is read beside the weights
        assert estimate(SMALL, stored, 0, replace(machine, total=total)).overhead == 132_000_000


def test_the_verdict_changes_at_the_last_byte() -> None:
    found = Estimate(8192, 900, 0, 0, exact=True)
    verdicts = [
        (900, 900, "tight"), (899, 899, "no"), (1000, 900, "yes"), (1000, 899, "tight"), (999, 999, "tight"),
    ]  # fmt: skip
    for total, free, expected in verdicts:
        assert verdict(found, replace(MAC, total=total, free=free)) == expected


def test_the_most_bits_that_fit_are_found_to_a_tenth() -> None:
    weights, mac = Shape(8 * GB, 0), replace(MAC, total=5_200_000_000)  # a bit is 1 GB, and nine tenths are 4.68 GB
    assert most_bits(weights, 8192, mac, 2.5, 8.5) == 4.5
    assert most_bits(weights, 8192, replace(mac, total=5_100_000_000), 2.5, 8.5) == 4.4
    assert most_bits(weights, 8192, mac, 2.5, 4.0) == 4.0
    assert most_bits(weights, 8192, mac, 4.5, 8.5) == 4.5
    assert most_bits(weights, 8192, mac, 4.6, 8.5) is None
    without = replace(LINUX, packed=False)  # widened: 4.5 bits take 5, and 8.5 bits 9
    assert most_bits(weights, 8192, replace(without, total=5_800_000_000), 2.5, 8.5) == 4.5
    assert most_bits(weights, 8192, replace(without, total=10_250_000_000), 2.5, 8.5) == 8.5


def test_how_much_weights_grow_goes_by_whole_bits_and_quantization_as_mlx_has_it() -> None:
    unknown = pytest.approx(10 / 9)
    assert [widened(bits) for bits in (0.5, 12, 16)] == [unknown] * 3
    assert [widened(bits) for bits in (1, 5, 8.5, 11.9)] == [
        pytest.approx(each) for each in (5 / 1.5, 9 / 5.5, 9 / 8.5, 9 / 11.5)
    ]
    for quantization, expected in (
        ({"group_size": 32}, 6 / 5), ({"bits": 8}, 9 / 8.5), ({"bits": 8, "mode": "affine"}, 9 / 8.5),
        ({"bits": 8, "mode": "mxfp8"}, 10 / 9), ("8 bits", 10 / 9),
    ):  # fmt: skip
        assert shape_of(LLAMA_8B | {"quantization": quantization}, 8 * GB).widened == pytest.approx(expected)


@pytest.mark.parametrize(
    ("config", "full", "windowed"),
    [
        ({"layers_block_type": ["mamba", "attention", "local_attention", "global", "global_attention"]}, 3, 1),
        ({"layer_types": [], "full_attn_idxs": [1, 5, 9]}, 3, 0),
        ({"full_attention_interval": 5}, 6, 0),
        ({"layers_block_type": []}, 32, 0),
        ({"layer_types": "sliding"}, 32, 0),
        ({"sliding_window": 64}, 32, 0),
        ({"sliding_window_pattern": 3}, 32, 0),
        ({"sliding_window": 64, "sliding_window_pattern": 3, "use_sliding_window": False}, 32, 0),
        ({"sliding_window": 64, "sliding_window_pattern": 3}, 10, 22),
        ({"sliding_window": 64, "_sliding_window_pattern": 4, "use_sliding_window": True}, 8, 24),
        ({"sliding_window": 64, "model_type": "gemma3_text"}, 5, 27),
        ({"sliding_window": 64, "model_type": "gemma3_text", "sliding_window_pattern": 2}, 16, 16),
        ({"sliding_window": 64, "model_type": "phi3", "sliding_window_pattern": 2}, 32, 0),  # whose code keeps all
        ({"model_type": "bert"}, 0, 0),
    ],
)
def test_layers_are_counted_by_what_they_see(config: dict[str, Any], full: int, windowed: int) -> None:
    shape, per_layer = shape_of(LLAMA_8B | config, 8 * GB), 2 * 8 * 128
    assert (shape.kv_numbers, shape.window_numbers) == (per_layer * full, per_layer * windowed)
    assert shape.window == (config.get("sliding_window", 0) if windowed else 0)


def test_a_window_of_unknown_size_is_the_whole_context() -> None:
    assert estimate(Shape(0, 0, window_numbers=10), 0, 512, MAC).cache == 10 * 512 * 2
    assert estimate(Shape(0, 0, window_numbers=10, window=64), 0, 512, MAC).cache == 10 * 64 * 2
    assert estimate(Shape(0, 0, window_numbers=10, window=640), 0, 512, MAC).cache == 10 * 512 * 2


def test_dimensions_are_read_under_every_name_that_they_have() -> None:
    plain = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "vocab_size": 10}
    expected = Shape(99, kv_numbers=2 * 2 * 32, hidden=32, intermediate=128, vocabulary=10)
    assert shape_of(plain, 99) == expected
    for key, other in (
        ("num_hidden_layers", "n_layer"), ("num_hidden_layers", "n_layers"), ("num_hidden_layers", "num_layers"),
        ("num_attention_heads", "n_head"), ("num_attention_heads", "n_heads"),
        ("hidden_size", "n_embd"), ("hidden_size", "d_model"), ("hidden_size", "dim"),
    ):  # fmt: skip
        assert shape_of({other if each == key else each: value for each, value in plain.items()}, 99) == expected
        assert shape_of({each: value for each, value in plain.items() if each != key}, 99) == guessed(99)
    changes: list[tuple[str, object, dict[str, Any]]] = [
        ("num_key_value_heads", 2, {"kv_numbers": 64}), ("n_kv_heads", 1, {"kv_numbers": 32}),
        ("head_dim", 16, {"kv_numbers": 256}), ("intermediate_size", 50, {"intermediate": 50}),
        ("n_inner", 50, {"intermediate": 50}), ("head_dim", 16.0, {"kv_numbers": 256}),
        ("head_dim", float("nan"), {}), ("head_dim", True, {}), ("head_dim", "16", {}),
    ]  # fmt: skip
    for key, value, change in changes:
        assert shape_of(plain | {key: value}, 99) == replace(expected, **change)
    inner = {key: value for key, value in plain.items() if key != "vocab_size"}
    assert shape_of({"text_config": plain, "vocab_size": 20}, 99) == expected
    assert shape_of({"text_config": inner, "vocab_size": 20}, 99) == replace(expected, vocabulary=20)


def peak(pid: int) -> int:
    """The most that a process had in memory, in bytes: what Linux noted, or what it has now, if that is more."""
    noted = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return max(int(noted.split()[1]) * 1024, psutil.Process(pid).memory_info().rss)


async def measured(directory: Path, tokens: int, cache_dir: Path) -> int:
    """Peak memory of a worker, in bytes, after it has read a prompt of so many tokens."""
    worker = await Worker.spawn(cache_dir)
    try:
        worker.send(Load(str(directory)))
        assert isinstance(await worker.receive(), Loaded)
        prompt = TokenPrompt(tuple(17 + each % 200 for each in range(tokens)))
        worker.send(Generate(1, (prompt,), SamplingParams(max_tokens=1, temperature=0.0)))
        while True:
            frame = await worker.receive()
            assert isinstance(frame, Events)
            if any(isinstance(event, Finished) for _, event in frame.items):
                return peak(worker.pid)
    finally:
        await worker.close()


def estimated(directory: Path, parameters: int, tokens: int) -> int:
    config = json.loads((directory / "config.json").read_text())
    stored = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    return estimate(shape_of(config, parameters), stored, tokens, LINUX).needed


BUSY = 1 / (1 - 1 / 8)
"""Estimates count on the largest steps. A busy machine takes smaller ones, which need up to an eighth less."""

MEASURABLE = pytest.mark.skipif(sys.platform != "linux", reason="the peak of another process is read from /proc")


@pytest.mark.usefixtures("started_workers")
@MEASURABLE
async def test_the_estimate_is_near_what_the_real_model_takes(real_home: Path) -> None:
    """With a prompt whose passes are small on a slow machine, where the estimate counts on one of all of it."""
    directory = real_home / ".squish/models/smollm2+135m"
    found = await measured(directory, 256, real_home / ".squish/cache")
    assert found / 1.1 <= estimated(directory, 134_515_008, 256) <= found * 1.2


@pytest.mark.usefixtures("started_workers")
@MEASURABLE
async def test_the_estimate_is_enough_for_a_prompt_of_several_steps(real_home: Path) -> None:
    directory = real_home / ".squish/models/smollm2+135m"
    found = await measured(directory, 1100, real_home / ".squish/cache")
    assert found / 1.1 <= estimated(directory, 134_515_008, 1100) <= found * 1.1 * BUSY


@pytest.mark.usefixtures("started_workers")
@MEASURABLE
@pytest.mark.long
@pytest.mark.parametrize(("hidden", "layers", "kv_heads"), [(512, 3, 2), (1024, 4, 2), (2048, 3, 1)])
async def test_the_estimate_is_near_what_models_of_other_shapes_take(
    real_home: Path, tmp_path: Path, hidden: int, layers: int, kv_heads: int
) -> None:
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": 3 * hidden}
    heads = {"num_attention_heads": hidden // 64, "num_key_value_heads": kv_heads, "vocab_size": 49152}
    tensors, config = tiny_llama(**shape, **heads, max_position_embeddings=4096)
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    source = real_home / ".squish/models/smollm2+135m"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, directory)
    write_zeros(directory / "model.safetensors", {name: array.shape for name, array in tensors.items()})
    parameters = sum(array.size for array in tensors.values())
    found = await measured(directory, 700, real_home / ".squish/cache")
    assert found / 1.1 <= estimated(directory, parameters, 700) <= found * 1.1 * BUSY


def write_zeros(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A file of float32 weights that are zero: a hole, which nobody has to compute or write."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)
