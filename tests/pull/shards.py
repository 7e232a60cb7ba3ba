"""Full-precision repositories for tests: the real model dequantized, and tiny random ones, in several shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, dequantize_model, load_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def full_precision(model: Path, directory: Path, shards: int) -> dict[str, bytes]:
    """The files of a repository with the float16 weights of a quantized model directory."""
    loaded: Any = load_model(model, lazy=True)
    dense: Any = dequantize_model(loaded[0])
    flattened: Any = tree_flatten(dense.parameters())
    weights = {name: array.astype(mx.float16) for name, array in flattened}
    config = {k: v for k, v in loaded[1].items() if k not in ("quantization", "quantization_config")}
    files = in_shards(weights, config | {"torch_dtype": "float16"}, directory, shards)
    return files | {name: (model / name).read_bytes() for name in TOKENIZER if (model / name).is_file()}


def in_shards(weights: dict[str, mx.array], config: dict[str, Any], directory: Path, shards: int) -> dict[str, bytes]:
    """config.json, the index, and shards of about the same size, in the order of the weights."""
    total, size, parts = sum(array.nbytes for array in weights.values()), 0, [dict[str, mx.array]()]
    for name, array in weights.items():
        if size >= total / shards * len(parts) and len(parts) < shards:
            parts.append({})
        parts[-1][name] = array
        size += array.nbytes
    directory.mkdir(parents=True, exist_ok=True)
    places, files = {}, {"config.json": json.dumps(config).encode()}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        mx.save_safetensors(str(directory / name), part, metadata={"format": "pt"})
        places.update(dict.fromkeys(part, name))
        files[name] = (directory / name).read_bytes()
        (directory / name).unlink()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    return files | {"model.safetensors.index.json": json.dumps(index).encode()}


def byte_tokenizer() -> dict[str, bytes]:
    """The files of a tokenizer with 256 tokens, one a byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(BPE({letter: number for number, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    about = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {"tokenizer.json": made.to_str().encode(), "tokenizer_config.json": json.dumps(about).encode()}


def tiny_llama(**changes: Any) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Random weights of a llama with two layers, and its config."""
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5,
        "vocab_size": 256,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    } | changes
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    weights = {"model.embed_tokens.weight": _random(vocabulary, hidden)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        weights |= {
            f"{at}.self_attn.q_proj.weight": _random(hidden, hidden),
            f"{at}.self_attn.k_proj.weight": _random(keys, hidden),
            f"{at}.self_attn.v_proj.weight": _random(keys, hidden),
            f"{at}.self_attn.o_proj.weight": _random(hidden, hidden),
            f"{at}.mlp.gate_proj.weight": _random(inner, hidden),
            f"{at}.mlp.up_proj.weight": _random(inner, hidden),
            f"{at}.mlp.down_proj.weight": _random(hidden, inner),
            f"{at}.input_layernorm.weight": mx.ones(hidden),
            f"{at}.post_attention_layernorm.weight": mx.ones(hidden),
        }
    return weights | {"model.norm.weight": mx.ones(hidden)}, config


def tiny_mixtral() -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Random weights of a mixture of experts as it is published: every expert a tensor of its own."""
    weights, config = tiny_llama(model_type="mixtral", num_local_experts=4, num_experts_per_tok=2)
    config["tie_word_embeddings"] = False
    weights = {name: array for name, array in weights.items() if ".mlp." not in name}
    weights["lm_head.weight"] = _random(config["vocab_size"], 64)
    for layer in range(2):
        at = f"model.layers.{layer}.block_sparse_moe"
        weights[f"{at}.gate.weight"] = _random(4, 64)
        for expert in range(4):
            weights[f"{at}.experts.{expert}.w1.weight"] = _random(128, 64)
            weights[f"{at}.experts.{expert}.w2.weight"] = _random(64, 128)
            weights[f"{at}.experts.{expert}.w3.weight"] = _random(128, 64)
    return weights, config


def tiny_gptj() -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Random weights of a model that calls its layers by keywords, so that nothing flows back through them."""
    config: dict[str, Any] = {"model_type": "gptj", "vocab_size": 256, "n_embd": 64, "n_head": 2, "n_layer": 2}
    config |= {"n_positions": 512, "rotary_dim": 16, "layer_norm_epsilon": 1e-5}
    model_class, arguments = _get_classes(config)
    return dict(tree_flatten(model_class(arguments.from_dict(config)).parameters())), config


def _random(*shape: int) -> mx.array:
    return mx.random.normal(shape) * 0.05
