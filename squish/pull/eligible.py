"""Whether a repository holds a model that we run, told from its small files, before its weights are sent.

Squish never runs code that a model brings, so one that needs some is refused, whatever else it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from squish.errors import CorruptModel, UnsupportedModel
from squish.format import architectures
from squish.format.config import normalized
from squish.text import clean

CONFIG, TOKENIZER_CONFIG, INDEX = "config.json", "tokenizer_config.json", "model.safetensors.index.json"
# A tokenizer that is nothing but data.
_TOKENIZERS = frozenset({"tokenizer.json", "tokenizer.model", "vocab.json"})
_TIKTOKEN = "tiktoken.model"  # data too, but code must read it
WEIGHTS = "model*.safetensors"
_HINT = "None of its weights were downloaded. `squish search` lists models that run."


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def read_config(content: bytes | None, repo_id: str) -> dict[str, Any]:
    """config.json as an object. Raises UnsupportedModel where there is none, CorruptModel."""
    if content is None:
        raise UnsupportedModel(f"{repo_id} has no config.json, so MLX cannot run it.", param="model")
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptModel(f"config.json of {repo_id} is no JSON object: {error}.", param="model") from error


def require(config: Mapping[str, Any], repo_id: str) -> None:
    """Raises UnsupportedModel naming the architecture, the code that it wants to be run, or what ours would ignore."""
    kind = clean(str(config.get("model_type")))[:60]
    if (file := config.get("model_file")) is not None:
        raise UnsupportedModel(
            f"{repo_id} ({kind!r}) needs code of its own to run ({str(file)[:60]!r}), and Squish never runs a model's "
            "code.",
            hint=_HINT,
            param="model",
        )
    if kind not in architectures.supported():
        code = " It needs code of its own, which Squish never runs." if config.get("auto_map") else ""
        raise UnsupportedModel(
            f"The architecture {kind!r} of {repo_id} is not one that mlx-lm runs.{code}", hint=_HINT, param="model"
        )
    normalized(config, repo_id)


def require_shards(content: bytes | None, names: frozenset[str], repo_id: str) -> None:
    """Refuse weights that mlx-lm would not load as they are: it takes model*.safetensors, and all that an index names.

    content: of the index, None where there is none; names: of all files. Raises UnsupportedModel.
    """
    if not any(fnmatchcase(name, WEIGHTS) for name in names):
        raise UnsupportedModel(
            f"{repo_id} has no weights that can be taken as they are ({WEIGHTS}).", hint=_HINT, param="model"
        )
    try:
        index = msgspec.json.decode(content or b'{"weight_map": {}}', type=_Index)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnsupportedModel(f"{INDEX} of {repo_id} cannot be read: {error}", hint=_HINT, param="model") from error
    if missing := sorted(set(index.weight_map.values()) - names):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnsupportedModel(
            f"{repo_id} is not complete: it has no {clean(missing[0])[:100]}{more}, which {INDEX} names.",
            hint=_HINT,
            param="model",
        )


def require_tokenizer(content: bytes | None, names: frozenset[str], repo_id: str) -> None:
    """Refuse a tokenizer that is code or missing. content: tokenizer_config.json; names: of all files.

    Raises UnsupportedModel.
    """
    if not names & (_TOKENIZERS | {_TIKTOKEN}):
        raise UnsupportedModel(f"{repo_id} has no tokenizer.", hint=_HINT, param="model")
    try:
        config = msgspec.json.decode(content or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError):  # whoever loads it says what is wrong with it
        return
    own = config.get("auto_map") if isinstance(config, dict) else None
    if own and not names & _TOKENIZERS:
        raise UnsupportedModel(
            f"The tokenizer of {repo_id} needs code of its own, and Squish never runs a model's code.",
            hint=_HINT,
            param="model",
        )
