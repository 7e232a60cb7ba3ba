"""What a GGUF file means: its config.json, and the place of every tensor in the MLX model.

It decides from the header alone, and refuses by name whatever it does not know: an architecture, a setting, a tensor.
The model itself, built by mlx-lm with its parameters never evaluated, says which tensors there must be, and of which
shape. It knows no bytes of weights and writes nothing.
"""

from __future__ import annotations

import copy
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes

from squish.errors import UnsupportedModel
from squish.format.config import context_length, normalized, text_of
from squish.worker.gguf import rotary
from squish.worker.gguf.blocks import PACKED, Packing
from squish.worker.gguf.families.basis import LAYER, TOP, plain_config, plain_sizes
from squish.worker.gguf.families.every import FAMILIES, family_of, unknown_family
from squish.worker.gguf.family import Config, Destination, Family, Step, nothing
from squish.worker.gguf.file import GgufHeader, TensorInfo
from squish.worker.gguf.keys import ModelKeys
from squish.worker.gguf.tokenizer import SpecialTokens, check_tokenizer
from squish.worker.model.k_quants import BITS, can_hold
from squish.worker.model.model_files import MISFITS

_NAME = re.compile(r"(?:blk\.(?P<layer>\d{1,6})\.)?(?P<stem>.+?)(?:\.(?P<part>weight|bias|scale))?")
_MOST_LAYERS = 4096
_MODEL_ITSELF = "Take the file of the model itself."
_TEXT = "text_config"
# Facts about rotary embedding, which are read through rotary.py and not as weights.
_ROTARY = frozenset({rotary.DIVISORS, rotary.SHORT, rotary.LONG})
_NOT_NEEDED = ("attn_rot_embd",)


@dataclass(frozen=True, slots=True)
class Target:
    """Tensors on their way to parameters of the MLX model.

    names: of the parameters; several where the rows of one tensor are divided, of which `rows` says how many each gets.
    sources: several where they are joined row after row, and places: where each goes. packed: the weights stay
    packed as they are in the file; k_quant: as a K-quant. surplus: the model may have no such parameters. wide: what
    mlx-lm keeps in float32 by all means, such as biases that choose experts.
    """

    names: tuple[str, ...]
    sources: tuple[TensorInfo, ...]
    places: tuple[Destination, ...]
    rows: tuple[int, ...] = ()
    packed: bool = False
    k_quant: bool = False
    surplus: bool = False
    wide: bool = False

    @property
    def format(self) -> str:
        return self.sources[0].format.name

    @property
    def packing(self) -> Packing:
        """How it is packed, where it is."""
        return Packing(BITS[self.format]) if self.k_quant else PACKED[self.format]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.sources)

    @property
    def count(self) -> int:
        """Numbers in it."""
        return sum(math.prod(each.shape) for each in self.sources)

    @property
    def steps(self) -> list[Step]:
        """All that is done to it, in order."""
        return [step for step in (*(place.step for place in self.places), self.places[0].after) if step is not None]

    def moved(self, arrays: list[mx.array], config: Config) -> list[mx.array]:
        """The parameters, one for each name, out of one array for each source."""
        steps = [place.step for place in self.places]
        array = _joined([a if step is None else step.run(a, config) for a, step in zip(arrays, steps, strict=True)])
        after = self.places[0].after
        return _divided(array if after is None else after.run(array, config), self.rows)


@dataclass(frozen=True, slots=True)
class Plan:
    header: GgufHeader
    architecture: str
    name: str
    license: str | None
    family: Family
    config: Mapping[str, Any]
    targets: tuple[Target, ...]
    specials: SpecialTokens
    made: Mapping[str, mx.array]

    @property
    def context(self) -> int:
        """Tokens that the model may be given."""
        return context_length(self.config)

    @property
    def dtype(self) -> mx.Dtype:
        """What the model computes in: the type of its embedding, or of that embedding's scales."""
        stored = self.header.tensors["token_embd.weight"].format.name
        return {"F32": mx.float32, "BF16": mx.bfloat16}.get(stored, mx.float16)

    @property
    def commonest(self) -> Packing | None:
        """How most of the weights are packed that are; None where none are."""
        sizes: Counter[tuple[str, int]] = Counter()
        for target in self.targets:
            if target.packed:
                sizes[target.packing.key] += target.count
        if not sizes:
            return None
        mode, bits = sizes.most_common(1)[0][0]
        return Packing(bits, mode)


def make_plan(header: GgufHeader, *, whole: bool = True, k_quants: bool = False) -> Plan:
    """Every refusal happens here, from the header alone (and the few bytes of the rotary frequencies).

    whole: the header has every tensor of the model; else those that it has are judged. k_quants: they stay that.
    """
    architecture = header.text("general.architecture")
    require_kind(header)
    keys = ModelKeys(header, architecture or "")
    family = family_of(keys)
    if architecture is None or family is None:
        raise unknown_family(header)
    config = _config(keys, family)
    specials = check_tokenizer(header)
    rows = header.tensors["token_embd.weight"].shape[0]
    if rows < specials.vocabulary:
        raise header.corrupt(f"it has {specials.vocabulary} tokens but {rows} embeddings")
    if unknown := keys.unknown():
        raise header.unsupported(f"the setting {unknown} is not known")
    model = _model(header, config)
    targets, left = _targets(header, family, text_of(config), model)
    made = _made(keys, family, left)
    if whole and (missing := min(left.keys() - made.keys(), default=None)):
        raise header.corrupt(f"tensor {_stored_name(family, text_of(config), missing)} is missing")
    if k_quants:
        modules = dict(model.named_modules())
        targets = tuple(_as_k_quant(target, modules) for target in targets)
    name, license = header.text("general.name") or header.path.stem, header.text("general.license")
    return Plan(header, architecture, name, license, family, config, targets, specials, made)


def require_kind(header: GgufHeader) -> None:
    """Refuse a file that holds no model, and an unknown family, by what was read of the header so far.

    Raises UnsupportedModel.
    """
    architecture, kind = header.text("general.architecture"), header.text("general.type")
    if kind == "mmproj" or architecture == "clip":
        raise header.unsupported("it is the projector for images of a model, and holds no model", _MODEL_ITSELF)
    if kind not in (None, "model"):
        raise header.unsupported(f"a file of the type {kind!r}", _MODEL_ITSELF)
    if architecture is not None and architecture not in FAMILIES:
        raise unknown_family(header)


# ---- config.json


def _config(keys: ModelKeys, family: Family) -> dict[str, Any]:
    """config.json under the names that mlx-lm's code reads. Raises UnsupportedModel, CorruptModel."""
    header, config = keys.header, plain_config(keys) if family.attends else plain_sizes(keys)
    keys.know(("attention.value_length", *family.known))
    if family.attends:
        head = config["head_dim"]
        rotated = keys.count("rope.dimension_count") or head
        if rotated != head:
            config["partial_rotary_factor"] = rotated / head
        config["rope_scaling"] = rotary.scaling(keys, config["rope_theta"], int(rotated * family.scaled_part))
    for name, setting in family.config.items():
        config[name] = setting(keys, config)
    config["model_type"] = config.get("model_type") or family.model_type
    left_out = [key for key, setting in family.config.items() if setting is nothing]
    found = {key: value for key, value in config.items() if key not in left_out}
    if not 0 < found["num_hidden_layers"] <= _MOST_LAYERS:
        raise header.corrupt(f"it claims {found['num_hidden_layers']} layers")
    if family.wrapped:
        inner = {**found, "model_type": f"{found['model_type']}_text"}
        found = {key: found[key] for key in ("model_type", "vocab_size", "tie_word_embeddings")} | {_TEXT: inner}
    name = header.path.name
    try:
        return normalized(found, name)
    except UnsupportedModel as error:
        reason = error.message.removeprefix(f"config.json of {name} sets ").rstrip(".")
        raise header.unsupported(f"it sets {reason}") from error


def _model(header: GgufHeader, config: Config) -> Any:
    """The model that mlx-lm has for this config.json, its parameters not evaluated."""
    try:
        model_class, arguments = _get_classes(config=dict(config))
        return model_class(arguments.from_dict(copy.deepcopy(dict(config))))
    except MISFITS as error:
        reason = " ".join(str(error).split())[:200]
        raise header.corrupt(f"its settings do not make a {config['model_type']} ({reason})") from None


# ---- tensors


def _targets(
    header: GgufHeader, family: Family, config: Config, model: Any
) -> tuple[tuple[Target, ...], dict[str, tuple[int, ...]]]:
    """Match every tensor with its place, and say which parameters are left, and of which shapes.

    A misshapen or unknown tensor is refused by name.
    """
    parameters: Any = tree_flatten(model.parameters())
    own = {name for name, _ in parameters}
    placed = [_where_it_is(target, own) for target in _placed(header, family, config)]
    shapes = _settled(model, {name for target in placed for name in target.names})
    modules, narrows = dict(model.named_modules()), getattr(model, "cast_predicate", None)
    found = []
    for target in placed:
        if target.surplus and target.names[0] not in shapes:
            continue
        for name in target.names:
            if name not in shapes:
                raise header.unsupported(f"the tensor {target.sources[0].name} is not known")
        made = _shapes(header, target, config)
        for name, shape in zip(target.names, made, strict=True):
            if shape != shapes.pop(name):
                wrong = target.sources[0]
                raise header.corrupt(f"tensor {wrong.name} has the shape {list(wrong.shape)}, which does not fit")
        if len(target.sources[0].shape) == 1 and target.sources[0].format.weights > 1:
            raise header.corrupt(f"tensor {target.sources[0].name} is stored as {target.format}")
        wide = narrows is not None and not all(narrows(name) for name in target.names)
        found.append(_packed(replace(target, wide=wide), modules))
    return tuple(found), shapes


def _where_it_is(target: Target, own: set[str]) -> Target:
    """The target under the other name of its place, where the model has no parameter of the first."""
    place = target.places[0]
    if place.otherwise is None or target.names[0] in own:
        return target
    names = tuple(name.replace(f".{place.name}.", f".{place.otherwise}.") for name in target.names)
    return replace(target, names=names)


def _made(keys: ModelKeys, family: Family, left: Mapping[str, tuple[int, ...]]) -> dict[str, mx.array]:
    """The parameters that come from settings, of those that no tensor is for."""
    found = {}
    for name, shape in left.items():
        layer, own = _within(family, name)
        if (made := family.made.get(own)) is not None:
            found[name] = made(keys, layer or 0, shape)
    return found


def _within(family: Family, parameter: str) -> tuple[int | None, str]:
    """The layer that a parameter belongs to, and its name there; None and its whole name outside of any."""
    found = re.fullmatch(rf"{re.escape(family.layers)}\.(\d+)\.(.+)", parameter)
    return (int(found[1]), found[2]) if found else (None, parameter)


def _placed(header: GgufHeader, family: Family, config: Config) -> Iterator[Target]:
    layer_table, top_table = {**LAYER, **family.tensors}, {**TOP, **family.top}
    joined: dict[str, list[tuple[int, TensorInfo, Destination]]] = defaultdict(list)
    for info in header.tensors.values():
        parts = _NAME.fullmatch(info.name)
        stem, part = (parts["stem"], parts["part"]) if parts else (info.name, None)
        stem, part = (f"{stem}_scale", None) if part == "scale" else (stem, part)
        layer = None if parts is None or parts["layer"] is None else int(parts["layer"])
        if info.name in _ROTARY or stem in (*_NOT_NEEDED, *family.skipped) or _beyond(layer, config, header):
            continue
        place = (top_table if layer is None else layer_table).get(stem)
        if place is None:
            raise header.unsupported(f"the tensor {info.name} is not known")
        place = Destination(place) if isinstance(place, str) else place
        prefix = "" if layer is None else f"{family.layers}.{layer}."
        if part == "bias" and place.step is not None and not place.step.biases:
            place = replace(place, step=None)
        rows = place.cut(config) if place.cut else {place.name: 0}
        names = tuple(_parameter(prefix, name, part) for name in rows)
        if place.join is not None:
            joined[names[0]].append((place.join, info, place))
            continue
        divided = tuple(rows.values()) if place.cut else ()
        yield Target(names, (info,), (place,), divided, surplus=stem in family.surplus)
    for name, members in joined.items():
        members.sort(key=lambda each: each[0])
        yield Target((name,), tuple(each[1] for each in members), tuple(each[2] for each in members))


def _beyond(layer: int | None, config: Config, header: GgufHeader) -> bool:
    """Whether a tensor is of the layers that only guess further tokens ahead, which MLX does not run."""
    guessing = header.metadata.get(f"{header.text('general.architecture')}.nextn_predict_layers")
    return layer is not None and bool(guessing) and layer >= config["num_hidden_layers"]


def _parameter(prefix: str, name: str, part: str | None) -> str:
    if name.startswith("="):
        return prefix + name[1:]
    return f"{prefix}{name}.{part or 'weight'}"


def _settled(model: Any, names: set[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters that mlx-lm will ask for, after it has seen which weights there are."""
    found: dict[str, tuple[int, ...]] = {}
    for _ in range(2):
        flat: Any = tree_flatten(model.parameters())
        found = {name: array.shape for name, array in flat}
        if hasattr(model, "sanitize") and "lm_head.weight" in found and "lm_head.weight" not in names:
            model.sanitize({name: array for name, array in flat if name in names})
    return found


def _shapes(header: GgufHeader, target: Target, config: Config) -> list[tuple[int, ...]]:
    """What the tensors come to, found without a number of them."""
    try:
        return [part.shape for part in target.moved([mx.zeros(info.shape) for info in target.sources], config)]
    except (ValueError, KeyError, ZeroDivisionError):
        name, shape = target.sources[0].name, list(target.sources[0].shape)
        raise header.corrupt(f"tensor {name} has the shape {shape}, which does not fit") from None


def _joined(arrays: list[mx.array]) -> mx.array:
    """Row after row; of experts, those of each."""
    return arrays[0] if len(arrays) == 1 else mx.concatenate(arrays, axis=max(arrays[0].ndim - 2, 0))


def _divided(array: mx.array, rows: tuple[int, ...]) -> list[mx.array]:
    """The opposite of `_joined`."""
    if not rows:
        return [array]
    axis, ends = max(array.ndim - 2, 0), [sum(rows[:at]) for at in range(1, len(rows))]
    if sum(rows) != array.shape[axis]:
        raise ValueError("other rows")
    return list(mx.split(array, ends, axis=axis))


def _packed(target: Target, modules: Mapping[str, Any]) -> Target:
    """The target, marked as packed where the format allows it and the model's layer takes it."""
    formats = {info.format.name for info in target.sources}
    layers = [name.removesuffix(".weight") for name in target.names if name.endswith(".weight")]
    takes = len(layers) == len(target.names) and all(hasattr(modules.get(each), "to_quantized") for each in layers)
    if not takes or len(formats) > 1 or not formats <= PACKED.keys() or not all(step.rows for step in target.steps):
        return target
    return replace(target, packed=True)


def _as_k_quant(target: Target, modules: Mapping[str, Any]) -> Target:
    """The target, marked as a K-quant where it is packed, one in the file, and of layers that may hold one."""
    layers = [name.removesuffix(".weight") for name in target.names]
    holds = target.packed and target.format in BITS and all(can_hold(modules[layer]) for layer in layers)
    return replace(target, k_quant=True) if holds else target


def _stored_name(family: Family, config: Config, parameter: str) -> str:
    """The name that GGUF has for a parameter of the model, for messages."""
    layer, own = _within(family, parameter)
    prefix, table = (f"blk.{layer}.", {**LAYER, **family.tensors}) if layer is not None else ("", {**TOP, **family.top})
    stem, _, part = own.rpartition(".")
    for name, place in table.items():
        if place is None:
            continue
        place = Destination(place) if isinstance(place, str) else place
        names = tuple(place.cut(config)) if place.cut else (place.name,)
        if stem in names or f"={own}" in names:
            return f"{prefix}{name}.{part if stem in names else 'weight'}"
    return parameter
