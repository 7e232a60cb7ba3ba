"""What a table of a family is made of: where each tensor goes, what is done to it, and how config.json is filled.

The tables are in families/. It knows no family and no bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from squish.worker.gguf.keys import ModelKeys

SIGMOID = 2
"""Of `expert_gating_func`."""

Config = Mapping[str, Any]
Setting = Callable[[ModelKeys, Config], object]
# A parameter that the file has no tensor for, out of its settings: (keys, number of the layer, shape).
Made = Callable[[ModelKeys, int, tuple[int, ...]], mx.array]


@dataclass(frozen=True, slots=True)
class Step:
    """Something done to a tensor. rows: it only moves whole rows, so packed weights stay packed. biases: it is done to
    a bias of the same name too.
    """

    run: Callable[[mx.array, Config], mx.array]
    rows: bool = False
    biases: bool = True


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a tensor goes in the MLX model, below its layer.

    name: of the module, or with a leading "=" of the parameter itself. step: what is done to it. join: its number among
    the tensors that are joined, row after row, under one name, and after: what is done to the whole then. cut: the
    names of modules that its rows are divided among, and how many each gets. otherwise: its name in layers that have
    no such module.
    """

    name: str
    step: Step | None = None
    join: int | None = None
    after: Step | None = None
    cut: Callable[[Config], Mapping[str, int]] | None = None
    otherwise: str | None = None


Table = Mapping[str, str | Destination | None]


def cut(rows: Callable[[Config], Mapping[str, int]], step: Step | None = None) -> Destination:
    """A tensor whose rows are divided among several modules; rows: how many each gets."""
    return Destination("", step, cut=rows)


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture name of GGUF. Tables and config say what differs from those in families/basis.py.

    model_type: of mlx-lm. layers: of the module that holds the layers. tensors, top: places by the name in GGUF, within
    a layer and outside of any; None where there is no such tensor. config: keys of config.json. known: settings that
    change nothing here. skipped: names of tensors that MLX has no use for. surplus: names of tensors that some files
    have in layers that do not use them. wrapped: config.json has all this below `text_config`. attends: it has layers
    with heads of attention, and says so. made: parameters that are not in the file, by their name within a layer, or
    outside of any. scaled_part: how much of a head is rotated where the frequencies are scaled, if the file does not
    say it.
    """

    model_type: str
    layers: str = "model.layers"
    tensors: Table = field(default_factory=dict)
    top: Table = field(default_factory=dict)
    config: Mapping[str, Setting] = field(default_factory=dict)
    known: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    wrapped: bool = False
    attends: bool = True
    made: Mapping[str, Made] = field(default_factory=dict)
    scaled_part: float = 1.0


# ---- settings


def always(value: object) -> Setting:
    return lambda keys, config: value


def count(name: str, default: int | None = None) -> Setting:
    return lambda keys, config: default if (found := keys.count(name)) is None else found


def number(name: str, default: float | None = None) -> Setting:
    return lambda keys, config: default if (found := keys.number(name)) is None else found


def flag(name: str, default: bool | None = None) -> Setting:
    return lambda keys, config: default if (found := keys.flag(name)) is None else found


def like(key: str) -> Setting:
    """The same as another key of config.json that was filled before."""
    return lambda keys, config: config.get(key)


def nothing(keys: ModelKeys, config: Config) -> None:
    """No such key."""


def fixed(name: str, value: float) -> Setting:
    """The number that the code has itself. Raises UnsupportedModel where the file says another one."""

    def known(keys: ModelKeys, config: Config) -> float:
        found = keys.number(name)
        if found is not None and not math.isclose(found, value, rel_tol=1e-5):
            raise keys.header.unsupported(f"{keys.architecture}.{name} is {found}, and {value} in MLX")
        return value

    return known


def windowed(period: int | None = None) -> Setting:
    """`layer_types` by the file's pattern; period: every so many layers one sees everything where it says none."""

    def kinds(keys: ModelKeys, config: Config) -> list[str] | None:
        layers, listed = config["num_hidden_layers"], keys.numbers("attention.sliding_window_pattern")
        if not keys.count("attention.sliding_window"):
            return None
        every = period if listed is not None else keys.count("attention.sliding_window_pattern") or period
        if listed is None:
            listed = [bool((i + 1) % every) if every else True for i in range(layers)]
        if len(listed) < layers:
            raise keys.header.corrupt(f"its pattern of windows names {len(listed)} of {layers} layers")
        return ["sliding_attention" if each else "full_attention" for each in listed[:layers]]

    return kinds


def per_layer(name: str) -> Callable[[ModelKeys, Config], list[int]]:
    """A number for each layer, none of them where the file says none."""
    return lambda keys, config: keys.per_layer(name, config["num_hidden_layers"]) or []


key_heads = per_layer("attention.head_count_kv")


def of_kind(kind: str, name: str) -> Setting:
    """The number that the first layer of a kind has, by `layer_types`; None if no layer is of that kind."""

    def found(keys: ModelKeys, config: Config) -> int | None:
        each = per_layer(name)(keys, config)
        return next((size for size, own in zip(each, config["layer_types"], strict=True) if own == kind), None)

    return found


def attending(attention: str, state: str) -> Setting:
    """What each layer is: one without heads of keys keeps a state in their place."""
    return lambda keys, config: [attention if each else state for each in key_heads(keys, config)]


def has(tensor: str) -> Setting:
    """Whether the file has a tensor of this name."""
    return lambda keys, config: tensor in keys.header.tensors


def anywhere(end: str) -> Setting:
    """Whether any layer has a tensor of this name."""
    return lambda keys, config: any(name.endswith(f".{end}") for name in keys.header.tensors)


# ---- what is made


def filled(value: float) -> Made:
    """A tensor of one number."""
    return lambda keys, layer, shape: mx.full(shape, value)


def from_list(name: str) -> Made:
    """A number for each layer, which the file has among its settings."""

    def made(keys: ModelKeys, layer: int, shape: tuple[int, ...]) -> mx.array:
        found = keys.floats(name) or []
        if layer >= len(found):
            raise keys.header.corrupt(f"{keys.architecture}.{name} lacks layer {layer}")
        return mx.full(shape, found[layer])

    return made


# ---- steps


def _unpaired(heads: str) -> Callable[[mx.array, Config], mx.array]:
    def run(array: mx.array, config: Config) -> mx.array:
        shape = array.shape
        return array.reshape(config[heads], -1, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)

    return run


# Rows 2i and 2i + 1 of a head, one rotary pair in GGUF, become rows i and i + half.
UNPAIR_QUERIES = Step(_unpaired("num_attention_heads"), rows=True)
UNPAIR_KEYS = Step(_unpaired("num_key_value_heads"), rows=True)
# The same where layers differ in how many heads they have.
UNPAIR_HEADS = Step(
    lambda array, config: (
        array.reshape(-1, config["head_dim"] // 2, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    ),
    rows=True,
)
# mlx-lm adds the one that the file has added already.
LESS_ONE = Step(lambda array, config: array.astype(mx.float32) - 1, biases=False)
# The file has A of a state space, mlx-lm the logarithm of -A.
LOG_NEGATED = Step(lambda array, config: mx.log(-array.astype(mx.float32)).reshape(-1))
LOG_NEGATED_STATES = Step(lambda array, config: mx.log(-array.astype(mx.float32)))
FLAT = Step(lambda array, config: array.reshape(-1))
AS_ROW = Step(lambda array, config: array.reshape(1, -1))
SWAPPED = Step(lambda array, config: array.swapaxes(-1, -2))
ROWS = Step(lambda array, config: array.reshape(-1, array.shape[-1]), rows=True)
# A convolution over time: channels x kernel in the file, channels x kernel x 1 in MLX.
CHANNELS = Step(lambda array, config: array.reshape(*array.shape, 1))
