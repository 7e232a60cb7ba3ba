"""Embedding models from the Hub and from a directory: which files come, what is compressed, what is refused."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from squish.config.settings import Settings
from squish.embeddings import EmbeddingRequest
from squish.errors import CorruptModel, InvalidInput, UnsupportedModel
from squish.generation import TextPrompt
from squish.models.manifest import Installed
from squish.models.recipes import CompressionOptions, recipe
from squish.models.store import Store
from squish.pull.events import Pulled
from squish.pull.pull import pull
from squish.pull.repository import is_model_file, is_weights
from squish.runtime import Runtime
from squish.worker.embedding import bert
from tests.conftest import minilm, share_compiled
from tests.local_hub import GOOD_TOKEN, LocalHub
from tests.pull.test_pull import QUICK

_CONFIG = {
    "model_type": "bert", "vocab_size": 30_522, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 128, "max_position_embeddings": 64,
}  # fmt: skip
_STEPS = [
    {"type": f"sentence_transformers.models.{kind}", "path": path}
    for kind, path in (
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
        ("Dense", "2_Dense"),
        ("Normalize", "3_Normalize"),
    )
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a tiny BERT with a step behind its pooling, and others that do not belong to it."""
    mx.random.seed(3)
    directory = tmp_path_factory.mktemp("repository")
    model: Any = bert.BertModel(bert.BertArgs.from_dict(_CONFIG))
    flattened: Any = tree_flatten(model.parameters())
    dense = {"linear.weight": mx.random.normal((16, 64)), "linear.bias": mx.zeros((16,))}
    for name, weights in (("model", dict(flattened)), ("dense", dense)):
        mx.save_safetensors(str(directory / name), weights)
    content = {
        "config.json": _CONFIG,
        "modules.json": _STEPS,
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {"in_features": 64, "out_features": 16, "activation_function": "torch.nn.Tanh"},
        "sentence_bert_config.json": {"max_seq_length": 32},
        "config_sentence_transformers.json": {"prompts": {"query": "search: "}},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer"},
    }
    files = {name: json.dumps(value).encode() for name, value in content.items()}
    return files | {
        "tokenizer.json": (minilm() / "tokenizer.json").read_bytes(),
        "model.safetensors": (directory / "model.safetensors").read_bytes(),
        "2_Dense/model.safetensors": (directory / "dense.safetensors").read_bytes(),
        "2_Dense/pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"another format",
        "openvino/config.json": b"{}",
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalHub() as hub:
        yield hub


def _settings(home: Path, hub: LocalHub | None = None) -> Settings:
    settings = Settings(home=home, cache_dir=home / "models", hf_token=GOOD_TOKEN)
    settings = settings if hub is None else replace(settings, hub_endpoint=hub.url)
    share_compiled(settings.worker_cache)
    return settings


async def _pulled(name: str, settings: Settings, **options: Any) -> Installed:
    async with pull(name, settings=settings, store=Store(settings.cache_dir), policy=QUICK, **options) as events:
        found = [event async for event in events if isinstance(event, Pulled)]
    return found[0].installed


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


async def test_a_repository_comes_with_its_steps_and_is_compressed_only_when_asked(
    repository: dict[str, bytes], hub: LocalHub, tmp_path: Path
) -> None:
    hub.add_repo("org/tiny", repository)
    settings = _settings(tmp_path, hub)
    whole = await _pulled("org/tiny", settings)
    eight = await _pulled("org/tiny", settings, compression=CompressionOptions(recipe("8"), explicit=True))
    taken = {name for name in repository if not name.endswith((".bin", ".onnx")) and not name.startswith("openvino")}
    assert {file.path for file in whole.manifest.files} == taken
    assert {file.path for file in eight.manifest.files} >= taken - {"model.safetensors"}
    assert [each.manifest.kind for each in (whole, eight)] == ["embedding"] * 2
    assert [each.manifest.quantization for each in (whole, eight)] == ["f32", "8-bit (group 64)"]
    assert whole.manifest.context_length == 32
    async with Runtime(settings) as runtime:
        inputs = (TextPrompt("some words"), TextPrompt("others"))
        for options in ({}, {"prompt_name": "query"}):
            vectors = [
                await runtime.sessions.embed(EmbeddingRequest(each.manifest.id, inputs, **options))  # type: ignore[arg-type]
                for each in (whole, eight)
            ]
            assert [found.dimensions for found in vectors] == [16, 16]
            assert min(_cosine(vectors[0].floats(index), vectors[1].floats(index)) for index in (0, 1)) > 0.995


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"1_Pooling/config.json": b'{"pooling_mode_weightedmean_tokens": true}'}, "asks for a pooling other than"),
        ({"modules.json": b'[{"type": "custom_st.Transformer"}]'}, r"'custom_st\.Transformer'"),
        (
            {"config.json": json.dumps(_CONFIG | {"architectures": ["BertForSequenceClassification"]}).encode()},
            "labels",
        ),
    ],
)
def test_what_is_not_computed_is_refused_before_its_weights_come(
    repository: dict[str, bytes], hub: LocalHub, tmp_path: Path, changed: dict[str, bytes], problem: str
) -> None:
    hub.add_repo("org/odd", repository | changed)
    with pytest.raises(UnsupportedModel, match=problem) as refused:
        asyncio.run(_pulled("org/odd", _settings(tmp_path, hub)))
    assert "None of its weights were downloaded" in (refused.value.hint or "")
    assert hub.sent("model.safetensors") == 0


def test_perplexity_is_not_measured(repository: dict[str, bytes], hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo("org/tiny", repository)
    measured = CompressionOptions(recipe("8"), explicit=True, measure=True)
    with pytest.raises(InvalidInput, match="org/tiny is an embedding model") as refused:
        asyncio.run(_pulled("org/tiny", _settings(tmp_path, hub), compression=measured))
    assert refused.value.param == "--measure"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"2_Dense/model.safetensors": None}, r"2_Dense/model\.safetensors of tiny cannot be read: it is missing"),
        ({"2_Dense/config.json": b'{"in_features": 60, "out_features": 16}'}, "takes 60 numbers"),
        ({"1_Pooling/config.json": None}, r"has no 1_Pooling/config\.json"),
    ],
)
def test_a_damaged_directory_is_refused_by_file(
    repository: dict[str, bytes], tmp_path: Path, changed: dict[str, bytes | None], problem: str
) -> None:
    source = tmp_path / "tiny"
    for name, content in (repository | changed).items():
        if content is not None:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
    with pytest.raises(CorruptModel, match=problem):
        asyncio.run(_pulled(str(source), _settings(tmp_path)))


@pytest.mark.parametrize(
    ("name", "taken", "weights"),
    [
        ("model.safetensors", True, True),
        ("modules.json", True, False),
        ("2_Dense/model.safetensors", True, False),
        ("1_Pooling/config.json", True, False),
        ("2_Dense/pytorch_model.bin", False, False),
        ("onnx/config.json", False, False),
        ("2_Dense/deeper/config.json", False, False),
        ("../2_Dense/config.json", False, False),
    ],
)
def test_which_files_belong_to_a_model(name: str, taken: bool, weights: bool) -> None:
    assert (is_model_file(name), is_weights(name)) == (taken, weights)
