"""What each rank of a group holds, and on which hosts a model fits: arithmetic only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from squish.memory.fit import Machine
from squish.memory.shares import Spread, enough, limited, shares

GB = 10**9
LLAMA_70B = {
    "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256,
}  # fmt: skip
MODEL = Spread.of(LLAMA_70B, 70 * GB, 40 * GB)


def mac(total: int, free: int | None = None) -> Machine:
    return Machine("unified memory", total * GB, (total if free is None else free) * GB, float32=False)


def test_every_rank_holds_as_much_and_the_first_the_embeddings() -> None:
    one, two, four = (MODEL.rank(ranks, 8192, mac(64)) for ranks in (1, 2, 4))
    assert one.weights == 40 * GB
    assert MODEL.whole == MODEL.output == pytest.approx(128256 * 8192 * 40 / 70, rel=0.01)
    for ranks in (2, 4):
        held = [MODEL.rank(ranks, 8192, mac(64), number).weights for number in range(ranks)]
        assert held == pytest.approx([40 * GB / ranks] * ranks, rel=0.001)
    assert (two.cache, four.cache) == (one.cache // 2, one.cache // 4)


def test_what_the_first_rank_cannot_give_away_the_others_do_not_hold() -> None:
    """Its heads, and embeddings that are more than its part."""
    large = replace(MODEL, whole=14 * GB, output=14 * GB)
    assert large.attention == pytest.approx(72 * 128 * 2 / (72 * 128 * 2 + 3 * 28672))
    first, *others = (large.rank(4, 8192, mac(64), number).weights for number in range(4))
    assert first == pytest.approx(28 * GB + 12 * GB * large.attention / 4)  # type: ignore[operator]
    assert others == pytest.approx([(40 * GB - first) / 3] * 3)


@pytest.mark.parametrize("kind", ["qwen3", "mistral"])  # mlx-lm runs Mistral as a Llama
def test_what_is_divided_by_heads_is_known_by_what_runs_it(kind: str) -> None:
    assert Spread.of(LLAMA_70B | {"model_type": kind}, 70 * GB, 40 * GB) == MODEL


@pytest.mark.parametrize("config", [{"model_type": "mixtral"}, {"num_key_value_heads": 1}])
def test_of_other_models_every_rank_has_all_of_the_embeddings(config: dict[str, object]) -> None:
    other = Spread.of(LLAMA_70B | config, 70 * GB, 40 * GB)
    layers = 40 * GB - 2 * other.whole
    first, second = (other.rank(2, 8192, mac(64), number).weights for number in (0, 1))
    assert first == pytest.approx(2 * other.whole + layers / 2, rel=0.01)
    assert second == first - other.output  # rank 0 alone writes the answer


def test_the_cache_goes_with_heads_that_cannot_be_divided_evenly() -> None:
    uneven = Spread.of(LLAMA_70B | {"num_key_value_heads": 3}, 70 * GB, 40 * GB)
    whole = uneven.rank(1, 8192, mac(64)).cache
    first, second = (uneven.rank(2, 8192, mac(64), number).cache for number in (0, 1))
    assert (first, second) == (whole // 3, whole * 2 // 3)


def test_tied_embeddings_are_there_once() -> None:
    tied = Spread.of(LLAMA_70B | {"tie_word_embeddings": True}, 70 * GB, 40 * GB)
    assert (tied.whole, tied.output) == (MODEL.whole, 0)


def test_the_smallest_machine_decides() -> None:
    found = shares(MODEL, 4096, [("studio", mac(64)), ("mini", mac(16)), ("air", mac(24, free=8))])
    assert [each.fits for each in found] == ["yes", "yes", "tight"]
    assert "mini holds" in str(found[1]) and "16.0 GB of unified memory" in str(found[1])


def test_the_fewest_hosts_that_are_enough() -> None:
    machines = [("mini", mac(24)), ("air", mac(16)), ("studio", mac(64))]
    assert enough(MODEL, 4096, machines) == ("mini", "studio")
    assert enough(MODEL, 4096, [("studio", mac(64)), *machines[:2]]) == ("studio",)
    assert enough(MODEL, 4096, machines, splits=lambda ranks: ranks == 3) == ("mini", "air", "studio")
    assert enough(MODEL, 4096, [("mini", mac(8)), ("air", mac(8))]) is None


def test_the_first_host_always_takes_part() -> None:
    assert enough(MODEL, 4096, [("tiny", mac(4)), ("studio", mac(64)), ("ultra", mac(128))]) is None


def test_a_host_may_give_less_than_it_has() -> None:
    assert limited(mac(64, free=32), 16 * GB) == mac(16)
    assert limited(mac(64), None) == mac(64)


def test_memory_of_cpus_counts_caches_of_the_bits_that_are_set() -> None:
    cpu = Machine("RAM", 64 * GB, 64 * GB, float32=True)
    assert MODEL.rank(2, 8192, cpu).cache == MODEL.rank(2, 8192, mac(64)).cache
    cpu = replace(cpu, kv_bits=32)
    assert MODEL.rank(2, 8192, cpu).cache == 2 * MODEL.rank(2, 8192, mac(64)).cache


@pytest.mark.parametrize(("heads", "known"), [(8, 8), (1, 1), (0, 0), (-1, 0), (True, 0), ("8", 0), (None, 0)], ids=str)
def test_heads_that_are_not_a_number_of_heads_are_unknown(heads: object, known: int) -> None:
    found = Spread.of(LLAMA_70B | {"num_key_value_heads": heads}, 70 * GB, 40 * GB)
    assert found.heads == known
    assert (found.attention is None) == (known == 0)


def test_what_is_said_of_the_text_alone_counts() -> None:
    """As of a model that sees pictures too: the sizes stand further in, and the kind or the tie may stand outside."""
    inner = {key: value for key, value in LLAMA_70B.items() if key != "model_type"}
    outer = {"model_type": "llama", "text_config": inner}
    assert Spread.of(outer, 70 * GB, 40 * GB) == MODEL
    tied = replace(MODEL, output=0)
    assert Spread.of(outer | {"tie_word_embeddings": True}, 70 * GB, 40 * GB) == tied
    assert Spread.of(outer | {"text_config": inner | {"tie_word_embeddings": True}}, 70 * GB, 40 * GB) == tied
    assert Spread.of({"text_config": LLAMA_70B}, 70 * GB, 40 * GB).attention == MODEL.attention


@pytest.mark.parametrize("head", [64, 1, 0, -1, None])
def test_what_attention_weighs_depends_on_the_size_of_a_head(head: int | None) -> None:
    found = Spread.of(LLAMA_70B | {"head_dim": head}, 70 * GB, 40 * GB).attention
    width = head if head is not None and head > 0 else 8192 // 64
    assert found == 2 * 72 * width / (2 * 72 * width + 3 * 28672)


def test_what_is_not_in_the_embeddings_is_all_that_the_output_can_be() -> None:
    large = Spread.of(LLAMA_70B | {"vocab_size": 70 * GB // 8192 * 6 // 10}, 70 * GB, 40 * GB)
    assert large.whole == pytest.approx(24 * GB, rel=0.001)
    assert large.output == 40 * GB - large.whole
    whole = Spread.of(LLAMA_70B | {"vocab_size": 70 * GB}, 70 * GB, 40 * GB)
    assert (whole.whole, whole.output) == (40 * GB, 0)


@pytest.mark.parametrize("ranks", [8, 9])
def test_up_to_one_rank_for_each_head_a_model_is_divided_by_them(ranks: int) -> None:
    first, second = (MODEL.rank(ranks, 8192, mac(64), number) for number in (0, 1))
    layers = 40 * GB - MODEL.whole - MODEL.output
    if ranks == 8:
        assert first.weights == pytest.approx(second.weights, rel=0.01)
    else:
        assert second.weights == MODEL.whole + -(-layers // 9)
        assert first.weights == second.weights + MODEL.output
    whole = MODEL.rank(1, 8192, mac(64))
    assert first.cache == pytest.approx(whole.cache / ranks, rel=0.001)


def test_a_rank_on_a_cpu_holds_its_part_of_the_parameters_and_of_the_work() -> None:
    cpu = Machine("RAM", 1000 * GB, 1000 * GB, float32=True, packed=False)
    for ranks, number in ((1, 0), (2, 0), (2, 1), (4, 3)):
        stored = MODEL.rank(ranks, 8192, mac(64), number).weights
        weights = MODEL.rank(ranks, 8192, cpu, number).weights
        assert weights == pytest.approx(4 * MODEL.shape.parameters * stored / (40 * GB), rel=0.001)
    one, two = (MODEL.rank(ranks, 8192, mac(64)).overhead for ranks in (1, 2))
    assert one - two == 2048 * 2 * (28672 // 2) * 2


def test_what_fits_exactly_fits() -> None:
    needed = MODEL.rank(1, 4096, mac(64)).needed
    for total, free, fits in (
        (needed, needed, "yes"), (needed, needed - 1, "tight"), (needed + 1, 0, "tight"), (needed - 1, needed, "no"),
    ):  # fmt: skip
        [share] = shares(MODEL, 4096, [("a", Machine("unified memory", total, free, float32=False))])
        assert share.needed == needed
        assert share.fits == fits
