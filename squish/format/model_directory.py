"""Whether a directory, here or on the Hub, holds a model that we run, judged by names and small files. The one judge.

Its files were written by somebody else: only regular ones are opened, through links too (a Hub cache is made of them),
never waited for, and up to a size; a byte order mark is taken for what it is. Squish never runs code that a model
brings, so one that needs some is refused, whatever else it says. Pure: both processes use it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from squish.errors import CorruptModel, UnsupportedModel
from squish.files import read_regular
from squish.format import architectures, embedding, safetensors
from squish.format.config import normalized, text_of
from squish.text import clean

CONFIG, GENERATION, TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"
INDEX, WEIGHTS = "model.safetensors.index.json", "model*.safetensors"
# A tokenizer that is nothing but data.
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_TIKTOKEN = "tiktoken.model"  # data too, but code must read it
_BOTH_WAYS = "use_bidirectional_attention"
_LARGEST = 64 << 20  # an index of the largest models has a tenth of that
_MOST_LAYERS = 10_000  # building more would take all memory before anything is read
# transformers writes numbers that JSON cannot say as {"__float__": "Infinity"}.
_FLOAT = "__float__"
_FLOATS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
# While a model is being pulled, its files lie one directory deeper.
_IN_PROGRESS = ("files", "compressed")


# ---- names


def directory_name(id: str) -> str:
    """How the store spells a valid id, `org/repo:tag`, in a way that a disk takes."""
    return id.replace("+", "++").replace("/", "--").replace(":", "+")


def id_of(directory: str) -> str:
    """The inverse of `directory_name`."""
    return "+".join(part.replace("--", "/").replace("+", ":") for part in directory.split("++"))


def display_name(directory: Path) -> str:
    """What a user calls the model in a directory of the store, complete or not."""
    own = directory.parent if directory.name in _IN_PROGRESS else directory
    return clean(id_of(own.name.partition("~")[0]))


# ---- small files


def parse_object(content: bytes, file: str, name: str) -> dict[str, Any]:
    """The object in a JSON file of the model called `name`. Raises CorruptModel."""
    try:
        found = json.loads(content.decode("utf-8-sig"), object_hook=_number)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise CorruptModel(f"{file} of {name} cannot be read: {reason}.", param=file) from error
    if not isinstance(found, dict):
        raise CorruptModel(f"{file} of {name} cannot be read: it is not a JSON object.", param=file)
    return found


def read_object(path: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file on this machine. Raises FileNotFoundError, CorruptModel."""
    try:
        content = read_regular(path, _LARGEST, follow=True)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptModel(f"{path.name} of {name} cannot be read: {error.strerror}.", param=path.name) from error
    return parse_object(content, path.name, name)


def read_config(directory: Path, name: str) -> dict[str, Any]:
    """config.json, with the ids that end an answer as generation_config.json says them. Raises CorruptModel."""
    try:
        config = read_object(directory / CONFIG, name)
    except FileNotFoundError as error:
        raise CorruptModel(f"{name} has no config.json, so it is not an MLX model.", param=CONFIG) from error
    try:
        ends = read_object(directory / GENERATION, name).get("eos_token_id")
    except (FileNotFoundError, CorruptModel):  # a model answers without
        ends = None
    return config | {"eos_token_id": ends} if ends else config


def _number(found: dict[str, Any]) -> Any:
    value = found.get(_FLOAT)
    return _FLOATS[value] if len(found) == 1 and isinstance(value, str) and value in _FLOATS else found


# ---- judgements


def require_config(
    config: Mapping[str, Any], name: str, tensors: Collection[str] | None = None, modules: bytes | None = None
) -> dict[str, Any]:
    """config.json as the architecture's code reads it (`config.normalized`), of a model that can be run.

    tensors: names of its weights, where they are known. modules: modules.json, where there is one.
    Raises UnsupportedModel naming the architecture, the code that it wants to be run or what ours would ignore;
    CorruptModel.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise CorruptModel(f"{CONFIG} of {name} does not name a model_type.", param=CONFIG)
    if (file := config.get("model_file")) is not None:
        raise UnsupportedModel(
            f"{name} ({clean(kind)[:60]!r}) needs code of its own to run ({clean(str(file))[:60]!r}), and Squish never "
            "runs a model's code.",
            param=CONFIG,
        )
    if not architectures.is_supported(kind):
        code = " It needs code of its own, which Squish never runs." if config.get("auto_map") else ""
        raise UnsupportedModel(
            f"The architecture {clean(kind)[:60]!r} of {name} is not one that Squish runs.{code}", param=CONFIG
        )
    layers = text_of(config).get("num_hidden_layers")
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise CorruptModel(f"{CONFIG} of {name} says that the model has {layers:,} layers.", param=CONFIG)
    if embedding.kind_of(config, modules) == "chat":
        return normalized(config, name, tensors)
    return _require_embedding(config, name, tensors)


def _require_embedding(config: Mapping[str, Any], name: str, tensors: Collection[str] | None) -> dict[str, Any]:
    """config.json of an embedding model as its code reads it. Raises UnsupportedModel, CorruptModel."""
    embedding.require_encoding(config, name)
    if config["model_type"] in architectures.ENCODERS:
        return dict(config)
    # Its head is not computed, and masks are ours, so that what mlx-lm makes of these does not matter.
    own = {key: config[key] for key in (_BOTH_WAYS,) if key in config}
    rest = {key: value for key, value in config.items() if key not in own}
    return normalized(rest | {"tie_word_embeddings": True}, name, tensors) | own


def require_tokenizer(names: Collection[str], content: bytes | None, name: str) -> None:
    """Refuse a tokenizer that is code or missing. names: of all files; content: of tokenizer_config.json, None where
    there is none. Raises UnsupportedModel, CorruptModel where there is none.
    """
    if not {*_TOKENIZERS, _TIKTOKEN} & set(names):
        needed = ", ".join(_TOKENIZERS)
        raise CorruptModel(f"{name} has no tokenizer: one of {needed} is needed.", param=_TOKENIZERS[0])
    try:
        config = parse_object(content or b"{}", TOKENIZER_CONFIG, name)
    except CorruptModel:  # loading it will say what is wrong with it
        return
    if config.get("auto_map") and not set(_TOKENIZERS) & set(names):
        raise UnsupportedModel(
            f"The tokenizer of {name} needs code of its own, and Squish never runs a model's code.",
            param=TOKENIZER_CONFIG,
        )


def require_shards(names: Collection[str], content: bytes | None, name: str) -> list[str]:
    """The files of weights that mlx-lm would load, sorted: all model*.safetensors, and all that an index names.

    names: of all files; content: of the index, None where there is none. Raises CorruptModel where there are none, one
    is missing, or the index makes no sense.
    """
    shards = {each for each in names if fnmatchcase(each, WEIGHTS)}
    if not shards:
        reason = f"{name} has no weights that can be taken as they are ({WEIGHTS})."
        raise CorruptModel(reason, param="model.safetensors")
    named = {} if content is None else parse_object(content, INDEX, name).get("weight_map", {})
    files = set(named.values()) if isinstance(named, dict) and all(map(_is_plain, named.values())) else None
    if files is None:
        raise CorruptModel(
            f"{INDEX} of {name} cannot be read: it names something that is not a file beside it.", param=INDEX
        )
    if missing := sorted(files - set(names)):
        more = f", and so are {len(missing) - 1} more that {INDEX} names" if len(missing) > 1 else f"; {INDEX} names it"
        raise CorruptModel(
            f"{clean(missing[0])[:100]} of {name} is missing{more}.",
            hint="Download the model again.",
            param=missing[0],
        )
    return sorted(shards | files)


def _is_plain(file: object) -> bool:
    return isinstance(file, str) and Path(file).name == file


def require_directory(directory: Path, name: str) -> dict[str, tuple[safetensors.Tensor, ...]]:
    """What lies in the weights of a directory on this machine, by file: each is there and whole.

    Raises what `require_tokenizer` and `require_shards` raise, and CorruptModel for a file that is damaged.
    """
    names = [path.name for path in directory.iterdir() if path.is_file()]
    require_tokenizer(names, _content(directory / TOKENIZER_CONFIG, names), name)
    shards = require_shards(names, _content(directory / INDEX, names), name)
    return {shard: read_header(directory / shard, name) for shard in shards}


def read_header(path: Path, name: str) -> tuple[safetensors.Tensor, ...]:
    """The tensors of one file of weights. Raises CorruptModel."""
    try:
        return safetensors.read(path, path.name)[0]
    except (OSError, CorruptModel) as error:
        raise CorruptModel(
            f"{path.name} of {name} is damaged.", hint="Download the model again.", param=path.name
        ) from error


def _content(path: Path, names: Collection[str]) -> bytes | None:
    if path.name not in names:
        return None
    try:
        return read_regular(path, _LARGEST, follow=True)
    except OSError:
        return b""  # not a JSON object, and so said to be damaged
