"""Owns the way from an MLX model directory to a model in memory, in the number format this machine computes fast.

On a GPU (Metal, CUDA) weights stay as they are stored. On a CPU what is computed is float32, and weights stay as they
are stored where the extension multiplies by them (cpu/layers.py). Where there is none, half precision is widened,
because it does not go through BLAS, and quantized weights are dequantized when that fits into free memory (4 bytes a
parameter). It never runs code that a model brings, and knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import _get_classes, load_model

from squish.errors import CorruptModel, LoadFailed, UnsupportedModel
from squish.format.config import context_length
from squish.format.model_directory import display_name, require_directory
from squish.ipc.limits import is_of_processes, process_limit
from squish.worker import device, memory
from squish.worker.cache.prefix import can_trim
from squish.worker.cpu import extension, layers
from squish.worker.model import k_quants
from squish.worker.model.k_quants import KQuant
from squish.worker.model.model_files import MISFITS, given, mismatch, read_config
from squish.worker.tokenizer.facts import Shelf
from squish.worker.tokenizer.opening import open_tokenizer

# Parameters are read, converted and freed this much at a time.
_SLICE = 64 << 20
Cut = Callable[[Module, dict[str, Any]], None]
Classes = Callable[[dict[str, Any]], tuple[Any, Any]]
_PLAIN = {QuantizedLinear: Linear, QuantizedEmbedding: Embedding, QuantizedSwitchLinear: SwitchLinear}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run.

    config: config.json, read-only. weights_bytes: as they lie in memory. dtype: one line for people.
    context_length: tokens. eos: ids that end a generation. trimmable: its cache can be cut to any prompt.
    """

    model: Module
    tokenizer: TokenizerWrapper
    config: MappingProxyType[str, Any]
    weights_bytes: int
    dtype: str
    context_length: int
    vocab_size: int
    eos: frozenset[int]
    trimmable: bool


def load(
    path: Path,
    *,
    memory_limit: int | None = None,
    shelf: Shelf | None = None,
    tokenizer: TokenizerWrapper | None = None,
    exact: bool = False,
    cut: Cut | None = None,
) -> LoadedModel:
    """Load the MLX model directory `path`; its weights are in memory when this returns.

    memory_limit: bytes the weights may take; by default what is free now, less a reserve. shelf: where it stands
    what is known of tokenizers. tokenizer: this model's, where it is open already. exact: the CPU's extension
    multiplies in float32, and not activations of 8 bits. cut: leaves in the model what this process is to have of it,
    before its weights are read.
    Raises CorruptModel (a file is missing, damaged or does not fit the others; `param` is the file), UnsupportedModel
    (an architecture or tokenizer that mlx-lm does not have) and LoadFailed (no room in memory, or the engine gave up).
    """
    memory.limits()
    config, model, tokenizer = _opened(path, shelf, tokenizer)
    if cut:
        cut(model, config)
    available = memory_limit if memory_limit is not None else memory.room()
    dtype = place(model, path, available, exact)
    memory.give_back()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        config=MappingProxyType(config),
        weights_bytes=nbytes(model),
        dtype=dtype,
        context_length=context_length(config),
        vocab_size=_vocabulary(config, tokenizer),
        eos=frozenset(tokenizer.eos_token_ids),
        trimmable=can_trim(make_prompt_cache(model)),
    )


def load_part(path: Path, cut: Cut, *, exact: bool) -> Module:
    """The same without a tokenizer: the model, of which `cut` has left a part."""
    memory.limits()
    config = read_config(path)
    require_directory(path, display_name(path))
    model = build(path, config)
    cut(model, config)
    place(model, path, memory.room(), exact)
    memory.give_back()
    return model


def check(path: Path, shelf: Shelf | None = None) -> dict[str, Any]:
    """config.json of a model directory that `load` would take; no weights are read. Raises what `load` raises."""
    return _opened(path, shelf)[0]


# ---- from disk


def _opened(
    path: Path, shelf: Shelf | None, tokenizer: TokenizerWrapper | None = None
) -> tuple[dict[str, Any], Module, TokenizerWrapper]:
    config = read_config(path)
    require_directory(path, display_name(path))
    model = build(path, config)
    return config, model, tokenizer or _tokenizer(path, config, shelf)


def tokenizer_in(path: Path, shelf: Shelf | None) -> TokenizerWrapper:
    """The tokenizer of a model directory that `load` would take, as `load` has it. Raises what `load` raises."""
    config = read_config(path)
    require_directory(path, display_name(path))
    return _tokenizer(path, config, shelf)


def vocabulary_in(path: Path, tokenizer: TokenizerWrapper) -> int:
    """Token ids that the model in a directory knows are below this. Raises what `load` raises."""
    return _vocabulary(read_config(path), tokenizer)


def _tokenizer(path: Path, config: dict[str, Any], shelf: Shelf | None) -> TokenizerWrapper:
    eos = config.get("eos_token_id")
    return tokenizer_of(path, [eos] if isinstance(eos, int) else eos, shelf)


def _vocabulary(config: dict[str, Any], tokenizer: TokenizerWrapper) -> int:
    size = config.get("text_config", config).get("vocab_size") or config.get("vocab_size")
    return int(size or len(tokenizer.get_vocab()))


def build(path: Path, config: dict[str, Any], classes: Classes = _get_classes) -> Module:
    """The model with its parameters still on disk. classes: the architecture's, and that of its arguments."""
    try:
        with given(config):
            model, _ = load_model(path, lazy=True, get_model_classes=lambda config: k_quants.classes(config, classes))
    except (ImportError, SystemExit) as error:  # mlx-lm's olmo ends the process where a package is missing
        reason = "it needs a package that does not come with mlx-lm" if isinstance(error, SystemExit) else error
        raise UnsupportedModel(f"The architecture {config['model_type']!r} cannot be loaded: {reason}.") from error
    except (*MISFITS, OSError) as error:
        raise mismatch(path, error) from error
    assert isinstance(model, Module)
    return model


def tokenizer_of(path: Path, eos: list[int] | None, shelf: Shelf | None) -> TokenizerWrapper:
    """The tokenizer in a directory. Raises UnsupportedModel, CorruptModel."""
    try:
        return cast(TokenizerWrapper, open_tokenizer(path, eos, shelf))
    except Exception as error:  # the Rust tokenizer library raises nothing narrower for a file that it cannot use
        if "trust_remote_code" in str(error):
            message = f"The tokenizer of {display_name(path)} wants to run its own code, which Squish never does."
            raise UnsupportedModel(message, param="tokenizer_config.json") from error
        reason = " ".join(str(error).split())[:300]
        raise CorruptModel(
            f"The tokenizer of {display_name(path)} cannot be loaded: {reason}", param="tokenizer.json"
        ) from error


# ---- into memory


def place(model: Module, path: Path, available: int, exact: bool) -> str:
    """Bring the parameters into memory, in the format for this device; says which. path: of the model, for errors.

    available: bytes that they may take; exact: as for `load`. Raises LoadFailed.
    """
    on_cpu = device.on_cpu()
    packing = on_cpu and extension.module() is not None
    if not packing:
        k_quants.to_mlx(model)
    quantized = any(isinstance(module, (*_PLAIN, KQuant)) for _, module in _modules(model))
    stored = "quantized as stored" if quantized else "as stored"
    if not on_cpu:
        needed, unpack, policy = nbytes(model), False, stored
    else:
        needed, unpack = _bytes_on_cpu(model, packing, unpack=True), True
        if quantized and needed > available:
            needed, unpack = _bytes_on_cpu(model, packing, unpack=False), False
        policy = stored if packing else "float32" if unpack or not quantized else "quantized, float32 scales"
    if needed > available:
        free = max(available, 0)
        raise LoadFailed(
            f"{display_name(path)} needs {needed / 1e9:.2f} GB of memory for its weights; "
            f"{free / 1e9:.2f} GB are free.",
            hint="Close other programs, unload other models, or take a smaller or more compressed model.",
        )
    try:
        if on_cpu:
            _replace(model, packing=packing, unpack=unpack, exact=exact)
        _evaluate(model, as_float32=on_cpu)
    except (RuntimeError, ValueError) as error:
        hint = process_limit() if is_of_processes(error) else None
        raise LoadFailed(f"{display_name(path)} could not be read into memory: {error}", hint=hint) from error
    return policy


def _replace(model: Module, *, packing: bool, unpack: bool, exact: bool) -> None:
    """Replace layers by packed ones, else (with unpack) quantized by float32 ones; no two are in memory twice."""
    for name, module in _modules(model):
        if packing and layers.can_pack(module):
            layer = layers.pack(module, exact=exact)
        elif unpack and type(module) in _PLAIN:
            layer = _dequantized(module)
        else:
            continue
        if name:
            k_quants.replace(model, name, layer)
            module.clear()


def _dequantized(module: Module) -> Module:
    """A float32 layer with the same weights, evaluated.

    Scales become float32 first: dequantizing in half precision would round every weight once more. A tied embedding
    works as before, since a plain Embedding has the same `as_linear`.
    """
    plain = _PLAIN[type(module)]
    scales, biases = _widened(module["scales"]), module.get("biases")
    weight = mx.dequantize(
        module["weight"],
        scales,
        None if biases is None else _widened(biases),
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
        dtype=mx.float32,
    )
    mx.eval(weight)
    layer: Any = plain.__new__(plain)
    module_init: Any = Module.__init__
    module_init(layer)
    layer.weight = weight
    if "bias" in module:
        layer.bias = module["bias"]
    layer.eval()
    return cast(Module, layer)


def _evaluate(model: Module, *, as_float32: bool) -> None:
    """Read what is still on disk, a slice at a time; with as_float32 also widen half precision."""
    if as_float32:
        model.apply(_widened)
    for part in _slices(model):
        mx.eval(part)


def _widened(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def _slices(model: Module) -> Iterator[list[mx.array]]:
    part: list[mx.array] = []
    for array in _arrays(model):
        part.append(array)
        if sum(item.nbytes for item in part) >= _SLICE:
            yield part
            part = []
    yield part


def _modules(model: Any) -> list[tuple[str, Any]]:
    return list(model.named_modules())


def _arrays(model: Any) -> list[mx.array]:
    return [array for _, array in cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))]


def nbytes(model: Module) -> int:
    """Bytes of the parameters."""
    return sum(array.nbytes for array in _arrays(model))


def _bytes_on_cpu(model: Module, packing: bool, *, unpack: bool) -> int:
    """What the parameters take: packed where they can be, else float32, and quantized ones unpacked or not."""
    total = sum(_float32_size(array) for array in _arrays(model))
    for _, module in _modules(model):
        packed = packing and layers.can_pack(module)
        if not packed and type(module) not in _PLAIN:
            continue
        kept = sum(_float32_size(module[key]) for key in layers.WEIGHTS if module.get(key) is not None)
        if packed:
            total += layers.packed_bytes(module) - kept
        elif unpack:
            total += module["weight"].size * 32 // module.bits * 4 - kept
    return total


def _float32_size(array: mx.array) -> int:
    return array.size * 4 if mx.issubdtype(array.dtype, mx.floating) else array.nbytes
