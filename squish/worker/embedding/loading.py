"""From the directory of an embedding model to an embedder in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import _get_classes

from squish.errors import CorruptModel
from squish.format import architectures, embedding
from squish.format.config import context_length
from squish.format.embedding import VectorRecipe
from squish.format.model_directory import display_name, require_directory
from squish.worker import memory
from squish.worker.embedding import bert, decoder
from squish.worker.embedding.embedder import Embedder, Ranker, misfit
from squish.worker.model.load import build, nbytes, place, tokenizer_of
from squish.worker.model.model_files import read_config
from squish.worker.tokenizer.facts import Shelf


@dataclass(frozen=True, slots=True)
class LoadedEmbedder:
    """An embedding model ready to run, or a reranking model, whose vectors have one number.

    longest: tokens of a text; dimensions: of a vector; dtype: for people; doubled: two marks stand between the texts of
    a pair, not one.
    """

    embedder: Embedder | Ranker
    tokenizer: TokenizerWrapper
    recipe: VectorRecipe
    longest: int
    vocab_size: int
    dimensions: int
    weights_bytes: int
    dtype: str
    doubled: bool = False


def load(path: Path, shelf: Shelf | None = None) -> LoadedEmbedder:
    """Load the embedding model in a directory; its weights are in memory when this returns. A CPU multiplies them in
    float32. shelf, and what it raises: as `squish.worker.model.load.load`."""
    memory.limits()
    config, embedder, tokenizer, recipe = _opened(path, shelf)
    dtype = place(embedder, path, memory.room(), exact=True)
    memory.give_back()
    return LoadedEmbedder(
        embedder=embedder,
        tokenizer=tokenizer,
        recipe=recipe,
        longest=longest(config, recipe),
        vocab_size=int(config["vocab_size"]),
        dimensions=_dimensions(config, recipe),
        weights_bytes=nbytes(embedder),
        dtype=dtype,
        doubled=config["model_type"] != "bert",
    )


def _dimensions(config: dict[str, Any], recipe: VectorRecipe) -> int:
    if embedding.is_ranker(config):
        return 1
    return recipe.dense[-1].outputs if recipe.dense else int(config["hidden_size"]) * len(recipe.pooling)


def check(path: Path, shelf: Shelf | None = None) -> tuple[dict[str, Any], VectorRecipe]:
    """config.json and recipe of a directory that `load` would take; no weights are read. Raises what `load` raises."""
    config, _, _, recipe = _opened(path, shelf)
    return config, recipe


def classes(config: dict[str, Any]) -> tuple[Any, Any]:
    """The class of an embedding model's encoder and that of its arguments."""
    if embedding.is_ranker(config):
        return bert.CrossEncoder, bert.BertArgs
    if config["model_type"] in architectures.ENCODERS:
        return bert.BertModel, bert.BertArgs
    model, arguments = _get_classes(config)
    return decoder.headless(model), arguments


def longest(config: dict[str, Any], recipe: VectorRecipe) -> int:
    """Tokens of the longest text."""
    most = bert.longest(config) if config["model_type"] in architectures.ENCODERS else context_length(config)
    return min(most, recipe.longest or most)


def _opened(
    path: Path, shelf: Shelf | None
) -> tuple[dict[str, Any], Embedder | Ranker, TokenizerWrapper, VectorRecipe]:
    name, config = display_name(path), read_config(path)
    require_directory(path, name)
    recipe = embedding.recipe(embedding.reader(path), name)
    encoder = build(path, config, classes)
    if config["model_type"] not in architectures.ENCODERS:
        encoder = decoder.HeadlessDecoder(encoder, config, name)
    embedder: Embedder | Ranker
    if embedding.is_ranker(config):
        embedder = Ranker(encoder, typed=config["model_type"] == "bert", raw=embedding.is_raw(config))
    else:
        embedder = Embedder(encoder, recipe)
        _load_dense(embedder, path, config, recipe)
    embedder.eval()
    return config, embedder, tokenizer_of(path, None, shelf), recipe


def _load_dense(embedder: Embedder, path: Path, config: dict[str, Any], recipe: VectorRecipe) -> None:
    name = display_name(path)
    if (wrong := misfit(recipe.dense, int(config["hidden_size"]) * len(recipe.pooling))) is not None:
        file = f"{wrong.folder}/config.json"
        raise CorruptModel(f"{file} of {name} takes {wrong.inputs} numbers, and another count comes to it.", param=file)
    for layer, dense in zip(embedder.dense, recipe.dense, strict=True):
        file = f"{dense.folder}/model.safetensors"
        try:
            found: Any = mx.load(str(path / file))
            layer.load_weights([(key.removeprefix("linear."), array) for key, array in found.items()])
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200] if (path / file).is_file() else "it is missing."
            raise CorruptModel(f"{file} of {name} cannot be read: {reason}", param=file) from error
