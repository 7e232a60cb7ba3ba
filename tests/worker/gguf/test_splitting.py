"""Every known way to split text before merging can be built, loses nothing, and splits where its models do."""

from __future__ import annotations

import pytest
from tokenizers import pre_tokenizers

from squish.worker.gguf.splitting import SPLITTINGS

TEXT = "I'LL say: CamelCase  1234567 naïve\n\n漢字かな 한글 हिन्दी 🚀!?\t x\r\n  end "
LETTERS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _pieces(name: str, text: str) -> list[str]:
    return [piece for piece, _ in SPLITTINGS[name].build().pre_tokenize_str(text)]


@pytest.mark.parametrize("name", SPLITTINGS)
def test_nothing_is_lost(name: str) -> None:
    whole = "".join(piece for piece, _ in LETTERS.pre_tokenize_str(TEXT))
    assert "".join(_pieces(name, TEXT)) == whole


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("gpt-2", "don't 12345", ["don", "'t", "Ġ12345"]),
        ("llama-bpe", "I'LL 12345", ["I", "'LL", "Ġ", "123", "45"]),
        ("qwen2", "a12 b!", ["a", "1", "2", "Ġb", "!"]),
        ("gpt-4o", "CamelCase's", ["Camel", "Case's"]),
        ("tekken", "HTTPServer 12", ["HTTPServer", "Ġ", "1", "2"]),
        ("deepseek-v3", "x.y 1234", ["x", ".y", "Ġ", "123", "4"]),
        ("deepseek-llm", "ab 12", ["ab", "Ġ", "12"]),
        ("falcon", "1234=5", ["123", "4", "=", "5"]),
        ("afmoe", "1234567", ["1", "234", "567"]),
        ("seed-coder", "a!\n", ["a", "!", "Ċ"]),
    ],
)
def test_text_is_split_where_the_models_split_it(name: str, text: str, pieces: list[str]) -> None:
    assert _pieces(name, text) == pieces
