"""Will it fit: weights + KV cache at a context + what the engine itself takes, against a machine's memory.

Pure arithmetic on what config.json says; it reads no machine and no disk. All sizes are in bytes.

    needed = weights + KV cache + overhead
    weights    as they are stored; on a CPU without a compiler as float32, where that fits
    KV cache   2 · layers · KV heads · head size · bytes of a number · tokens; on a CPU, a number of the architectures
               that have a choice takes `kv_bits`, and 8 bits come with scales; a sliding window bounds the tokens of
               its layers, latent attention has one narrow vector instead, recurrent layers have none
    overhead   the process, its libraries, and the activations of one prefill step; on a CPU also the cache once more,
               because it is copied when it grows and when it is kept, or, where that is more, what float32 weights
               are made from while they are read
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Literal

from squish.format.architectures import ENCODERS, USUAL_KV_BITS, WITH_KV_BITS, module_of
from squish.format.config import has_windows, text_of
from squish.models.catalog import CacheDimensions
from squish.system.accelerator import PREFILL_STEP, PREFILL_STEP_ON_CPU

Fits = Literal["yes", "tight", "no"]

USUAL_CONTEXT = 8192  # tokens, where nothing else is said
_CACHE_STEP = 256
_PROCESS = 128_000_000
_READING = 132_000_000  # of the process while it loads a model
_TIGHT = 0.9
_QUANTIZED_BITS = 12  # a parameter; with fewer it is quantized
_WIDENED = 10 / 9  # quantized weights on a CPU to stored ones, for 4 bits in groups of 64


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory for models. kind: what it is called; total: what a model may take at most; free: at this moment.

    float32: caches whose bits cannot be chosen are float32, as on a CPU. packed: weights are multiplied as they are
    stored there, which takes a C++ compiler; else they are float32 too. elastic: the system makes room by compressing
    and swapping what other programs hold, so that only `total` is a limit. kv_bits: those that are set for the model,
    None for none.
    """

    kind: Literal["unified memory", "RAM", "VRAM"]
    total: int
    free: int
    float32: bool
    packed: bool = True
    elastic: bool = False
    kv_bits: int | None = None

    def kv_width(self, shape: Shape) -> float:
        """Bytes of a number in the KV cache."""
        if not (self.float32 and self.packed and shape.kv_choice):
            return 4 if self.float32 else 2
        return {32: 4.0, 16: 2.0, 8: 1 + 2 / 32}[self.kv_bits or USUAL_KV_BITS]


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model's architecture decides its memory.

    kv_numbers: numbers that the KV cache of one token holds in layers that see everything; window_numbers: in layers
    that see `window` tokens only. kv_choice: a number in it can have 32, 16 or 8 bits on a CPU. widened: size of
    quantized weights on a CPU, with codes of 4 or 8 bits and float32 scales, to that of stored ones.
    """

    parameters: int
    kv_numbers: int
    window_numbers: int = 0
    window: int = 0
    hidden: int = 0
    intermediate: int = 0
    vocabulary: int = 0
    widened: float = _WIDENED
    exact: bool = True
    kv_choice: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model needs at a context of so many tokens. exact: False where the architecture was guessed."""

    context: int
    weights: int
    cache: int
    overhead: int
    exact: bool

    @property
    def needed(self) -> int:
        return self.weights + self.cache + self.overhead


def shape_of(config: Mapping[str, Any], parameters: int) -> Shape:
    """The shape that config.json gives; what it does not say is guessed from the parameters."""
    known = dimensions(config)
    return (
        guessed(parameters)
        if known is None
        else with_dimensions(known, parameters, _widened(config.get("quantization")))
    )


def dimensions(config: Mapping[str, Any]) -> CacheDimensions | None:
    """What config.json says that decides how much memory a conversation takes; None where it says too little.

    The vector of latent attention counts as the keys and values of one head.
    """
    main = text_of(config)
    layers = _number(main, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = _number(main, "num_attention_heads", "n_head", "n_heads")
    hidden = _number(main, "hidden_size", "n_embd", "d_model", "dim")
    if not (layers and heads and hidden):
        return None
    kv_heads = _number(main, "num_key_value_heads", "n_kv_heads") or heads
    head = _number(main, "head_dim") or hidden // heads
    if latent := _number(main, "kv_lora_rank"):
        kv_heads, head = 1, (latent + _number(main, "qk_rope_head_dim")) // 2
    full, windowed = _attention_layers(main, layers) if main.get("model_type") not in ENCODERS else (0, 0)
    if windowed and not has_windows(config):
        full, windowed = full + windowed, 0
    return CacheDimensions(
        layers=full,
        kv_heads=kv_heads,
        head=head,
        hidden=hidden,
        intermediate=_number(main, "intermediate_size", "n_inner") or 4 * hidden,
        vocabulary=_number(main, "vocab_size") or _number(config, "vocab_size"),
        window_layers=windowed,
        window=_number(main, "sliding_window") if windowed else 0,
        kv_choice=module_of(config) in WITH_KV_BITS,
    )


def with_dimensions(known: CacheDimensions, parameters: int, widened: float) -> Shape:
    """The shape of a model of which these are known. widened: as in `Shape`."""
    per_layer = 2 * known.kv_heads * known.head
    return Shape(
        parameters=parameters,
        kv_numbers=per_layer * known.layers,
        window_numbers=per_layer * known.window_layers,
        window=known.window,
        hidden=known.hidden,
        intermediate=known.intermediate,
        vocabulary=known.vocabulary,
        widened=widened,
        kv_choice=known.kv_choice,
    )


def guessed(parameters: int) -> Shape:
    """The shape of a usual model of this size: an 8B one caches 65,536 numbers a token, others by the square root."""
    return Shape(parameters, kv_numbers=int(65_536 * (parameters / 8e9) ** 0.5), exact=False)


def widened(bits: float) -> float:
    """`Shape.widened` of a model of which only the bits of a stored weight are known, as 4.5 or 8.5."""
    return _widened({"bits": int(bits)}) if 1 <= bits < _QUANTIZED_BITS else _WIDENED


def estimate(shape: Shape, stored: int, context: int, machine: Machine) -> Estimate:
    """What a model needs. stored: bytes of its weights on disk; context in tokens, of one conversation."""
    width = 4 if machine.float32 else 2
    tokens = -(-context // _CACHE_STEP) * _CACHE_STEP
    numbers = shape.kv_numbers * tokens
    if shape.window_numbers:
        numbers += shape.window_numbers * min(tokens, shape.window or tokens)
    cache = int(numbers * machine.kv_width(shape))
    step = min(PREFILL_STEP_ON_CPU if machine.float32 else PREFILL_STEP, max(context, 1))
    overhead = _PROCESS + step * 2 * (shape.hidden + shape.intermediate) * width + shape.vocabulary * width * 4
    if not machine.float32:
        return Estimate(context, stored, cache, overhead, shape.exact)
    if machine.packed:
        # Each matrix is there twice while it is packed; the embedding is the largest.
        largest = stored * shape.vocabulary * shape.hidden // max(shape.parameters, 1)
        return Estimate(context, stored, cache, max(overhead + cache, _READING + largest - cache), shape.exact)
    weights, read = 4 * shape.parameters, stored
    if weights + read + 2 * cache + overhead > machine.total:
        weights, read = int(stored * shape.widened), 0
    elif stored >= weights:
        read = 0
    overhead = max(overhead + cache, _READING + read - cache)
    return Estimate(context, weights, cache, overhead, shape.exact)


def verdict(found: Estimate, machine: Machine) -> Fits:
    """yes: into what is free now; tight: only once others make room; no: not on this machine."""
    if found.needed > machine.total:
        return "no"
    return "yes" if found.needed <= min(machine.free, int(machine.total * _TIGHT)) else "tight"


def largest_context(shape: Shape, stored: int, machine: Machine, most: int) -> int:
    """The longest context, up to `most` tokens, that fits into what the machine has in all; 0 where none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if estimate(shape, stored, middle, machine).needed <= machine.total:
            low = middle
        else:
            high = middle - 1
    return low


def most_bits(shape: Shape, context: int, machine: Machine, least: float, most: float) -> float | None:
    """Bits a weight, to a tenth, with which a model fits at a context; None where even `least` are too many."""
    for tenths in range(int(most * 10), int(least * 10) - 1, -1):
        bits = tenths / 10
        packed = replace(shape, widened=widened(bits))
        if estimate(packed, int(shape.parameters * bits / 8), context, machine).needed <= machine.total * _TIGHT:
            return bits
    return None


def _widened(quantization: object) -> float:
    if not isinstance(quantization, Mapping) or quantization.get("mode", "affine") != "affine":
        return _WIDENED
    bits, group = _number(quantization, "bits") or 4, _number(quantization, "group_size") or 64
    return ((4 if bits <= 4 else 8) + 64 / group) / (bits + 32 / group)


def _attention_layers(config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """How many layers see everything, and how many only a window."""
    kinds = config.get("layer_types") or config.get("layers_block_type")
    if isinstance(kinds, list) and kinds:
        windowed = sum("sliding" in str(kind) or "local" in str(kind) for kind in kinds)
        full = sum(str(kind) in ("full_attention", "attention", "global_attention", "global") for kind in kinds)
        return full, windowed
    if isinstance(chosen := config.get("full_attn_idxs"), list):
        return len(chosen), 0
    if every := _number(config, "full_attention_interval"):
        return layers // every, 0
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return layers, 0
    pattern = _number(config, "sliding_window_pattern", "_sliding_window_pattern")
    if not pattern and str(config.get("model_type", "")).startswith("gemma3"):
        pattern = 6
    return (layers // pattern, layers - layers // pattern) if pattern else (layers, 0)


def _number(config: Mapping[str, Any], *keys: str) -> int:
    """The first of these that is a number, or 0. Python's JSON has NaN and infinity too, which are none."""
    found = (config.get(key) for key in keys)
    return next((int(value) for value in found if type(value) is int or (type(value) is float and isfinite(value))), 0)
