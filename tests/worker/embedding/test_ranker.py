"""Cross-encoders from a directory: their scores against numbers that numpy makes of the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from squish.embeddings import TextPair
from squish.errors import ContextLengthExceeded, UnsupportedModel
from squish.format.embedding import is_ranker, kind_of
from squish.ipc.frames import Embed
from squish.worker.embedding import bert
from squish.worker.embedding.intake import TextEncoder
from squish.worker.embedding.loading import check, load
from tests.conftest import minilm

CONFIG: dict[str, Any] = {
    "vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 64, "type_vocab_size": 2, "hidden_act": "relu", "layer_norm_eps": 1e-12,
    "id2label": {"0": "LABEL_0"}, "pad_token_id": 1,
}  # fmt: skip
KINDS = {"bert": "BertForSequenceClassification", "xlm-roberta": "XLMRobertaForSequenceClassification"}
THEIRS = {
    "bert": {"dense": "bert.pooler.dense", "out": "classifier"},
    "xlm-roberta": {"dense": "classifier.dense", "out": "classifier.out_proj"},
}
QUERY, DOCUMENTS = "where do pandas live", ("Pandas live in China.", "A recipe for bread", "")

Weights = dict[str, Any]


def write(folder: Path, kind: str, **changes: Any) -> Weights:
    """A random cross-encoder as checkpoints have it; its weights under the names that the encoder has here."""
    mx.random.seed(11)
    config = CONFIG | {"model_type": kind, "architectures": [KINDS[kind]]} | changes
    model = bert.CrossEncoder(bert.BertArgs.from_dict(config))
    flat: Any = tree_flatten(model.parameters())  # type: ignore[no-untyped-call]
    ours = {name: mx.random.normal(array.shape) * 0.3 for name, array in flat}
    prefix = "bert." if kind == "bert" else "roberta."
    theirs = {}
    for name, array in ours.items():
        head, _, part = name.rpartition(".")
        named = THEIRS[kind].get(head)
        theirs[f"{named}.{part}" if named else prefix + name.removeprefix("bert.")] = array
    mx.save_safetensors(str(folder / "model.safetensors"), theirs)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((minilm() / name).read_bytes())
    return {name: np.array(array) for name, array in ours.items()}


def expected(weights: Weights, tokens: list[int], types: list[int], first: int) -> float:
    """The head's number for one pair, step by step as the papers have it."""

    def linear(x: Any, name: str) -> Any:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        centered = x - x.mean(-1, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    table = "bert.embeddings"
    x = weights[f"{table}.word_embeddings.weight"][tokens] + weights[f"{table}.token_type_embeddings.weight"][types]
    x = norm(x + weights[f"{table}.position_embeddings.weight"][first : first + len(tokens)], f"{table}.LayerNorm")
    for number in range(2):
        layer = f"bert.encoder.layer.{number}"
        q, k, v = (
            linear(x, f"{layer}.attention.self.{part}").reshape(len(tokens), 2, 16).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(1, 2) / 4
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        seen = (shares / shares.sum(-1, keepdims=True)) @ v
        attended = linear(seen.swapaxes(0, 1).reshape(len(tokens), 32), f"{layer}.attention.output.dense")
        x = norm(x + attended, f"{layer}.attention.output.LayerNorm")
        inner = np.maximum(linear(x, f"{layer}.intermediate.dense"), 0)
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return float(linear(np.tanh(linear(x[0], "dense")), "out")[0])


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_weights(tmp_path: Path, kind: str, raw: bool) -> None:
    changes = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}} if raw else {}
    weights = write(tmp_path, kind, **changes)
    loaded = load(tmp_path)
    assert (loaded.dimensions, loaded.longest) == (1, 64 if kind == "bert" else 62)
    texts = TextEncoder(loaded).encode(
        Embed(1, tuple(TextPair(QUERY, each) for each in DOCUMENTS)), 0, [TextPair(QUERY, each) for each in DOCUMENTS]
    )
    found: Any = loaded.embedder(texts)
    start, end = 101, 102
    for text, document, [score] in zip(texts, DOCUMENTS, found.tolist(), strict=True):
        query, other = (loaded.tokenizer.encode(each, add_special_tokens=False) for each in (QUERY, document))
        between = [end] if kind == "bert" else [end, end]
        assert list(text.tokens) == [start, *query, *between, *other, end]
        types = [0] * (len(query) + 2) + [1] * (len(other) + 1) if kind == "bert" else [0] * len(text.tokens)
        logit = expected(weights, list(text.tokens), types, 0 if kind == "bert" else 2)
        assert score == pytest.approx(logit if raw else 1 / (1 + np.exp(-logit)), abs=1e-4)


def test_of_a_document_that_is_too_long_the_beginning_counts_or_it_is_named(tmp_path: Path) -> None:
    write(tmp_path, "bert")
    encoder, long = TextEncoder(load(tmp_path)), TextPair("a query", "word " * 400)
    frame = Embed(1, (TextPair("a", "b"), long))
    with pytest.raises(ContextLengthExceeded, match=r"documents\[1\] has at least") as refused:
        encoder.encode(frame, 0, frame.inputs)
    assert refused.value.param == "documents[1]"
    with pytest.raises(ContextLengthExceeded, match="query has at least"):
        encoder.encode(frame, 0, [TextPair("word " * 400, "b")])
    [_, cut] = encoder.encode(Embed(1, frame.inputs, truncate=True), 0, frame.inputs)
    assert (len(cut.tokens), cut.tokens[-1]) == (64, 102)


def test_what_a_model_is_for(tmp_path: Path) -> None:
    ranker = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "num_labels": 1}
    assert kind_of(ranker, None) == "rerank"
    others: tuple[dict[str, Any], ...] = ({"num_labels": 3}, {"architectures": ["BertModel"]}, {"model_type": "llama"})
    for other in others:
        assert not is_ranker(ranker | other)
    write(tmp_path, "bert", id2label={"0": "no", "1": "yes"})
    with pytest.raises(UnsupportedModel, match="labels or scores"):
        check(tmp_path)
