"""What the files of sentence-transformers say of an embedding model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from squish.errors import CorruptModel, UnsupportedModel
from squish.format import model_directory
from squish.format.embedding import DenseStep, VectorRecipe, kind_of, recipe, require_encoding

_TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
_POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
_DENSE = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
_NORMALIZE = {"path": "3_Normalize", "type": "sentence_transformers.models.Normalize"}
_LAYER = {"in_features": 8, "out_features": 4, "activation_function": "torch.nn.modules.linear.Identity"}


def _recipe(steps: list[dict[str, Any]] | None, **files: Any) -> VectorRecipe:
    """The recipe of these steps and files, which are named with __ for / and without .json."""
    found = {f"{name.replace('__', '/')}.json": json.dumps(value).encode() for name, value in files.items()}
    if steps is not None:
        found["modules.json"] = json.dumps(steps).encode()
    return recipe(found.get, "m")


def _pooling(**modes: Any) -> dict[str, Any]:
    return {"1_Pooling__config": {f"pooling_mode_{name}": value for name, value in modes.items()}}


def test_a_model_without_steps_takes_the_mean_of_its_tokens() -> None:
    assert _recipe(None) == VectorRecipe(("mean",))


@pytest.mark.parametrize(
    ("mode", "pooling"),
    [("cls_token", "cls"), ("mean_tokens", "mean"), ("max_tokens", "max"), ("lasttoken", "lasttoken")],
)
def test_the_pooling_is_what_its_file_says(mode: str, pooling: str) -> None:
    assert _recipe([_TRANSFORMER, _POOLING], **_pooling(**{mode: True, "x": False})).pooling == (pooling,)


def test_a_newer_file_names_its_pooling() -> None:
    assert _recipe([_TRANSFORMER, _POOLING], **{"1_Pooling__config": {"pooling_mode": "cls"}}).pooling == ("cls",)


def test_all_that_the_files_say_is_taken() -> None:
    found = _recipe(
        [_TRANSFORMER, _POOLING, _DENSE, _NORMALIZE],
        **_pooling(mean_tokens=True),
        **{"2_Dense__config": _LAYER},
        sentence_bert_config={"max_seq_length": 256, "do_lower_case": True},
        config_sentence_transformers={"prompts": {"query": "q: "}, "default_prompt_name": "query"},
    )
    dense = DenseStep("2_Dense", 8, 4, bias=True, activation="identity")
    assert found == VectorRecipe(("mean",), True, (dense,), True, 256, True, {"query": "q: "}, "query")


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([_TRANSFORMER, {"path": "1_CNN", "type": "sentence_transformers.models.CNN"}], "models.CNN"),
        ([_TRANSFORMER, {"path": "", "type": "custom_st.Pooling"}], "custom_st.Pooling"),
        ([_POOLING, _TRANSFORMER], "order .*: Pooling, Transformer"),
        ([_TRANSFORMER, _POOLING, _NORMALIZE, _DENSE], "order"),
        ([_TRANSFORMER | {"path": "0_Transformer"}, _POOLING], "order"),
        ([_TRANSFORMER, _POOLING | {"path": "../1_Pooling"}], "a name such as 1_Pooling"),
    ],
)
def test_steps_that_are_not_computed_are_refused(steps: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(UnsupportedModel, match=problem):
        _recipe(steps, **_pooling(mean_tokens=True), **{"2_Dense__config": _LAYER})


@pytest.mark.parametrize(
    "modes", [{}, {"weightedmean_tokens": True}, {"mean_tokens": True, "mean_sqrt_len_tokens": True}]
)
def test_another_pooling_is_refused(modes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel, match=r"1_Pooling/config\.json of m asks for a pooling other than"):
        _recipe([_TRANSFORMER, _POOLING], **_pooling(**modes))


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("sentence_bert_config", {"max_seq_length": "long"}),
        ("config_sentence_transformers", {"prompts": ["q"]}),
        ("config_sentence_transformers", {"default_prompt_name": "query"}),
        ("2_Dense__config", {"in_features": 8}),
    ],
)
def test_a_file_that_makes_no_sense_is_named(file: str, value: Any) -> None:
    with pytest.raises(CorruptModel, match=file.replace("__", "/")):
        _recipe([_TRANSFORMER, _POOLING, _DENSE], **_pooling(mean_tokens=True), **{file: value})


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(CorruptModel, match=r"has no 1_Pooling/config\.json"):
        _recipe([_TRANSFORMER, _POOLING])


def test_the_kind_is_known_by_the_architecture_or_by_the_steps() -> None:
    assert kind_of({"model_type": "bert"}, None) == "embedding"
    assert kind_of({"model_type": "qwen3"}, b"[]") == "embedding"
    assert kind_of({"model_type": "qwen3"}, None) == "chat"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, "labels or scores"),
        ({"model_type": "bert", "auto_map": {"AutoModel": "modeling.X"}}, "never runs a model's code"),
        ({"model_type": "bert", "position_embedding_type": "alibi"}, "position_embedding_type to 'alibi'"),
        ({"model_type": "qwen2", "is_causal": False}, "is_causal to False"),
        ({"model_type": "llama", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_what_our_code_does_not_compute_is_refused(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(UnsupportedModel, match=problem):
        require_encoding(config, "m")


def test_a_decoder_that_looks_both_ways_is_taken_only_as_an_embedding_model() -> None:
    config = {
        "model_type": "gemma3_text", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 64,
        "num_attention_heads": 2, "head_dim": 32, "num_key_value_heads": 1, "vocab_size": 32,
        "use_bidirectional_attention": True,
    }  # fmt: skip
    found = model_directory.require_config(config, "m", modules=b"[]")
    assert found["use_bidirectional_attention"] is True and found["tie_word_embeddings"] is True
    with pytest.raises(UnsupportedModel, match="use_bidirectional_attention"):
        model_directory.require_config(config, "m")
