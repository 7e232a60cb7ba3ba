"""GGUF import: a llama-family GGUF file becomes an MLX model directory that mlx_lm loads.

It owns the directory it writes: weights, configuration, tokenizer files. The container is file.py, the block
formats blocks.py, the meaning of keys and tensor names plan.py, the tokenizer tokenizer.py.
It does not know the model store: the caller gives an empty directory and commits it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from squish.errors import StoreError
from squish.worker.gguf.blocks import GROUP_SIZE, PACKED_BITS, Weights, decode
from squish.worker.gguf.file import read_header, read_tensor
from squish.worker.gguf.plan import Plan, Target, make_plan
from squish.worker.gguf.tokenizer import SpecialTokens, write_tokenizer

Progress = Callable[[str, float], None]

_SHARD_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class GgufImport:
    """What a GGUF file holds. bits and group_size are None when no weight stays quantized."""

    architecture: str
    name: str
    quantization: str
    bits: int | None
    group_size: int | None
    context_length: int
    parameters: int
    license: str | None


def inspect_gguf(source: Path) -> GgufImport:
    """Say what `source` holds, or refuse it, from its header alone.

    Raises ModelNotFound, CorruptModel (damaged or cut off), UnsupportedModel (named architecture, tokenizer, format).
    """
    return _describe(make_plan(read_header(source)))


def import_gguf(source: Path, destination: Path, progress: Progress | None = None) -> GgufImport:
    """Write `source` as an MLX model into the empty directory `destination`.

    progress(phase, fraction) gets "tokenizer" once, then "weights" up to 1. Memory: at most 4 GiB of weights at a time
    and the decoding of one tensor.
    Raises what inspect_gguf raises, before anything is written, and StoreError when `destination` cannot be written.
    """
    plan = make_plan(read_header(source))
    found = _describe(plan)
    report = progress or _ignore
    try:
        destination.mkdir(parents=True, exist_ok=True)
        write_tokenizer(plan.header, destination, plan.dimensions.context)
        report("tokenizer", 1.0)
        _write_weights(plan, destination, report)
        _write_json(destination / "config.json", _config(plan))
        _write_json(destination / "generation_config.json", _token_ids(plan.specials))
    except OSError as error:
        raise StoreError(f"The imported model cannot be written to {destination} ({error.strerror}).") from None
    return found


def _ignore(phase: str, fraction: float) -> None:
    pass


def _describe(plan: Plan) -> GgufImport:
    header = plan.header
    return GgufImport(
        architecture=plan.architecture,
        name=header.text("general.name") or header.path.stem,
        quantization=_quantization(plan),
        bits=plan.bits,
        group_size=GROUP_SIZE if plan.bits else None,
        context_length=plan.dimensions.context,
        parameters=sum(math.prod(target.info.shape) for target in plan.targets),
        license=header.text("general.license"),
    )


def _quantization(plan: Plan) -> str:
    """The formats of the matrices, most weights first, as in "Q4_0 with Q6_K (4-bit, group 32)"."""
    sizes: Counter[str] = Counter()
    for target in plan.targets:
        if len(target.info.shape) > 1:
            sizes[target.info.format.name] += math.prod(target.info.shape)
    names = [name for name, _ in sizes.most_common()]
    label = names[0] + (f" with {', '.join(names[1:])}" if names[1:] else "")
    if plan.bits is not None:
        return f"{label} ({plan.bits}-bit, group {GROUP_SIZE})"
    return label if names[0] in ("F32", "F16", "BF16") else f"{label} (decoded to float16)"


def _write_weights(plan: Plan, destination: Path, report: Progress) -> None:
    shards = _shards(plan.targets)
    total = sum(target.info.nbytes for target in plan.targets)
    done, stored, places = 0, 0, {}
    with plan.header.path.open("rb") as file:
        for number, shard in enumerate(shards, 1):
            arrays: dict[str, mx.array] = {}
            for target in shard:
                data = read_tensor(file, plan.header.path, target.info)
                arrays.update(_arrays(target, decode(data, target.info), plan.dtype))
                mx.eval(list(arrays.values())[-3:])
                done += target.info.nbytes
                report("weights", done / total)
            name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            try:
                mx.save_safetensors(str(destination / name), arrays, metadata={"format": "mlx"})
            except RuntimeError as error:
                raise StoreError(f"{name} cannot be written to {destination}: {error}") from None
            stored += sum(array.nbytes for array in arrays.values())
            places.update(dict.fromkeys(arrays, name))
    index = {"metadata": {"total_size": stored}, "weight_map": dict(sorted(places.items()))}
    _write_json(destination / "model.safetensors.index.json", index)


def _shards(targets: tuple[Target, ...]) -> list[list[Target]]:
    """Cut the tensors into files of at most 4 GiB, counted as they will be stored."""
    shards: list[list[Target]] = [[]]
    room = _SHARD_BYTES
    for target in targets:
        kind, count = target.info.format.name, math.prod(target.info.shape)
        size = target.info.nbytes if kind in ("F32", *PACKED_BITS) else 2 * count
        if size > room and shards[-1]:
            shards.append([])
            room = _SHARD_BYTES
        shards[-1].append(target)
        room -= size
    return shards


def _arrays(target: Target, weights: Weights, dtype: mx.Dtype) -> dict[str, mx.array]:
    """The named arrays of one tensor. Rows of scales and biases move with the rows of their weight."""
    if len(target.info.shape) == 1:
        return {target.name: _narrow(weights.weight, dtype)}
    stem = target.name.removesuffix(".weight")
    named = {"weight": weights.weight, "scales": weights.scales, "biases": weights.biases}
    return {f"{stem}.{part}": _rows(array, target.heads) for part, array in named.items() if array is not None}


def _narrow(vector: mx.array, dtype: mx.Dtype) -> mx.array:
    """A float32 norm or bias would raise every activation to float32; narrow it when that loses nothing."""
    narrow = vector.astype(dtype)
    return narrow if mx.array_equal(narrow.astype(mx.float32), vector.astype(mx.float32)).item() else vector


def _rows(array: mx.array, heads: int) -> mx.array:
    """Rows 2i and 2i + 1 of a head, one rotary pair in GGUF, become rows i and i + half."""
    if not heads:
        return array
    return array.reshape(heads, -1, 2, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)


def _config(plan: Plan) -> dict[str, object]:
    size = plan.dimensions
    embedding = plan.header.tensors["token_embd.weight"]
    config: dict[str, object] = {
        "architectures": [plan.family.model_class],
        "model_type": plan.architecture,
        "hidden_act": "silu",
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head,
        "rms_norm_eps": size.epsilon,
        "rope_theta": size.rope_base,
        "vocab_size": embedding.shape[0],
        "max_position_embeddings": size.context,
        "tie_word_embeddings": plan.tied,
        "torch_dtype": str(plan.dtype).removeprefix("mlx.core."),
        **_token_ids(plan.specials),
    }
    if plan.rope_factor is not None:
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": plan.rope_factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    if plan.bits is not None:
        config["quantization"] = _quantization_config(plan, plan.bits)
        config["quantization_config"] = config["quantization"]
    return config


def _quantization_config(plan: Plan, bits: int) -> dict[str, object]:
    """The default, and an entry for every packed module with other bits; modules without scales stay as they are."""
    settings: dict[str, object] = {"group_size": GROUP_SIZE, "bits": bits, "mode": "affine"}
    for target in plan.targets:
        own = PACKED_BITS.get(target.info.format.name)
        if own is not None and own != bits:
            settings[target.name.removesuffix(".weight")] = {"group_size": GROUP_SIZE, "bits": own, "mode": "affine"}
    return settings


def _token_ids(specials: SpecialTokens) -> dict[str, object]:
    named: dict[str, object] = {"bos_token_id": specials.bos, "pad_token_id": specials.pad}
    ids = {key: value for key, value in named.items() if value is not None}
    return ids | ({"eos_token_id": list(specials.eos)} if specials.eos else {})


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
