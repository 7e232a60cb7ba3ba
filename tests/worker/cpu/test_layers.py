"""What lies between products gives MLX's numbers, with every instruction set, and the same numbers in every company."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers import activations
from mlx_lm.models.cache import KVCache, RotatingKVCache

from squish.worker.cpu.kv import BatchCache, SequenceCache
from tests.worker.cpu.opened import native

OWN: Any = {name: getattr(mx.fast, name) for name in ("rope", "rms_norm", "scaled_dot_product_attention")}


@pytest.fixture(autouse=True)
def repeatable() -> None:
    mx.random.seed(5)


@pytest.fixture(params=["portable", "avx2", "avx512"])
def kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each form that these operations have; on arm64 NEON's goes by the name of portable."""
    if request.param not in native().kernels():
        pytest.skip("this processor cannot run it")
    before = native().kernel()
    native().use_kernels(request.param)
    yield
    native().use_kernels(before)


EACH_KERNEL = pytest.mark.usefixtures("kernel")


def far(a: mx.array, b: mx.array) -> float:
    return float(mx.abs(a - b).max())


@EACH_KERNEL
@pytest.mark.parametrize("size", [1, 7, 64, 83, 576])
def test_a_norm_is_mlx_s_and_adds_what_it_is_given(size: int) -> None:
    x, weight, residual = mx.random.normal((3, 5, size)), mx.random.normal((size,)), mx.random.normal((3, 5, size))
    assert far(native().norm(x, weight, None, 0.0, 1e-5)[0], OWN["rms_norm"](x, weight, 1e-5)) < 1e-5
    normed, total = native().norm(x, weight, residual, 1.0, 1e-5)
    assert far(normed, OWN["rms_norm"](x + residual, 1 + weight, 1e-5)) < 1e-5
    assert mx.array_equal(total, x + residual)


@EACH_KERNEL
@pytest.mark.parametrize("size", [1, 5, 64, 1003])
def test_the_logarithm_of_a_sum_is_mlx_s(size: int) -> None:
    x = mx.random.normal((3, size)) * 30
    x[0] = -mx.inf
    x[1, 0] = -mx.inf
    expected = mx.logsumexp(x, axis=-1, keepdims=True)
    assert mx.allclose(native().log_sum(x), expected, atol=1e-5)
    assert mx.array_equal(native().log_sum(x[2:]), native().log_sum(x)[2:])


@EACH_KERNEL
def test_gates_are_mlx_s() -> None:
    gate, up = mx.random.normal((3, 1537)) * 5, mx.random.normal((3, 1537))
    gate[0, :4] = mx.array([0.0, 100.0, -100.0, -30.0])
    for kind, function in enumerate((activations.silu, activations.gelu_approx, activations.gelu)):
        assert far(native().gate(gate, up, kind), function(gate) * up) < 1e-4


@EACH_KERNEL
@pytest.mark.parametrize("dims", [64, 24, 2])
@pytest.mark.parametrize("traditional", [False, True])
def test_a_rotation_is_mlx_s(dims: int, traditional: bool) -> None:
    x = mx.random.normal((2, 9, 4, 64)).transpose(0, 2, 1, 3)
    freqs = mx.random.uniform(1, 900, (dims // 2,))
    for base, periods in ((10000.0, None), (None, freqs)):
        speeds = native().speeds(dims, base, None if periods is None else periods.tolist())
        for offset in (0, 700, mx.array([3, 1900])):
            expected = OWN["rope"](x, dims, traditional=traditional, base=base, scale=0.5, offset=offset, freqs=periods)
            assert far(native().rotate(x, dims, traditional, 0.5, speeds, offset), expected) < 1e-3


@EACH_KERNEL
@pytest.mark.parametrize(
    "shape",
    [(2, 6, 2, 17, 37, 8, 12), (1, 9, 3, 1, 433, 64, 64), (2, 8, 2, 70, 200, 128, 128), (3, 2, 2, 5, 130, 80, 96)],
    ids=str,
)
def test_attention_is_mlx_s(shape: tuple[int, ...]) -> None:
    batch, heads, groups, length, keys, size, values = shape
    q = mx.random.normal((batch, length, heads, size)).transpose(0, 2, 1, 3)
    k, v = (
        mx.random.normal((batch, groups, keys + 9, size))[:, :, :keys],
        mx.random.normal((batch, groups, keys, values)),
    )
    some = mx.random.uniform(shape=(batch, 1, length, keys)) > 0.3
    some[..., 5] = True
    own = mx.arange(keys - length, keys)[:, None]
    window = (mx.arange(keys) <= own) & (mx.arange(keys) > own - 50)
    sinks = mx.random.normal((heads,))
    for mask, causal, width, sink, expected in (
        (None, False, 0, None, None),
        (None, True, 0, None, "causal"),
        (some, False, 0, None, some),
        (mx.where(some, 0.5, -1e9), False, 0, None, mx.where(some, 0.5, -1e9)),
        (None, True, 0, sinks, "causal"),
        (None, True, 50, None, window),
    ):
        ours = native().attention(q, k, v, 0.3, causal, width, mask, sink)
        theirs = OWN["scaled_dot_product_attention"](q, k, v, scale=0.3, mask=expected, sinks=sink)
        assert far(ours, theirs) < 2e-5


def layer(window: int, norms: bool = False, kv_bits: int = 32) -> Any:
    weights = [(mx.random.normal((16,)) * 0.1 + 1).tolist() if norms else [] for _ in range(2)]
    speeds = native().speeds(12, 10000.0, None)
    return native().attention_layer(
        6, 2, 16, 16, 0.25, window, speeds, False, 1.0, 1.0, *weights, 1e-6, 0.0, [], kv_bits
    )


def attend(batch: BatchCache, plan: Any, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    return batch.run(q.shape[1], partial(native().attend_rows, plan, q, k, v))


@EACH_KERNEL
@pytest.mark.parametrize("window", [0, 70], ids=["all keys", "a window"])
def test_a_batch_attends_as_mlx_does(window: int) -> None:
    plan = layer(window, norms=False)
    q, k, v = (mx.random.normal((2, 150, heads * 16)) for heads in (6, 2, 2))
    batch = BatchCache([SequenceCache(window or None) for _ in range(2)])
    ours = mx.concatenate(
        [attend(batch, plan, *(x[:, a:b] for x in (q, k, v))) for a, b in ((0, 97), (97, 150))], axis=1
    )
    heads = [x.reshape(2, 150, -1, 16).transpose(0, 2, 1, 3) for x in (q, k, v)]
    turned = [OWN["rope"](x, 12, traditional=False, base=10000.0, scale=1.0, offset=0) for x in heads[:2]]
    own = mx.arange(150)[:, None]
    mask = (mx.arange(150) <= own) & (mx.arange(150) > own - (window or 150))
    theirs = OWN["scaled_dot_product_attention"](*turned, heads[2], scale=0.25, mask=mask)
    assert far(ours, theirs.transpose(0, 2, 1, 3).reshape(2, 150, -1)) < 1e-5


EACH_WIDTH = pytest.mark.parametrize("kv_bits", [32, 16, 8])


@EACH_KERNEL
@EACH_WIDTH
@pytest.mark.parametrize("window", [0, 70], ids=["all keys", "a window"])
@pytest.mark.parametrize("mixes", [30, pytest.param(100, marks=pytest.mark.long)])
def test_attention_is_the_same_in_every_company_and_however_it_is_cut(mixes: int, window: int, kv_bits: int) -> None:
    """Sequences of different lengths join, leave, are padded, cut, and go through mlx-lm's caches."""
    chance = random.Random(3)
    plan = layer(window, norms=True, kv_bits=kv_bits)
    texts = [[mx.random.normal((1, 300, heads * 16)) for heads in (6, 2, 2)] for _ in range(6)]
    alone = [attend(BatchCache([SequenceCache(window or None)]), plan, *text) for text in texts]
    done = [0] * len(texts)
    caches: list[Any] = [SequenceCache(window or None) for _ in texts]
    for _ in range(mixes):
        company = chance.sample(range(len(texts)), chance.randint(1, len(texts)))
        lengths = [min(chance.choice([1, 1, 1, 2, 63, 64, 65, 100]), 300 - done[row]) for row in company]
        longest = max(lengths)
        batch = BatchCache([caches[row] for row in company])
        batch.prepare(lengths=lengths, right_padding=[longest - length for length in lengths])
        rows = [
            [padded(part[:, done[row] : done[row] + length], longest) for part in texts[row]]
            for row, length in zip(company, lengths, strict=True)
        ]
        out = attend(batch, plan, *(mx.concatenate(list(parts)) for parts in zip(*rows, strict=True)))
        batch.finalize()
        for index, (row, length) in enumerate(zip(company, lengths, strict=True)):
            assert mx.array_equal(out[index, :length], alone[row][0, done[row] : done[row] + length])
            done[row] += length
            caches[row] = SequenceCache.of(batch.extract(index)) if chance.random() < 0.5 else batch.rows[index]
            if done[row] == 300:
                done[row], caches[row] = 0, SequenceCache(window or None)
    assert max(done) > 0


@EACH_KERNEL
@pytest.mark.parametrize("kv_bits", [16, 8])
def test_attention_reads_what_is_kept(kv_bits: int) -> None:
    """A new token's own keys too: what is computed is attention over the numbers in the cache."""
    q, k, v = (mx.random.normal((1, 150, heads * 16)) for heads in (6, 2, 2))
    batch = BatchCache([SequenceCache()])
    out = attend(batch, layer(0, kv_bits=kv_bits), q, k, v)
    keys, values = (mx.array(read_back(array[:, :, :150], 16)) for array in batch.state)
    heads = [x.reshape(1, 150, -1, 16).transpose(0, 2, 1, 3) for x in (q, k, v)]
    turned = [OWN["rope"](x, 12, traditional=False, base=10000.0, scale=1.0, offset=0) for x in heads[:2]]
    assert 1e-5 < far(keys, turned[1]) < (2e-3 if kv_bits == 16 else 2e-2)
    theirs = OWN["scaled_dot_product_attention"](turned[0], keys, values, scale=0.25, mask="causal")
    assert far(out, theirs.transpose(0, 2, 1, 3).reshape(1, 150, -1)) < 1e-5


def read_back(kept: mx.array, dims: int) -> np.ndarray:
    """The numbers of a cache of 16 or 8 bits, (…, dims) float32, by the description in layer_kernels.h."""
    if kept.dtype == mx.float16:
        return np.array(kept.astype(mx.float32))
    raw = np.array(kept)
    scales = np.ascontiguousarray(raw[..., dims:]).view(np.float16).astype(np.float32)
    return raw[..., :dims].view(np.int8).astype(np.float32) * np.repeat(scales, 32, axis=-1)[..., :dims]


@pytest.mark.parametrize("dims", [64, 83, 6, 1])
@pytest.mark.parametrize("kv_bits", [16, 8])
def test_every_instruction_set_keeps_the_same_bits(kv_bits: int, dims: int) -> None:
    """Those of IEEE's rounding: halves to the even one, tiny numbers, and the largest in place of larger ones."""
    numbers = np.random.default_rng(1).standard_normal((1, 400, dims)).astype(np.float32)
    numbers *= np.float32(2.0) ** np.linspace(-40, 20, 400, dtype=np.float32)[None, :, None]
    numbers[0, 0], numbers[0, 1, ::2] = 0.0, -0.0
    plan = native().attention_layer(1, 1, dims, dims, 1.0, 0, [], False, 1.0, 1.0, [], [], 0.0, 0.0, [], kv_bits)
    x, before, found = mx.array(numbers), native().kernel(), []
    try:
        for kernel in native().kernels():
            native().use_kernels(kernel)
            batch = BatchCache([SequenceCache()])
            mx.eval(attend(batch, plan, x, x, x))
            found.append([np.array(array)[0, 0, :400] for array in batch.state])
    finally:
        native().use_kernels(before)
    for keys, values in found:
        assert np.array_equal(keys, found[0][0]) and np.array_equal(values, found[0][0])
    with np.errstate(over="ignore"):
        halves = np.clip(numbers[0], -65504, 65504).astype(np.float16)
    if kv_bits == 16:
        assert np.array_equal(found[0][0].view(np.uint16), halves.view(np.uint16))
    else:
        scales = np.ascontiguousarray(found[0][0][:, dims:]).view(np.float16).astype(np.float32)
        groups = np.stack([np.abs(numbers[0, :, at : at + 32]).max(axis=1) for at in range(0, dims, 32)], axis=1)
        assert np.array_equal(scales, np.clip(groups / np.float32(127), 0, 65504).astype(np.float16))
        error = np.abs(read_back(mx.array(found[0][0]), dims) - numbers[0])
        assert (error <= np.repeat(np.maximum(scales * 0.51, 2.0**-17), 32, axis=1)[:, :dims]).all()


def padded(x: mx.array, length: int) -> mx.array:
    return mx.pad(x, [(0, 0), (0, length - x.shape[1]), (0, 0)], constant_values=3.0)


@EACH_WIDTH
def test_what_another_reads_does_not_change_and_only_one_goes_on_in_the_same_memory(kv_bits: int) -> None:
    plan = layer(0, kv_bits=kv_bits)
    q, k, v = (mx.random.normal((1, 40, heads * 16)) for heads in (6, 2, 2))
    batch = BatchCache([SequenceCache()])
    mx.eval(attend(batch, plan, *(x[:, :30] for x in (q, k, v))))
    kept = batch.extract(0)
    before = mx.array(kept.keys[..., :30, :] + 0)
    others = [BatchCache([SequenceCache.of(kept)]) for _ in range(2)]
    outs = [
        attend(cache, plan, *(x[:, 30:] for x in (q * sign, k * sign, v)))
        for cache, sign in ((batch, 1), (others[0], -1), (others[1], 1))
    ]
    assert mx.array_equal(outs[0], outs[2]) and not mx.array_equal(outs[0], outs[1])
    assert mx.array_equal(kept.keys[..., :30, :], before)
    address = [memory(of.rows[0].keys) for of in (batch, *others)]
    assert address[0] == memory(kept.keys) and len(set(address)) == 3
    assert mx.array_equal(batch.state[0][..., :40, :], others[1].extract(0).keys[..., :40, :])


@EACH_WIDTH
def test_who_goes_on_reads_where_another_was_and_copies_on_the_way(kv_bits: int) -> None:
    """However long a known prompt is, its first token waits for no copy of it."""
    plan = layer(0, kv_bits=kv_bits)
    q, k, v = (mx.random.normal((1, 180, heads * 16)) for heads in (6, 2, 2))
    alone = attend(BatchCache([SequenceCache()]), plan, q, k, v)
    first = BatchCache([SequenceCache()])
    mx.eval(attend(first, plan, *(x[:, :170] for x in (q, k, v))))
    kept = first.extract(0)
    second = BatchCache([SequenceCache.of(kept)])
    [row] = second.rows
    assert row.lent == 170 and second.nbytes == 0
    assert memory(second.state[0]) == memory(kept.keys)
    taken = []
    for at, end in ((170, 174), *((at, at + 1) for at in range(174, 180))):
        before = row.lent
        out = attend(second, plan, *(x[:, at:end] for x in (q, k, v)))
        taken.append(before - row.lent)
        assert mx.array_equal(out, alone[:, at:end])
        back = second.extract(0)
        assert mx.array_equal(back.keys[..., :170, :], kept.keys[..., :170, :])
        assert mx.array_equal(back.values[..., :170, :], kept.values[..., :170, :])
    assert taken == [0, 64, 64, 42, 0, 0, 0]
    assert len(second.state) == 2  # the other's memory is let go of


@EACH_WIDTH
def test_who_goes_back_before_what_was_lent_writes_over_nothing(kv_bits: int) -> None:
    plan = layer(0, kv_bits=kv_bits)
    q, k, v = (mx.random.normal((1, 40, heads * 16)) for heads in (6, 2, 2))
    first = BatchCache([SequenceCache()])
    alone = attend(first, plan, q, k, v)
    kept = first.extract(0)
    keys = mx.array(kept.keys + 0)
    other = BatchCache([SequenceCache.of(kept)])
    other.rows[0].offset = 20
    out = [attend(other, plan, *(x[:, at : at + 10] for x in (q, k, v))) for at in (20, 30)]
    assert mx.array_equal(mx.concatenate(out, axis=1), alone[:, 20:])
    assert mx.array_equal(kept.keys, keys)


def memory(array: Any) -> int:
    return int(np.array(array, copy=False).__array_interface__["data"][0])


@pytest.mark.parametrize("make", [KVCache, lambda: RotatingKVCache(20)], ids=["all keys", "a window"])
def test_caches_of_mlx_s_go_over_and_come_back(make: Callable[[], Any]) -> None:
    cache, whole = make(), KVCache()
    for length in (33, 1, 1, 15):
        new = [mx.random.normal((1, 2, length, 16)) for _ in range(2)]
        cache.update_and_fetch(*new)
        whole.update_and_fetch(*new)
    back = SequenceCache.of(cache).to_mlx()
    assert (type(back), back.offset, back.size()) == (type(cache), cache.offset, cache.size())
    assert mx.array_equal(back.keys[..., : back.size(), :], whole.keys[..., 50 - back.size() : 50, :])
    assert mx.array_equal(back.values[..., : back.size(), :], whole.values[..., 50 - back.size() : 50, :])


def test_kernels_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="sse9"):
        native().use_kernels("sse9")


def test_the_kernels_refuse_what_does_not_fit() -> None:
    plan = layer(0)
    q, k = mx.zeros((1, 2, 96)), mx.zeros((1, 2, 32))
    held, none = mx.zeros((1, 2, 4, 16)), (None,) * 4
    for arguments in (
        (q, k, k, [none], []),
        (q, k, q, [none], [(0, 2, 0, 0, 256, False, 0, 0)]),
        (q, k, k, [none], [(0, 3, 0, 0, 256, False, 0, 0)]),
        (q, k, k, [none], [(5, 2, 0, 0, 256, False, 0, 0)]),
        (q, k, k, [none], [(0, 2, 0, 0, 1, False, 0, 0)]),
        (q, k, k, [(mx.zeros((1, 2, 4, 8)), held, None, None)], [(2, 2, 0, 0, 256, False, 0, 0)]),
        (q, k, k, [(held, held, None, None)], [(5, 2, 0, 0, 256, False, 0, 0)]),
        (q, k, k, [(held, None, None, None)], [(2, 2, 0, 0, 256, False, 0, 0)]),
        (q, k, k, [none], [(4, 2, 0, 0, 256, False, 4, 4)]),
        (q, k, k, [(None, None, held, held)], [(5, 2, 0, 0, 256, False, 5, 5)]),
        (q, k, k, [(None, None, held, held)], [(4, 2, 0, 0, 256, False, 3, 3)]),
        (q, k, k, [(None, None, held, held)], [(4, 2, 0, 0, 256, False, 4, 5)]),
        (q.astype(mx.float16), k, k, [none], [(0, 2, 0, 0, 256, False, 0, 0)]),
        (q, k, k, [(held.astype(mx.float16), held, None, None)], [(2, 2, 0, 0, 256, False, 0, 0)]),
    ):
        with pytest.raises(ValueError):
            native().attend_rows(plan, *arguments)


def test_a_node_that_ends_while_python_waits_for_it_does_not_wait_for_python() -> None:
    """mx.clear_cache waits for all work with the GIL in its hand, as mlx-lm does at every 512th step."""
    q, k = mx.zeros((1, 64, 96)), mx.zeros((1, 64, 32))
    for _ in range(200):
        mx.async_eval(attend(BatchCache([SequenceCache(None)]), layer(0), q, k, k))  # type: ignore[no-untyped-call]
        mx.clear_cache()
