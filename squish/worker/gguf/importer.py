"""GGUF import: a GGUF file becomes an MLX model directory, which mlx_lm loads too where no K-quants are kept.

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
from squish.format.config import text_of
from squish.worker.gguf.blocks import GROUP_SIZE, Packing, Weights, decode, decode_k_quant
from squish.worker.gguf.file import GgufHeader, Incomplete, Ranges, corrupt, read_header, read_tensor
from squish.worker.gguf.parts import is_part, read_model
from squish.worker.gguf.plan import Plan, Target, make_plan, require_kind
from squish.worker.gguf.tokenizer import SpecialTokens, check_tokenizer, require_tokenizer_kind, write_tokenizer
from squish.worker.model.k_quants import KEY

Progress = Callable[[str, float], None]

_SHARD_BYTES = 4 << 30
# Half a step of bfloat16, relative to the number.
_LOSS = 2.0**-9


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


def require_importable(source: Path, *, k_quants: bool = False) -> None:
    """Refuse a model by its headers alone, as importing it would; source: its file, or any of its parts.

    Raises ModelNotFound, CorruptModel (damaged or cut off), UnsupportedModel (named architecture, tokenizer, format).
    """
    make_plan(read_model(source), k_quants=k_quants)


def inspect_start(
    source: Path, size: int, present: Ranges, *, part: bool = False, k_quants: bool = False
) -> tuple[int, int] | None:
    """Judge a file of which only these bytes are there; the bytes that are needed to go on, None where it is fine.

    size: of the whole file; part: it is not the first of several files, of which only the tensors are judged.
    Raises what require_importable raises, as soon as the bytes that are there say it.
    """
    try:
        header = read_header(source, size, present)
        if not part:
            _judge(header, k_quants)
    except Incomplete as found:
        partial = GgufHeader(source, found.metadata, {}, present)
        if not part:
            require_kind(partial)
            require_tokenizer_kind(partial)
        return found.start, found.end
    return None


def _judge(header: GgufHeader, k_quants: bool) -> None:
    """Raise what importing would raise. Of a model in several files the first may hold no tensors at all."""
    if is_part(header) and "token_embd.weight" not in header.tensors:
        require_kind(header)
        check_tokenizer(header)
    else:
        make_plan(header, whole=not is_part(header), k_quants=k_quants)


def import_gguf(
    source: Path, destination: Path, progress: Progress | None = None, *, k_quants: bool = False
) -> GgufImport:
    """Write `source`, one file or any of several parts, as an MLX model into the empty directory `destination`.

    progress(phase, fraction) gets "tokenizer" once, then "weights" up to 1; half of that is reading. Memory: at most
    4 GiB of weights and the decoding of one tensor. k_quants: they stay what they are, for a machine that computes
    with them (k_quants.py); other machines load the result too, more slowly.
    Raises what require_importable raises, before anything is written, CorruptModel for numbers that are not finite, and
    StoreError when `destination` cannot be written.
    """
    plan = make_plan(read_model(source), k_quants=k_quants)
    report = progress or _ignore
    try:
        destination.mkdir(parents=True, exist_ok=True)
        write_tokenizer(plan.header, destination, plan.context)
        report("tokenizer", 1.0)
        stored = _write_weights(plan, destination, report)
        _write_json(destination / "config.json", _config(plan))
        _write_json(destination / "generation_config.json", _token_ids(plan.specials))
    except OSError as error:
        raise StoreError(f"The imported model cannot be written to {destination} ({error.strerror}).") from None
    return _describe(plan, stored)


def _ignore(phase: str, fraction: float) -> None:
    pass


def _describe(plan: Plan, stored: int) -> GgufImport:
    """stored: bytes of the imported weights."""
    bits = _bits(plan)
    return GgufImport(
        architecture=plan.architecture,
        name=plan.name,
        quantization=_quantization(plan, stored),
        bits=bits,
        group_size=GROUP_SIZE if bits else None,
        context_length=plan.context,
        parameters=sum(target.count for target in plan.targets),
        license=plan.license,
    )


def _quantization(plan: Plan, stored: int) -> str:
    """The formats of matrices, most weights first: "Q4_0 (4-bit, group 32)", "Q4_K with Q6_K (4.9 bits a weight)"."""
    matrices = [info for target in plan.targets for info in target.sources if len(info.shape) > 1]
    sizes: Counter[str] = Counter()
    for info in matrices:
        sizes[info.format.name] += math.prod(info.shape)
    names, bits = [name for name, _ in sizes.most_common()], _bits(plan)
    label = names[0] + (f" with {', '.join(names[1:])}" if names[1:] else "")
    if bits is not None and len(names) > 1:
        average = 8 * stored / sum(target.count for target in plan.targets)
        return f"{label} ({average:.1f} bits a weight)"
    if bits is not None:
        return f"{label} ({bits}-bit, group {GROUP_SIZE})"
    return label if names[0] in ("F32", "F16", "BF16") else f"{label} (decoded to float16)"


def _bits(plan: Plan) -> int | None:
    return plan.commonest.bits if plan.commonest else None


def _write_weights(plan: Plan, destination: Path, report: Progress) -> int:
    """Bytes of the arrays that were written."""
    shards = _shards(plan.targets)
    total = sum(target.nbytes for target in plan.targets)
    done, stored, places = 0, 0, {}  # done: bytes read, and once more when they are written
    for number, shard in enumerate(shards, 1):
        made = plan.made if number == 1 else {}
        arrays = {name: _narrow(array, plan.dtype) for name, array in made.items()}
        for target in shard:
            found = _arrays(target, plan)
            mx.eval(list(found.values()))
            arrays.update(found)
            done += target.nbytes
            report("weights", done / (2 * total))
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        try:
            mx.save_safetensors(str(destination / name), arrays, metadata={"format": "mlx"})
        except RuntimeError as error:
            raise StoreError(f"{name} cannot be written to {destination}: {error}") from None
        done += sum(target.nbytes for target in shard)
        report("weights", done / (2 * total))
        stored += sum(array.nbytes for array in arrays.values())
        places.update(dict.fromkeys(arrays, name))
    index = {"metadata": {"total_size": stored}, "weight_map": dict(sorted(places.items()))}
    _write_json(destination / "model.safetensors.index.json", index)
    return stored


def _shards(targets: tuple[Target, ...]) -> list[list[Target]]:
    """Cut the tensors into files of at most 4 GiB, counted as they will be stored."""
    shards: list[list[Target]] = [[]]
    room = _SHARD_BYTES
    for target in targets:
        size = target.nbytes if target.packed or target.format == "F32" else 2 * target.count
        if size > room and shards[-1]:
            shards.append([])
            room = _SHARD_BYTES
        shards[-1].append(target)
        room -= size
    return shards


def _arrays(target: Target, plan: Plan) -> dict[str, mx.array]:
    """The named parameters of a target. Scales and biases go the way of the rows that they belong to."""
    if target.k_quant:
        decoded = [decode_k_quant(read_tensor(info), info) for info in target.sources]
    else:
        decoded = [decode(read_tensor(info), info, packed=target.packed) for info in target.sources]
    for info, weights in zip(target.sources, decoded, strict=True):
        if not weights.finite():
            raise corrupt(info.path, f"tensor {info.name} has numbers that are not finite")
    if not target.packed:
        parts = _moved(target, [each.weight for each in decoded], plan)
        narrow = not target.wide and (target.format == "F32" or parts[0].ndim == 1)
        return {
            name: _narrow(part, plan.dtype) if narrow else part for name, part in zip(target.names, parts, strict=True)
        }
    found: dict[str, mx.array] = {}
    for kind, arrays in _kinds(decoded).items():
        for name, part in zip(target.names, _moved(target, arrays, plan), strict=True):
            found[f"{name.removesuffix('.weight')}.{kind}"] = part
    return found


def _kinds(decoded: list[Weights]) -> dict[str, list[mx.array]]:
    kinds: dict[str, list[mx.array]] = {"weight": [each.weight for each in decoded]}
    for kind in ("scales", "biases", "minima", "of_scales", "of_minima"):
        arrays = [array for each in decoded if (array := getattr(each, kind)) is not None]
        if arrays:
            kinds[kind] = arrays
    return kinds


def _moved(target: Target, arrays: list[mx.array], plan: Plan) -> list[mx.array]:
    return [mx.contiguous(part) for part in target.moved(arrays, text_of(plan.config))]


def _narrow(array: mx.array, dtype: mx.Dtype) -> mx.array:
    """Anything in float32 would raise every activation to float32; narrow it when that loses next to nothing."""
    if array.dtype == dtype:
        return array
    wide = array.astype(mx.float32)
    lost = mx.abs(array.astype(dtype).astype(mx.float32) - wide)
    return array.astype(dtype) if (lost <= _LOSS * mx.maximum(mx.abs(wide), 1e-3)).all().item() else array


def _config(plan: Plan) -> dict[str, object]:
    config: dict[str, object] = {
        **plan.config,
        "torch_dtype": str(plan.dtype).removeprefix("mlx.core."),
        **_token_ids(plan.specials),
    }
    if plan.commonest is not None:
        config["quantization"] = _quantization_config(plan, plan.commonest)
        config["quantization_config"] = config["quantization"]
    kept = {
        name.removesuffix(".weight"): each.packing.bits for each in plan.targets if each.k_quant for name in each.names
    }
    if kept:
        config[KEY] = kept
    return config


def _quantization_config(plan: Plan, default: Packing) -> dict[str, object]:
    """The default, and an entry for every module packed otherwise; modules without scales stay as they are."""
    settings: dict[str, object] = {"group_size": GROUP_SIZE, "bits": default.bits, "mode": default.mode}
    for target in plan.targets:
        own = target.packing if target.packed and not target.k_quant else default
        if own.key != default.key:
            for name in target.names:
                entry = {"group_size": GROUP_SIZE, "bits": own.bits, "mode": own.mode}
                settings[name.removesuffix(".weight")] = entry
    return settings


def _token_ids(specials: SpecialTokens) -> dict[str, object]:
    named: dict[str, object] = {"bos_token_id": specials.bos, "pad_token_id": specials.pad}
    ids = {key: value for key, value in named.items() if value is not None}
    return ids | ({"eos_token_id": list(specials.eos)} if specials.eos else {})


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
