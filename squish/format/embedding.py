"""Which models turn texts into vectors, and how: what the files of the sentence-transformers library say.

    modules.json                        the steps, in order: Transformer, Pooling, Dense…, Normalize
    1_Pooling/config.json               which tokens a text's vector is made of
    2_Dense/config.json                 a layer after that; its weights lie beside it
    sentence_bert_config.json           the longest text in tokens
    config_sentence_transformers.json   prompts to put before a text

A model of an encoder's architecture needs none of them. Pure: both processes use it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from squish.errors import CorruptModel, UnsupportedModel
from squish.files import read_regular
from squish.format.architectures import ENCODERS
from squish.text import clean

MODULES, LIMITS, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"

ModelKind = Literal["chat", "completion", "embedding", "rerank"]
"""completion: without a chat template; it continues text and does not chat."""
Pooling = Literal["cls", "mean", "max", "lasttoken"]
Read = Callable[[str], bytes | None]
"""The content of a file of the model by its path, None where there is none."""

_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}
_OTHER_POOLINGS = ("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens")
_STEPS = ("Transformer", "Pooling", "Dense", "Normalize")
_LARGEST = 1 << 20
_SCORES = "ForSequenceClassification"
_HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")
_ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh", "GELU": "gelu", "ReLU": "relu", "SiLU": "silu"}


class _Module(msgspec.Struct):
    type: str
    path: str = ""


class _DenseConfig(msgspec.Struct):
    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"


class _Limits(msgspec.Struct):
    max_seq_length: int | None = None
    do_lower_case: bool = False


class _Prompts(msgspec.Struct):
    prompts: dict[str, str] = {}
    default_prompt_name: str | None = None


class DenseStep(msgspec.Struct, frozen=True):
    """A layer after the pooling. folder: where its weights lie; activation: identity, tanh, gelu, relu or silu."""

    folder: str
    inputs: int
    outputs: int
    bias: bool
    activation: str


class VectorRecipe(msgspec.Struct, frozen=True):
    """From the hidden states of a text's tokens to its vector.

    pooling: where there are several, their vectors are put one behind the other. include_prompt: whether the tokens of
    a prompt count. longest: tokens of a text, None where the architecture alone decides. prompts: by name.
    """

    pooling: tuple[Pooling, ...] = ("mean",)
    include_prompt: bool = True
    dense: tuple[DenseStep, ...] = ()
    normalize: bool = False
    longest: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = msgspec.field(default_factory=dict)
    default_prompt: str | None = None


def reader(directory: Path) -> Read:
    """Files of a model on this machine; what is not a regular file counts as none."""

    def read(file: str) -> bytes | None:
        try:
            return read_regular(directory / file, _LARGEST, follow=True)
        except OSError:
            return None

    return read


def kind_of(config: Mapping[str, Any], modules: bytes | None) -> ModelKind:
    """What config.json, and modules.json where there is one, say that a model is for."""
    if is_ranker(config):
        return "rerank"
    return "embedding" if modules is not None or config.get("model_type") in ENCODERS else "chat"


def is_ranker(config: Mapping[str, Any]) -> bool:
    """Whether it is a cross-encoder: an encoder with a head of one number, the score of a query and a text."""
    named, labels = config.get("architectures"), config.get("num_labels")
    if config.get("model_type") not in ENCODERS or not isinstance(named, list):
        return False
    if not isinstance(labels, int):
        names = config.get("id2label")
        labels = len(names) if isinstance(names, Mapping) else 2  # as transformers counts where nothing is said
    return labels == 1 and any(str(each).endswith(_SCORES) for each in named)


def is_raw(config: Mapping[str, Any]) -> bool:
    """Whether the scores of a cross-encoder are what its head gives, and not put between 0 and 1."""
    own = config.get("sentence_transformers")
    named = own.get("activation_fn") if isinstance(own, Mapping) else None
    return str(named or config.get("sbert_ce_default_activation_function")).endswith("Identity")


def require_encoding(config: Mapping[str, Any], name: str) -> None:
    """Refuse an embedding model that does what our code does not. config: as it is stored. Raises UnsupportedModel."""
    named = config.get("architectures")
    for each in named if isinstance(named, list) else ():
        if any(head in str(each) for head in _HEADS) and not is_ranker(config):
            problem = f"{name} is a {clean(str(each))[:60]}: it computes labels or scores, not embeddings."
            raise UnsupportedModel(problem, param="config.json")
    code = config.get("auto_map")
    if isinstance(code, Mapping) and "AutoModel" in code:
        raise UnsupportedModel(
            f"{name} needs code of its own to run ({clean(str(code['AutoModel']))[:60]!r}), and Squish never runs a "
            "model's code.",
            param="config.json",
        )
    is_gemma = config.get("model_type") == "gemma3_text"
    odd = {
        "position_embedding_type": config.get("position_embedding_type") not in (None, "absolute"),
        "is_causal": config.get("is_causal") is False,
        "is_decoder": config.get("is_decoder") is True,
        "use_bidirectional_attention": bool(config.get("use_bidirectional_attention")) and not is_gemma,
    }
    if wrong := next((key for key, is_odd in odd.items() if is_odd), None):
        value = clean(repr(config[wrong]))[:60]
        problem = f"config.json of {name} sets {wrong} to {value}, which Squish does not compute."
        raise UnsupportedModel(problem, param="config.json")


def recipe(read: Read, name: str) -> VectorRecipe:
    """How the model called `name` computes embeddings. Raises UnsupportedModel naming the step, CorruptModel."""
    limits = _converted(read(LIMITS), LIMITS, _Limits, name)
    prompts = _converted(read(PROMPTS), PROMPTS, _Prompts, name)
    if prompts.default_prompt_name is not None and prompts.default_prompt_name not in prompts.prompts:
        raise CorruptModel(f"{PROMPTS} of {name} names a default prompt that it does not have.", param=PROMPTS)
    steps = _steps(read(MODULES), name)
    pooling, include_prompt = _pooling(read, steps, name)
    return VectorRecipe(
        pooling=pooling,
        include_prompt=include_prompt,
        dense=tuple(_dense(read, step.path, name) for step, kind in steps if kind == "Dense"),
        normalize=any(kind == "Normalize" for _, kind in steps),
        longest=limits.max_seq_length if (limits.max_seq_length or 0) > 0 else None,
        lower_case=limits.do_lower_case,
        prompts=prompts.prompts,
        default_prompt=prompts.default_prompt_name,
    )


def _steps(content: bytes | None, name: str) -> list[tuple[_Module, str]]:
    """The modules and their kinds, in an order that we compute."""
    found = [] if content is None else _decoded(content, MODULES, list[_Module], name)
    steps = [(each, each.type.rpartition(".")[2]) for each in found]
    for each, kind in steps:
        if kind not in _STEPS or not each.type.startswith("sentence_transformers."):
            problem = f"{name} has a step that Squish does not compute: {clean(each.type)[:80]!r} in {MODULES}."
            raise UnsupportedModel(problem, param=MODULES)
        if kind in ("Pooling", "Dense") and not is_folder(each.path):
            raise UnsupportedModel(
                f"{MODULES} of {name} keeps a step in {clean(each.path)[:60]!r}; a name such as 1_Pooling is needed.",
                param=MODULES,
            )
    kinds = [kind for _, kind in steps]
    usual = kinds[:2] == ["Transformer", "Pooling"] and kinds[2:] == sorted(kinds[2:])
    if found and not (usual and kinds.count("Normalize") <= 1 and "Pooling" not in kinds[2:] and not found[0].path):
        shown = clean(", ".join(kinds))[:100]
        raise UnsupportedModel(
            f"{name} has its steps in an order that Squish does not compute: {shown}.", param=MODULES
        )
    return steps


def is_folder(path: str) -> bool:
    """Whether it is the name of a folder of a step, as the library makes them: a number, and the step's kind."""
    return re.fullmatch(r"[0-9]{1,2}_(Pooling|Dense|Normalize)", path) is not None


def _pooling(read: Read, steps: list[tuple[_Module, str]], name: str) -> tuple[tuple[Pooling, ...], bool]:
    folder = next((step.path for step, kind in steps if kind == "Pooling"), None)
    if folder is None:
        return ("mean",), True
    file = f"{folder}/config.json"
    found = _decoded(_needed(read(file), file, name), file, dict[str, Any], name)
    named = found.get("pooling_mode")
    if isinstance(named, str | list):
        wanted = [named] if isinstance(named, str) else named
        chosen = [each for each in _POOLINGS.values() if each in wanted]
        complete = len(chosen) == len(wanted)
    else:
        chosen = [pooling for key, pooling in _POOLINGS.items() if found.get(key) is True]
        complete = not any(found.get(key) is True for key in _OTHER_POOLINGS)
    if not chosen or not complete:
        known = ", ".join(_POOLINGS.values())
        raise UnsupportedModel(f"{file} of {name} asks for a pooling other than {known}.", param=file)
    return tuple(chosen), found.get("include_prompt") is not False


def _dense(read: Read, folder: str, name: str) -> DenseStep:
    file = f"{folder}/config.json"
    found = _decoded(_needed(read(file), file, name), file, _DenseConfig, name)
    function = found.activation_function.rpartition(".")[2]
    if function not in _ACTIVATIONS:
        problem = f"{file} of {name} names the activation {clean(function)[:60]!r}, which Squish does not compute."
        raise UnsupportedModel(problem, param=file)
    return DenseStep(folder, found.in_features, found.out_features, found.bias, _ACTIVATIONS[function])


Value = TypeVar("Value")


def _converted(content: bytes | None, file: str, kind: type[Value], name: str) -> Value:
    return _decoded(b"{}" if content is None else content, file, kind, name)


def _decoded(content: bytes, file: str, kind: type[Value], name: str) -> Value:
    try:
        return msgspec.json.decode(content.removeprefix(b"\xef\xbb\xbf"), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptModel(f"{file} of {name} cannot be read: {clean(str(error))[:200]}.", param=file) from error


def _needed(content: bytes | None, file: str, name: str) -> bytes:
    if content is None:
        raise CorruptModel(f"{name} has no {file}, which {MODULES} names.", param=file)
    return content
