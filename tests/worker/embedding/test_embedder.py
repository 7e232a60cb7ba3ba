"""From hidden states to vectors, and batches that change nothing, on tiny models with random weights."""

from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx
import pytest

from squish.format.embedding import DenseStep, Pooling, VectorRecipe
from squish.worker.embedding import bert, decoder
from squish.worker.embedding.embedder import Embedder, TokenizedText, misfit, unit

_SHORT, _LONG = [5, 9, 3], [1, 2, 3, 4, 5, 6, 7, 8]
_BERT = {
    "model_type": "bert", "vocab_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 16,
}  # fmt: skip
_DECODER = {
    "vocab_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-6, "max_position_embeddings": 64,
    "rope_theta": 10_000.0, "tie_word_embeddings": True,
}  # fmt: skip


class _Counting:
    """An encoder whose hidden states are known: of token t at place p, (t, p)."""

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        places = mx.broadcast_to(mx.arange(tokens.shape[1]), tokens.shape)
        return mx.stack([tokens, places], axis=-1).astype(mx.float32)


def _vectors(recipe: VectorRecipe, *texts: TokenizedText, encoder: Any = None) -> list[list[float]]:
    found: Any = Embedder(encoder or _Counting(), recipe)(texts)
    return found.tolist()


def _bert(kind: str = "bert") -> Any:
    mx.random.seed(7)
    return bert.BertModel(bert.BertArgs.from_dict(_BERT | {"model_type": kind}))


def _decoder(kind: str, **extra: Any) -> decoder.HeadlessDecoder:
    mx.random.seed(7)
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    config = _DECODER | {"model_type": kind} | extra
    return decoder.HeadlessDecoder(module.Model(module.ModelArgs.from_dict(config)), config, "m")


@pytest.mark.parametrize(
    ("pooling", "expected"), [("mean", [6, 1]), ("cls", [5, 0]), ("lasttoken", [4, 2]), ("max", [9, 2])]
)
def test_each_pooling_sees_a_text_and_none_of_its_filling(pooling: Pooling, expected: list[float]) -> None:
    assert _vectors(VectorRecipe((pooling,)), TokenizedText([5, 9, 4]), TokenizedText(_LONG))[0] == expected


def test_the_tokens_of_a_prompt_count_only_where_they_are_to() -> None:
    assert _vectors(VectorRecipe(("mean",)), TokenizedText([5, 9, 4], prompt=1))[0] == [6.5, 1.5]
    assert _vectors(VectorRecipe(("cls",)), TokenizedText([5, 9, 4], prompt=1))[0] == [9, 1]


def test_several_poolings_stand_one_behind_the_other() -> None:
    assert _vectors(VectorRecipe(("cls", "mean")), TokenizedText([5, 9, 4]))[0] == [5, 0, 6, 1]


def test_layers_after_the_pooling_and_the_length_of_one() -> None:
    dense = DenseStep("2_Dense", 2, 2, bias=False, activation="tanh")
    embedder = Embedder(_Counting(), VectorRecipe(("cls",), dense=(dense,), normalize=True))
    embedder.dense[0].weight = mx.array([[0.0, 1.0], [0.5, 0.0]])
    found: Any = embedder([TokenizedText([5, 1])])
    assert found.tolist()[0] == pytest.approx([0.0, 1.0])


def test_a_vector_of_zeros_has_no_length_to_be_scaled_to() -> None:
    found: Any = unit(mx.zeros((1, 3)))
    assert found.tolist() == [[0, 0, 0]]


def test_a_layer_that_does_not_fit_the_one_before_is_found() -> None:
    first, second = (DenseStep(f"{number}_Dense", 4, 6, True, "tanh") for number in (2, 3))
    assert misfit((first, second), 4) == second
    assert misfit((first,), 4) is None


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "qwen3", "gemma3_text"])
def test_a_text_has_the_same_vector_alone_and_beside_a_longer_one(kind: str, pooling: Pooling) -> None:
    ways = {"use_bidirectional_attention": True} if kind == "gemma3_text" else {}
    encoder = _decoder(kind, **ways) if kind in ("qwen3", "gemma3_text") else _bert(kind)
    alone = _vectors(VectorRecipe((pooling,), normalize=True), TokenizedText(_SHORT), encoder=encoder)
    beside = _vectors(
        VectorRecipe((pooling,), normalize=True), TokenizedText(_LONG), TokenizedText(_SHORT), encoder=encoder
    )
    assert alone[0] == pytest.approx(beside[1], abs=1e-5)


def test_the_last_token_of_a_decoder_has_what_mlx_lm_computes() -> None:
    encoder = _decoder("qwen3")
    own: Any = encoder.inner(mx.array([_LONG]))[0, -1]
    [found] = _vectors(VectorRecipe(("lasttoken",)), TokenizedText(_LONG), encoder=encoder)
    assert found == pytest.approx(own.tolist(), abs=1e-6)


def test_roberta_counts_positions_from_behind_its_padding() -> None:
    assert bert.longest(_BERT) == 16
    assert bert.longest(_BERT | {"model_type": "roberta", "pad_token_id": 1}) == 14


def _seen(encoder: decoder.HeadlessDecoder, changed: int, length: int = 12) -> list[int]:
    """The places whose hidden state depends on the token at `changed`."""
    tokens, mask = [3] * length, mx.ones((1, length), dtype=mx.bool_)
    one, other = (encoder(mx.array([[*tokens[:changed], token, *tokens[changed + 1 :]]]), mask) for token in (3, 4))
    moved: Any = mx.abs(one - other).max(axis=-1)[0]
    return [place for place, distance in enumerate(moved.tolist()) if distance > 1e-6]


def test_gemma_looks_both_ways_and_half_its_window_far() -> None:
    windowed = {"num_hidden_layers": 1, "sliding_window": 4, "sliding_window_pattern": 2}
    both = _decoder("gemma3_text", use_bidirectional_attention=True, **windowed)
    assert _seen(both, 6) == [4, 5, 6, 7, 8]
    full = windowed | {"sliding_window_pattern": 1}
    assert _seen(_decoder("gemma3_text", use_bidirectional_attention=True, **full), 6) == list(range(12))
    assert min(_seen(_decoder("gemma3_text", **full), 6)) == 6, "a model that writes looks back only"


def test_weights_are_found_under_the_names_that_checkpoints_have() -> None:
    model = _bert()
    names = {
        "bert.embeddings.LayerNorm.gamma": "embeddings.LayerNorm.weight",
        "roberta.encoder.layer.0.output.dense.bias": "encoder.layer.0.output.dense.bias",
        "encoder.layer.0.attention.self.query.weight": "encoder.layer.0.attention.self.query.weight",
        "embeddings.position_ids": None,
        "pooler.dense.weight": None,
        "cls.predictions.bias": None,
    }
    found = model.sanitize({name: mx.zeros(1) for name in names})
    assert sorted(found) == sorted(name for name in names.values() if name is not None)


def test_a_decoder_takes_weights_without_head_and_prefix() -> None:
    module = importlib.import_module("mlx_lm.models.qwen3")
    whole = decoder.headless(module.Model)(module.ModelArgs.from_dict(_DECODER | {"model_type": "qwen3"}))
    for prefix in ("", "model."):
        found = whole.sanitize({f"{prefix}norm.weight": mx.zeros(1), "lm_head.weight": mx.zeros(1)})
        assert "model.norm.weight" in found and not any("lm_head" in name for name in found)


def test_an_activation_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="'mish' is not one of gelu"):
        bert.BertArgs.from_dict(_BERT | {"hidden_act": "mish"})
