"""A key of config.json under another name than the code's is understood; one that the code would ignore is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm import utils
from mlx_lm.utils import _get_classes

from squish.errors import UnsupportedModel
from squish.format import architectures, arguments
from squish.format.config import context_length, has_windows, normalized
from tests.worker.gguf.test_families import uncompiled

__all__ = ["uncompiled"]  # a fixture

SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 96, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 80, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "layer_norm_eps": 1e-5, "layer_norm_epsilon": 1e-5, "norm_epsilon": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
# (model_type, what else is in config.json, as transformers 4 spelled the rest, as transformers 5 spells it)
SPELLINGS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("llama", {}, {"rope_theta": 50.0}, {"rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}}),
    (
        "llama",
        {},
        {"rope_theta": 50.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_theta": 50.0, "rope_type": "llama3", **LLAMA3}},
    ),
    (
        "qwen2",
        {},
        {"rope_theta": 50.0, "rope_scaling": {"type": "yarn", **YARN}},
        {"rope_parameters": {"rope_theta": 50.0, "rope_type": "yarn", **YARN}},
    ),
    (
        "gpt_neox",
        {"use_parallel_residual": True},
        {"rotary_emb_base": 50, "rotary_pct": 0.5},
        {"rope_parameters": {"rope_theta": 50, "rope_type": "default", "partial_rotary_factor": 0.5}},
    ),
    (
        "stablelm",
        {"use_qkv_bias": False, "use_parallel_residual": False},
        {"rope_theta": 50.0, "partial_rotary_factor": 0.5},
        {"rope_parameters": {"rope_theta": 50.0, "rope_type": "default", "partial_rotary_factor": 0.5}},
    ),
    (
        "gemma3_text",
        {"query_pre_attn_scalar": 16, "sliding_window": 8},
        {
            "rope_theta": 500.0, "rope_local_base_freq": 50.0, "sliding_window_pattern": 2,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        {
            "rope_parameters": {
                "full_attention": {"rope_theta": 500.0, "rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_theta": 50.0, "rope_type": "default"},
            },
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    (
        "phi3",
        {},
        {
            "rope_theta": 50.0, "original_max_position_embeddings": 128,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
        },
        {
            "rope_parameters": {
                "rope_theta": 50.0, "rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8,
                "original_max_position_embeddings": 128, "partial_rotary_factor": 1.0,
            },
        },
    ),
    ("olmo2", {}, {"rope_theta": 50.0}, {"rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}}),
    ("starcoder2", {"use_bias": True}, {"rope_theta": 50.0}, {"rope_parameters": {"rope_theta": 50.0}}),
]  # fmt: skip


def build(config: dict[str, Any], weights: dict[str, mx.array] | None = None) -> Any:
    model_class, taken = _get_classes(config)
    model: Any = model_class(taken.from_dict(copy.deepcopy(config)))
    if weights is None:
        mx.random.seed(7)
        arrays: Any = tree_flatten(model.parameters())
        drawn = [(name, mx.random.normal(each.shape) * 0.3) for name, each in arrays]
        model.update(tree_unflatten(drawn))
    else:
        model.load_weights(list(weights.items()))
    return model


def logits(model: Any) -> mx.array:
    found: mx.array = model(mx.arange(40)[None] % 80)
    return found.astype(mx.float32)


@pytest.mark.parametrize("case", SPELLINGS, ids=lambda case: f"{case[0]}-{sorted(case[2])[-1]}")
def test_both_spellings_give_the_same_numbers(case: tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]) -> None:
    kind, rest, old, new = case
    base = {"model_type": kind} | SMALL | rest
    model = build(normalized(base | old, kind))
    expected, weights = logits(model), dict(tree_flatten(model.parameters()))
    assert mx.allclose(logits(build(normalized(base | new, kind), weights)), expected, atol=1e-5)
    other = json.loads(json.dumps(new).replace("50.0", "77.0").replace(" 50,", " 77,"))
    assert not mx.allclose(logits(build(normalized(base | other, kind), weights)), expected, atol=1e-3)


@pytest.mark.parametrize("case", SPELLINGS, ids=lambda case: f"{case[0]}-{sorted(case[2])[-1]}")
def test_the_older_spelling_means_what_mlx_lm_takes_it_for(
    case: tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]],
) -> None:
    kind, rest, old, _ = case
    config = {"model_type": kind} | SMALL | rest | old
    model = build(config)
    weights = dict(tree_flatten(model.parameters()))
    assert mx.allclose(logits(build(normalized(config, kind), weights)), logits(model), atol=1e-5)


IGNORED: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping", {"attn_logit_softcapping": None}),
    ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping", {"final_logit_softcapping": 0}),
    ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional", {"use_bidirectional_attention": False}),
    ("gemma3_text", {"layer_types": ["full_attention"] + ["sliding_attention"] * 3}, "layer_types", {}),
    ("llama", {"partial_rotary_factor": 0.5, "rope_theta": 1e4}, "partial_rotary_factor", {"partial_rotary_factor": 1}),
    ("llama", {"logits_scaling": 8.0}, "logits_scaling", {"logits_scaling": 1.0}),
    ("llama", {"residual_multiplier": 0.22}, "residual_multiplier", {"residual_multiplier": 1}),
    ("llama", {"attention_multiplier": 0.5}, "attention_multiplier", {"attention_multiplier": 0.25}),
    ("llama", {"query_pre_attn_scalar": 144}, "query_pre_attn_scalar", {"query_pre_attn_scalar": 16}),
    ("llama", {"hidden_act": "gelu"}, "hidden_act", {"hidden_act": "silu"}),
    ("gemma2", {"hidden_activation": "silu"}, "hidden_activation", {"hidden_activation": "gelu_pytorch_tanh"}),
    ("olmoe", {"clip_qkv": 8.0}, "clip_qkv", {"clip_qkv": None}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx", {"scale_attn_weights": True}),
    ("gpt_oss", {"swiglu_limit": 9.0}, "swiglu_limit", {"swiglu_limit": 7.0}),
    ("mixtral", {"rope_scaling": {"type": "yarn", **YARN}}, "rope_type", {"rope_scaling": None}),
    ("qwen3_moe", {"rope_scaling": {"rope_type": "yarn", **YARN}}, "rope_type", {"rope_scaling": {"type": "default"}}),
    ("qwen2_moe", {"norm_topk_prob": True}, "norm_topk_prob", {"norm_topk_prob": False}),
    (
        "qwen2",
        {"rope_scaling": {"type": "yarn", **YARN, "attention_factor": 2.0}},
        "attention_factor",
        {"rope_scaling": {"type": "yarn", **YARN, "attention_factor": 1.138629}},
    ),
    (
        "llama",
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "llama_4_scaling_beta": 0.1}},
        "llama_4_scaling_beta",
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
    ),
    ("llama", {"rope_theta": "100000"}, "rope_theta to '100000'", {"rope_theta": 100000}),
    (
        "llama",
        {"rope_parameters": {"rope_theta": "100000", "rope_type": "default"}},
        "rope_theta to '100000'",
        {"rope_parameters": {"rope_theta": 100000, "rope_type": "default"}},
    ),
    (
        "qwen2",
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "of-tomorrow"}},
        "rope_parameters.rope_type to 'of-tomorrow'",
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "mrope", "mrope_section": [2, 3, 3]}},
    ),
]


@pytest.mark.parametrize("case", IGNORED, ids=lambda case: f"{case[0]}-{case[2]}")
def test_what_the_code_would_ignore_is_refused_by_name(case: tuple[str, Any, str, Any]) -> None:
    kind, changed, key, neutral = case
    base = {"model_type": kind} | SMALL
    with pytest.raises(UnsupportedModel, match="its answers would be wrong") as error:
        normalized(base | changed, "org/repo")
    assert key in error.value.message
    assert "org/repo" in error.value.message
    assert error.value.param == "config.json"
    normalized(base | neutral, "org/repo")


def test_what_is_said_of_the_language_model_is_read_where_it_stands() -> None:
    config = {
        "model_type": "mistral3",
        "text_config": {
            "model_type": "mistral",
            **SMALL,
            "rope_parameters": {"rope_theta": 77.0, "rope_type": "default"},
        },
    }
    del config["text_config"]["tie_word_embeddings"]  # type: ignore[attr-defined]
    found = normalized(config | {"tie_word_embeddings": True}, "org/repo")
    assert found["text_config"]["rope_theta"] == 77.0
    assert found["text_config"]["tie_word_embeddings"] is True
    with pytest.raises(UnsupportedModel, match="logits_scaling"):
        normalized({**config, "text_config": {**config["text_config"], "logits_scaling": 3.0}}, "x")  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("tensors", "tied"), [({"model.norm.weight", "lm_head.weight"}, False), ({"model.norm.weight"}, True)]
)
def test_weights_say_whether_embeddings_are_tied_where_config_json_does_not(tensors: set[str], tied: bool) -> None:
    """A llama that says nothing would have its own output matrix dropped."""
    config = {"model_type": "llama"} | {key: value for key, value in SMALL.items() if key != "tie_word_embeddings"}
    assert normalized(config, "x", tensors)["tie_word_embeddings"] is tied
    assert normalized(config | {"tie_word_embeddings": not tied}, "x", tensors)["tie_word_embeddings"] is not tied


@pytest.mark.parametrize(
    ("changed", "most"),
    [
        ({"model_type": "phi3", "sliding_window": 100}, 100),
        ({"model_type": "phi3", "sliding_window": None}, 512),
        ({"model_type": "phi3", "sliding_window": 9999}, 512),
        ({"model_type": "gemma2", "sliding_window": 100}, 100),
        ({"model_type": "gemma3_text", "sliding_window": 100}, 512),
        ({"model_type": "mistral", "sliding_window": 100}, 100),
        (
            {"model_type": "llama", "sliding_window": 100, "layer_types": ["sliding_attention", "full_attention"] * 2},
            512,
        ),
        ({"model_type": "qwen2", "sliding_window": 100, "use_sliding_window": False}, 512),
        ({"model_type": "qwen2", "sliding_window": 100, "max_window_layers": 2}, 512),
        ({"model_type": "qwen2", "sliding_window": 100, "max_window_layers": 2, "use_sliding_window": True}, 100),
        ({"model_type": "qwen2", "sliding_window": 100, "layer_types": ["full_attention"] * 4}, 512),
        ({"model_type": "llama4_text", "attention_chunk_size": 100, "floor_scale": 300}, 100),
    ],
)
def test_a_window_that_the_code_leaves_out_bounds_the_context(changed: dict[str, Any], most: int) -> None:
    assert context_length(SMALL | changed) == most


def test_layers_with_a_window_keep_a_window_only_where_the_code_does() -> None:
    windowed = SMALL | {"sliding_window": 100, "layer_types": ["sliding_attention", "full_attention"] * 2}
    assert has_windows(windowed | {"model_type": "gemma3_text"})
    assert not has_windows(windowed | {"model_type": "gemma2"})


def test_the_source_of_every_architecture_can_be_read() -> None:
    root = architectures.models_directory()
    assert root is not None
    for kind in architectures.supported() - architectures.ENCODERS:
        module = architectures.module_of({"model_type": kind})
        found = arguments.of_module(module)
        assert found is not None, kind
        assert found.fields, kind
        assert Path(root / f"{found.module}.py").is_file()


def test_an_architecture_has_the_other_names_that_mlx_lm_gives_it() -> None:
    assert utils.MODEL_REMAPPING and utils.MODEL_ARCHITECTURE_REMAPPING
    for kind, module in utils.MODEL_REMAPPING.items():
        assert architectures.module_of({"model_type": kind}) == module
    for (kind, architecture), module in utils.MODEL_ARCHITECTURE_REMAPPING.items():
        assert architectures.module_of({"model_type": kind, "architectures": [architecture]}) == module
