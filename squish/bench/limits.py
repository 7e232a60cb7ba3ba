"""How far a model is from what this machine can do: bytes that a token makes it read, and operations of a prompt.

Decoding one stream reads every weight once a pass, so memory bounds it; a long prompt is bounded by arithmetic. A pass
makes a token, and more where tokens were guessed. The sizes come from the headers of the model's files and its
config.json. It knows no MLX and no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from squish.bench.measure import Figure
from squish.errors import CorruptModel
from squish.format import packed, safetensors
from squish.system.probed import Probed

_ACTIVE = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")
# Layers by the last part of their names: those that look tokens up, and those that make logits.
_EMBEDDINGS = ("embed_tokens", "wte", "tok_embeddings", "word_embeddings", "embed_in")
_HEADS = ("lm_head", "output", "embed_out")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class TokenCost:
    """What a token uses of a model. read: bytes of weights. operations: of its matrix products.

    logits: those of them that make logits, which of a prompt only the last token needs.
    """

    read: int
    operations: int
    logits: int = 0

    def of_prompt(self, tokens: int) -> int:
        """Operations of a prompt of so many tokens."""
        return tokens * (self.operations - self.logits) + self.logits


def cost_of(model: Path, in_memory: int = 0) -> TokenCost:
    """in_memory: bytes that all of the weights take there, which may be more or less than in the files; 0: the same.

    Raises CorruptModel for a file that cannot be read, and OSError.
    """
    try:
        config = msgspec.json.decode((model / "config.json").read_bytes(), type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise CorruptModel("config.json cannot be read.", param="config.json") from error
    tensors = [tensor for file in sorted(model.glob("model*.safetensors")) for tensor in _tensors(file)]
    tied = not any(_is(tensor, _HEADS) for tensor in tensors)
    share = _active_experts(config)
    read, operations, logits = 0.0, 0.0, 0.0
    scales = {tensor.name.removesuffix(".scales"): tensor for tensor in tensors if tensor.name.endswith(".scales")}
    for tensor in tensors:
        if _is(tensor, _EMBEDDINGS) and not tied:
            continue  # of these one row is read
        part = share if _is_expert(tensor.name) else 1.0
        read += tensor.nbytes * part
        layer, _, kind = tensor.name.rpartition(".")
        if kind == "weight" and len(tensor.shape) > 1:
            own = scales.get(layer)
            count = packed.numbers(layer, tensor.count, own.count, config) if own else tensor.count
            operations += 2 * count * part
            logits += 2 * count if _is(tensor, _EMBEDDINGS if tied else _HEADS) else 0
    stored = sum(tensor.nbytes for tensor in tensors)
    grown = in_memory / stored if in_memory and stored else 1.0
    return TokenCost(round(read * grown), round(operations), round(logits))


def _is(tensor: safetensors.Tensor, layers: tuple[str, ...]) -> bool:
    """Whether it belongs to one of these layers, by its name; parts of blocks may have such names too."""
    return tensor.name.split(".")[-2:][0] in layers and ".layers." not in tensor.name


def _tensors(file: Path) -> tuple[safetensors.Tensor, ...]:
    with file.open("rb") as stream:
        length = safetensors.header_length(stream.read(safetensors.PREFIX), file.name)
        return safetensors.parse(stream.read(length), file.name, file.stat().st_size)


def _is_expert(name: str) -> bool:
    return "experts" in name or "switch_mlp" in name


def _active_experts(config: dict[str, Any]) -> float:
    """The share of its experts that a token goes through; 1 where there are none."""
    text = config.get("text_config")
    config = text if isinstance(text, dict) else config
    active, all_of_them = _first(config, _ACTIVE), _first(config, _EXPERTS)
    return active / all_of_them if 0 < active <= all_of_them else 1.0


def _first(config: dict[str, Any], keys: tuple[str, ...]) -> int:
    return next((config[key] for key in keys if isinstance(config.get(key), int)), 0)


def most(*probes: Probed) -> Probed:
    """The higher one of each limit: a machine that was busier at one time could do more at another."""
    return msgspec.structs.replace(
        probes[0],
        read_gbps=max(each.read_gbps for each in probes),
        most_gflops=max(each.most_gflops for each in probes),
    )


def limits(figures: Sequence[Figure], cost: TokenCost, probed: Probed) -> tuple[Figure, ...]:
    """What was reached, beside the most that reading memory, and a product with weights, reaches here."""
    found = {figure.name: figure for figure in figures}
    made = [Figure("bytes read per pass", "MB", (cost.read / 1e6,))]
    if decode := found.get("decode, 1 stream"):
        passes = tuple(answer.passes_per_second for answer in decode.answers)
        made.append(Figure("passes while decoding", "per second", passes))
        made.append(Figure("read while decoding", "GB/s", tuple(each * cost.read / 1e9 for each in passes)))
    made.append(Figure("memory, at most", "GB/s", (probed.read_gbps,)))
    prompts = {name: figure for name, figure in found.items() if _is_prefill(name)}
    if prompts:
        longest = max(prompts, key=_tokens)
        speeds = (
            cost.of_prompt(answer.prompt - answer.cached) / answer.first / 1e9 for answer in prompts[longest].answers
        )
        made.append(Figure(f"prefill, {_tokens(longest)} tokens", "GFLOP/s", tuple(speeds)))
    return (*made, Figure("products, at most", "GFLOP/s", (probed.most_gflops,)))


def _is_prefill(name: str) -> bool:
    return name.startswith("first token,") and name.endswith(" tokens")


def _tokens(name: str) -> int:
    return int(name.split()[2])
