"""config.json of a model as its architecture's code reads it.

mlx-lm drops keys that a model's code does not know, so a value under another name than the code's is not an error
there but a wrong answer. Here what is known is written under the names that the code reads, and what it would ignore
is refused. Pure: both processes use it, to load, to judge a model before it is downloaded, and to say what it needs.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from squish.errors import CorruptModel, UnsupportedModel
from squish.format import architectures, arguments, ignored, layers, rope
from squish.format.arguments import Arguments
from squish.text import clean

_TEXT = "text_config"
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
_DEFAULT_CONTEXT = 4096
_TIED, _HEAD = "tie_word_embeddings", "lm_head.weight"


def normalized(config: Mapping[str, Any], name: str, tensors: Collection[str] | None = None) -> dict[str, Any]:
    """A copy of config.json with its values under the names that the architecture's code reads.

    name: of the model, for errors. tensors: names of its weights, where they are known. Nothing is removed, and what
    is normalized already comes back equal. Raises UnsupportedModel naming a key that the code would ignore.
    """
    try:
        found = copy.deepcopy(dict(config))
    except RecursionError as error:
        raise CorruptModel(f"config.json of {name} is nested too deeply.", param="config.json") from error
    top, inner = _arguments(found)
    if top is None:
        return found
    text = _text(found)
    reader = inner if inner is not None and text is not found else inner or top
    try:
        if text is not found:
            _share(found, text, top)
        _settle(text, reader, tensors)
    except ignored.Ignored as error:
        value = clean(repr(error.value))[:60]
        raise UnsupportedModel(
            f"config.json of {name} sets {clean(error.key)[:80]} to {value}, which mlx-lm's {reader.module} does not "
            "compute: its answers would be wrong.",
            hint="`squish search` lists models that run.",
            param="config.json",
        ) from error
    return found


def text_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that is about the language model."""
    text = config.get(_TEXT)
    return text if isinstance(text, Mapping) else config


def has_windows(config: Mapping[str, Any]) -> bool:
    """Whether the code keeps only a window of the layers that config.json says so of; else they keep everything."""
    top, inner = _arguments(config)
    reader = inner or top
    return reader is None or ignored.reads_window("sliding_window", text_of(config), reader)


def context_length(config: Mapping[str, Any]) -> int:
    """Tokens that a model may be given: what it was made for, or fewer where its code leaves out attention windows."""
    text = text_of(config)
    found = (each.get(key) for each in (text, config) for key in _CONTEXT)
    most = next((each for each in found if isinstance(each, int) and each > 0), _DEFAULT_CONTEXT)
    top, inner = _arguments(config)
    reader = inner or top
    exact = None if reader is None else ignored.exact_tokens(text, reader)
    return most if exact is None else min(most, exact)


def _arguments(config: Mapping[str, Any]) -> tuple[Arguments | None, Arguments | None]:
    """What the code takes from config.json itself, and from the part about the language model."""
    module, kind = architectures.module_of(config), text_of(config).get("model_type")
    return arguments.of_module(module), arguments.of_text(module, kind if isinstance(kind, str) else None)


def _text(config: dict[str, Any]) -> dict[str, Any]:
    """The part about the language model, in place."""
    text, inner = config.get(_TEXT), _arguments(config)[1]
    return text if isinstance(text, dict) and inner is not None else config


def _share(config: dict[str, Any], text: dict[str, Any], top: Arguments) -> None:
    """What stands on one level of the two, and is read on the other."""
    for key in ("vocab_size", "hidden_size", "num_hidden_layers"):
        if key in top.fields and config.get(key) is None and text.get(key) is not None:
            config[key] = text[key]
    if text.get(_TIED) is None and config.get(_TIED) is not None:
        text[_TIED] = config[_TIED]


def _settle(text: dict[str, Any], reader: Arguments, tensors: Collection[str] | None) -> None:
    dtype = text.get("dtype") or text.get("torch_dtype")
    if isinstance(dtype, str):
        text.setdefault("torch_dtype", dtype)
    layers.settle(text, reader)
    rope.settle(text, reader)
    if tensors is not None and text.get(_TIED) is None and _TIED in reader.fields:
        text[_TIED] = not any(each == _HEAD or each.endswith(f".{_HEAD}") for each in tensors)
    ignored.refuse(text, reader)
