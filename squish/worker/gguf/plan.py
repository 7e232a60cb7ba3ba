"""What a GGUF file means: its architecture, its sizes, and the place of every tensor in the MLX model.

It decides from the header alone, and refuses by name whatever it does not know: an architecture, a setting, a tensor.
It knows no bytes of weights and writes nothing.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx

from squish.errors import UnsupportedModel
from squish.worker.gguf.blocks import PACKED_BITS
from squish.worker.gguf.file import GgufHeader, TensorInfo, read_tensor
from squish.worker.gguf.tokenizer import SpecialTokens, check_tokenizer

_FREQUENCIES = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture name of GGUF, and how its layers differ from plain llama."""

    model_class: str
    interleaved: bool = False  # rows of q and k are stored in rotary pairs, and are put back into halves
    attention_bias: bool = False
    head_norms: bool = False


_FAMILIES = {
    "llama": Family("LlamaForCausalLM", interleaved=True),
    "qwen2": Family("Qwen2ForCausalLM", attention_bias=True),
    "qwen3": Family("Qwen3ForCausalLM", head_norms=True),
}

# Keys below the architecture's name that are used or change nothing; any other may mean another computation.
_KNOWN_KEYS = frozenset(
    {
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.layer_norm_rms_epsilon",
        "attention.value_length",
        "block_count",
        "context_length",
        "embedding_length",
        "expert_count",
        "expert_used_count",
        "feed_forward_length",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        "tensor_data_layout",
        "vocab_size",
    }
)


@dataclass(frozen=True, slots=True)
class Dimensions:
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    context: int
    rope_base: float
    epsilon: float


@dataclass(frozen=True, slots=True)
class Target:
    """One tensor on its way: where it goes in MLX, and the heads whose rows must be reordered (0: none)."""

    name: str
    info: TensorInfo
    heads: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    header: GgufHeader
    architecture: str
    family: Family
    dimensions: Dimensions
    targets: tuple[Target, ...]
    rope_factor: float | None
    specials: SpecialTokens

    @property
    def tied(self) -> bool:
        return all(target.name != "lm_head.weight" for target in self.targets)

    @property
    def dtype(self) -> mx.Dtype:
        """What the model computes in: the type of its embedding, or of that embedding's scales."""
        stored = next(target.info.format.name for target in self.targets if target.name == "model.embed_tokens.weight")
        return {"F32": mx.float32, "BF16": mx.bfloat16}.get(stored, mx.float16)

    @property
    def bits(self) -> int | None:
        """The bits of most packed weights, or None."""
        sizes: Counter[int] = Counter()
        for target in self.targets:
            if target.info.format.name in PACKED_BITS:
                sizes[PACKED_BITS[target.info.format.name]] += math.prod(target.info.shape)
        return sizes.most_common(1)[0][0] if sizes else None


def make_plan(header: GgufHeader) -> Plan:
    """Every refusal happens here, from the header alone (and the few bytes of the rotary frequencies)."""
    architecture = header.text("general.architecture")
    family = _FAMILIES.get(architecture or "")
    if architecture is None or family is None:
        raise _unsupported(header, f"the architecture {architecture!r}; known are {', '.join(sorted(_FAMILIES))}")
    if (header.integer("split.count") or 1) > 1:
        raise _unsupported(header, "a file split into several parts")
    if header.text("general.type") not in (None, "model"):
        raise _unsupported(header, f"a file of the type {header.text('general.type')!r}")
    _check_keys(header, architecture)
    dimensions = _dimensions(header, architecture)
    if architecture == "qwen2" and dimensions.head * dimensions.heads != dimensions.hidden:
        raise _unsupported(header, "a qwen2 whose heads do not fill the hidden size")
    specials = check_tokenizer(header)
    targets = _targets(header, family, dimensions, specials.vocabulary)
    factor = _rope_factor(header, dimensions)
    return Plan(header, architecture, family, dimensions, targets, factor, specials)


def _unsupported(header: GgufHeader, what: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{header.path.name} cannot be imported: {what}.",
        hint="Look for the same model in the safetensors format.",
        param=str(header.path),
    )


def _check_keys(header: GgufHeader, architecture: str) -> None:
    prefix = f"{architecture}."
    for key in header.metadata:
        if key.startswith(prefix) and key.removeprefix(prefix) not in _KNOWN_KEYS:
            raise _unsupported(header, f"the setting {key} is not known")
    if header.integer(f"{prefix}expert_count"):
        raise _unsupported(header, "a mixture of experts")
    scaling = header.text(f"{prefix}rope.scaling.type")
    if scaling not in (None, "none"):
        raise _unsupported(header, f"rotary scaling of the type {scaling!r}")


def _dimensions(header: GgufHeader, architecture: str) -> Dimensions:
    def size(key: str, default: int | None = None) -> int:
        value = header.integer(f"{architecture}.{key}")
        value = default if value is None else value
        if value is None or not 0 < value < 1 << 31:
            raise header.corrupt(f"{architecture}.{key} is missing or not usable")
        return value

    hidden, heads = size("embedding_length"), size("attention.head_count")
    head = size("attention.key_length", hidden // heads)
    kv_heads = size("attention.head_count_kv", heads)
    if heads % kv_heads:
        raise header.corrupt(f"{heads} heads cannot share {kv_heads} key heads")
    if size("rope.dimension_count", head) != head or size("attention.value_length", head) != head:
        raise _unsupported(header, "heads of unequal or only partly rotated length")
    epsilon = header.number(f"{architecture}.attention.layer_norm_rms_epsilon")
    base = header.number(f"{architecture}.rope.freq_base")
    if epsilon is None or epsilon <= 0 or (base is not None and base <= 0):
        raise header.corrupt("its norm epsilon or its rotary base is missing or not usable")
    return Dimensions(
        hidden=hidden,
        intermediate=size("feed_forward_length"),
        layers=size("block_count"),
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        context=size("context_length"),
        rope_base=10000.0 if base is None else base,
        epsilon=epsilon,
    )


def _targets(header: GgufHeader, family: Family, size: Dimensions, vocabulary: int) -> tuple[Target, ...]:
    """Match every tensor of the file with its place; a missing, misshapen or unknown one is refused by name."""
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise header.corrupt("tensor token_embd.weight is missing")
    rows = embedding.shape[0]
    if rows < vocabulary:
        raise header.corrupt(f"it has {vocabulary} tokens but {rows} embeddings")
    left = dict(header.tensors)
    left.pop(_FREQUENCIES, None)
    targets = []
    for name, place, shape, heads in _expected(family, size, rows, "output.weight" in left):
        info = left.pop(name, None)
        if info is None:
            raise header.corrupt(f"tensor {name} is missing")
        if info.shape != shape:
            raise header.corrupt(f"tensor {name} has the shape {list(info.shape)}, not {list(shape)}")
        if len(shape) == 1 and info.format.weights > 1:
            raise header.corrupt(f"tensor {name} is stored as {info.format.name}")
        targets.append(Target(place, info, heads))
    if left:
        raise _unsupported(header, f"the tensor {min(left)} is not known")
    return tuple(targets)


_Expectation = tuple[str, str, tuple[int, ...], int]


def _expected(family: Family, size: Dimensions, rows: int, output: bool) -> Iterator[_Expectation]:
    """(name in GGUF, name in MLX, shape, heads to reorder) of every tensor the architecture has."""
    yield "token_embd.weight", "model.embed_tokens.weight", (rows, size.hidden), 0
    for layer in range(size.layers):
        for old, new, shape, heads in _expected_in_layer(family, size):
            yield f"blk.{layer}.{old}", f"model.layers.{layer}.{new}", shape, heads
    yield "output_norm.weight", "model.norm.weight", (size.hidden,), 0
    if output:
        yield "output.weight", "lm_head.weight", (rows, size.hidden), 0


def _expected_in_layer(family: Family, size: Dimensions) -> Iterator[_Expectation]:
    hidden, inner = size.hidden, size.intermediate
    queries, keys = size.heads * size.head, size.kv_heads * size.head
    reorder = (size.heads, size.kv_heads) if family.interleaved else (0, 0)
    yield "attn_norm.weight", "input_layernorm.weight", (hidden,), 0
    yield "attn_q.weight", "self_attn.q_proj.weight", (queries, hidden), reorder[0]
    yield "attn_k.weight", "self_attn.k_proj.weight", (keys, hidden), reorder[1]
    yield "attn_v.weight", "self_attn.v_proj.weight", (keys, hidden), 0
    yield "attn_output.weight", "self_attn.o_proj.weight", (hidden, queries), 0
    if family.attention_bias:
        for part, width in (("q", queries), ("k", keys), ("v", keys)):
            yield f"attn_{part}.bias", f"self_attn.{part}_proj.bias", (width,), 0
    if family.head_norms:
        for part in ("q", "k"):
            yield f"attn_{part}_norm.weight", f"self_attn.{part}_norm.weight", (size.head,), 0
    yield "ffn_norm.weight", "post_attention_layernorm.weight", (hidden,), 0
    yield "ffn_gate.weight", "mlp.gate_proj.weight", (inner, hidden), 0
    yield "ffn_up.weight", "mlp.up_proj.weight", (inner, hidden), 0
    yield "ffn_down.weight", "mlp.down_proj.weight", (hidden, inner), 0


def _rope_factor(header: GgufHeader, size: Dimensions) -> float | None:
    """The factor of Llama 3 rotary scaling, recognized from the divisors the file stores; None without any.

    Divisors that are not exactly Llama 3's (low 1, high 4, original context 8192) are refused.
    """
    info = header.tensors.get(_FREQUENCIES)
    if info is None:
        return None
    if info.shape != (size.head // 2,) or info.format.name != "F32":
        raise header.corrupt(f"tensor {_FREQUENCIES} is not {size.head // 2} float32 numbers")
    with header.path.open("rb") as file:
        stored = struct.unpack(f"<{size.head // 2}f", read_tensor(file, header.path, info))
    factor = float(max(stored))
    if not 1 <= factor < math.inf:
        raise header.corrupt(f"tensor {_FREQUENCIES} is not a list of divisors")
    for at, divisor in enumerate(stored):
        wavelength = 2 * math.pi * size.rope_base ** (2 * at / size.head)
        smooth = min(1.0, max(0.0, (8192 / wavelength - 1) / 3))
        if not math.isclose(divisor * ((1 - smooth) / factor + smooth), 1, rel_tol=1e-4):
            raise _unsupported(header, "rotary frequencies that are not those of Llama 3")
    return factor
