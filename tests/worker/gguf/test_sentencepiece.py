"""Tokenizers by scores, with marks for spaces: the ids are those of SentencePiece's rule, and text comes back whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from squish.worker.gguf.importer import import_gguf
from tests.worker.gguf.tiny import tiny_model
from tests.worker.gguf.writer import F16, Value

_WORDS = ["▁", "a", "b", "c", "d", "ab", "cd", "abc", "▁a", "bcd", "▁ab"]
_SCORES = {"ab": -1.0, "bcd": -2.0, "cd": -3.0, "abc": -4.0, "▁a": -5.0, "▁ab": -6.0}


def _imported(folder: Path, **settings: Value) -> Tokenizer:
    tiny, _ = tiny_model(F16)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_WORDS, "<tool>"]
    types = [2, 3, 3, *[6] * 256, *[1] * len(_WORDS), 4]
    changed: dict[str, Value] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": [_SCORES.get(token, -100.0) for token in tokens],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **settings,
    }
    tiny.metadata.update(changed)
    tiny.widen(len(tokens))
    import_gguf(tiny.write(folder / "tiny.gguf"), folder / "out")
    return Tokenizer.from_file(str(folder / "out" / "tokenizer.json"))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("abcd", ["<s>", "▁ab", "cd"]),  # "ab" first, then "cd" before what "abc" and "▁ab" would make
        ("a bcd", ["<s>", "▁a", "▁", "bcd"]),
        ("é", ["<s>", "▁", "<0xC3>", "<0xA9>"]),
        ("a<tool>b", ["<s>", "▁a", "<tool>", "▁", "b"]),
    ],
)
def test_the_best_score_is_merged_first(tmp_path: Path, text: str, pieces: list[str]) -> None:
    encoding = _imported(tmp_path).encode(text)
    assert encoding.tokens == pieces


def test_text_comes_back_whole(tmp_path: Path) -> None:
    tokenizer = _imported(tmp_path, **{"tokenizer.ggml.add_space_prefix": False})
    text = " a  bcd é\n"
    assert tokenizer.encode(text).tokens[1:3] == ["▁a", "▁"]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_tokenizer_of_unigrams_takes_the_likeliest_pieces(tmp_path: Path) -> None:
    tokens = ["<unk>", "▁a", "b", "▁ab", "c", "bc", "▁"]
    scores = [0.0, -1.0, -2.0, -2.5, -2.0, -1.5, -3.0]
    tiny, _ = tiny_model(F16)
    tiny.metadata.update({
        "tokenizer.ggml.model": "t5", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 1, 1, 1, 1, 1, 1], "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 0,
    })  # fmt: skip
    import_gguf(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("abc").tokens == ["▁a", "bc"]


def test_a_tokenizer_of_word_pieces_goes_on_within_a_word(tmp_path: Path) -> None:
    tokens = ["[UNK]", "[CLS]", "▁play", "ing", "▁the", "s"]
    tiny, _ = tiny_model(F16)
    tiny.metadata.update({
        "tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 1, 1, 1, 1],
        "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 1,
    })  # fmt: skip
    import_gguf(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("The playings").ids == [1, 4, 2, 3, 5]
