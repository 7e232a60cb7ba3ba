"""Whether a repository holds a model that we run, judged by its small files before its weights are downloaded.

The judge is format/model_directory.py; here it is asked about files of the Hub, and says that nothing was downloaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from squish.errors import CorruptModel, UnsupportedModel
from squish.format import embedding, model_directory
from squish.format.embedding import LIMITS, MODULES, PROMPTS, Read
from squish.format.model_directory import CONFIG, INDEX, TOKENIZER_CONFIG

__all__ = [
    "CONFIG",
    "INDEX",
    "MODULES",
    "OF_STEPS",
    "TOKENIZER_CONFIG",
    "read_config",
    "require",
    "require_shards",
    "require_steps",
    "require_tokenizer",
]

OF_STEPS = (LIMITS, PROMPTS)
"""Small files that say how an embedding model computes embeddings, besides those of its steps."""

_HINT = "None of its weights were downloaded. `squish search` lists models that run."


def read_config(content: bytes | None, repo_id: str) -> dict[str, Any]:
    """config.json as an object. Raises UnsupportedModel where there is none, CorruptModel."""
    if content is None:
        raise UnsupportedModel(f"{repo_id} has no config.json, so MLX cannot run it.", param="model")
    try:
        return model_directory.parse_object(content, CONFIG, repo_id)
    except CorruptModel as error:
        raise CorruptModel(error.message, param="model") from error


def require(config: Mapping[str, Any], repo_id: str, modules: bytes | None = None) -> None:
    """Refuse an architecture that is not run, code of the model's own, and what ours would ignore.

    modules: the content of modules.json, which makes it an embedding model. Raises UnsupportedModel, CorruptModel.
    """
    with _before_weights():
        model_directory.require_config(config, repo_id, modules=modules)


def require_steps(read: Read, repo_id: str) -> None:
    """Refuse an embedding model that computes embeddings in a way that is not supported. read: its small files.

    Raises UnsupportedModel.
    """
    with _before_weights():
        embedding.recipe(read, repo_id)


def require_shards(content: bytes | None, names: Collection[str], repo_id: str) -> None:
    """Refuse weights that mlx-lm would not load as they are. content: of the index; names: of all files.

    Raises UnsupportedModel, also where one is missing.
    """
    with _before_weights():
        model_directory.require_shards(names, content, repo_id)


def require_tokenizer(content: bytes | None, names: Collection[str], repo_id: str) -> None:
    """Refuse a tokenizer that is code or missing. content: of tokenizer_config.json; names: of all files.

    Raises UnsupportedModel.
    """
    with _before_weights():
        model_directory.require_tokenizer(names, content, repo_id)


@contextmanager
def _before_weights() -> Iterator[None]:
    """What the judge says of a model is what is wrong with the repository that was asked for."""
    try:
        yield
    except (UnsupportedModel, CorruptModel) as error:
        raise UnsupportedModel(error.message, hint=_HINT, param="model") from error
