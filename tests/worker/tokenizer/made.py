"""Tokenizers of the kinds that models bring, small, written as their makers write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LINES = [
    "The quick brown fox jumps over the lazy dog.",
    "def f(x): return {'a': x}",
    "naïve café 日本語 🙂 don't",
    "1 12 123",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]

TEMPLATE = """\
{{- bos_token }}{% if tools %}{% for tool in tools %}{{ tool | tojson(indent=2) }}{% endfor %}{% endif %}
{%- set ns = namespace(last=-1, count=0) %}
{%- macro shown(message) %}<|im_start|>{{ message['role'] }}
{{ message.content if message.content is string else message.content | map(attribute='text') | join }}{% endmacro %}
{% for message in messages %}
    {%- if message.role not in ('system', 'user', 'assistant', 'tool') %}
        {{- raise_exception('Unknown role: ' ~ message.role) }}
    {%- endif %}
    {%- if loop.index0 == 0 and message.role == 'assistant' %}{% continue %}{% endif %}
    {%- set ns.last = loop.index0 %}
    {%- if message.role == 'assistant' %}
        {%- generation %}{% set inner = 'x' %}{{ shown(message) }}{% endgeneration %}{{ inner is defined }}
    {%- else %}{{ shown(message) }}{% endif %}
    {%- for call in message.tool_calls or [] %}
<tool_call>{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}</tool_call>
    {%- endfor %}
    {%- if message.reasoning_content %}[{{ message.reasoning_content }}|{{ message.thinking }}]{% endif %}
    {%- if message.name %} {{ dict(name=message.name, id=message.name) | tojson(separators=(',', ':')) }}{% endif -%}
    <|im_end|>
    {%- if loop.index > 40 %}{% break %}{% endif %}
{% endfor %}
{{- ns.last }} {{ strftime_now('%d %B %Y') }} {{ enable_thinking }} {{ eos_token }} {{ pad_token is defined }}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}
"""


def byte_level(folder: Path, **config: Any) -> Path:
    """As GPT-2, Qwen and SmolLM have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return _written(folder, tokenizer, {"tokenizer_class": "GPT2Tokenizer", **config})


def llama_3(folder: Path, **config: Any) -> Path:
    """Byte-level with a regular expression in front and a beginning of text behind."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    pattern = Regex(r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return _written(folder, tokenizer, {"tokenizer_class": "PreTrainedTokenizerFast", **config})


def sentencepiece(folder: Path, *, strip: bool = True, **config: Any) -> Path:
    """As Llama 2 and Mistral have it: bytes where a letter is unknown, and a space in front of a text."""
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    letters = sorted({letter for line in LINES for letter in line if letter.isascii() and letter != " "})
    merged = ["▁t", "▁the", "th", "he", "▁q", "qu", "▁qu", "in", "er"]
    vocabulary = {token: at for at, token in enumerate([*tokens, *letters, *merged])}
    merges = [("▁", "t"), ("t", "h"), ("h", "e"), ("▁t", "he"), ("▁", "q"), ("q", "u"), ("▁q", "u"), ("i", "n")]
    bpe = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return _written(folder, tokenizer, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, **config})


def word_pieces(folder: Path, **config: Any) -> Path:
    """As BERT has it, where decoding takes spaces away again."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    return _written(
        folder,
        tokenizer,
        {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": True, **config},
    )


def _written(folder: Path, tokenizer: Tokenizer, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    tokenizer.enable_truncation(max_length=7)  # left over from training in more than one published file
    tokenizer.save(str(folder / "tokenizer.json"))
    everything = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": TEMPLATE, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(everything))
    model = {"model_type": "llama", "vocab_size": 512, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(model))
    return folder


KINDS: dict[str, Callable[[Path], Path]] = {
    "byte level": byte_level,
    "byte level, added tokens": lambda path: byte_level(
        path,
        added_tokens_decoder={
            "450": {"content": "<tool_call>", "special": False, "normalized": False},
            "451": {"content": " odd ", "special": True, "lstrip": True, "rstrip": True, "normalized": True},
        },
        extra_special_tokens=["<|extra|>"],
        pad_token="<|im_end|>",
    ),
    "byte level, spaces cleaned up": lambda path: byte_level(path, clean_up_tokenization_spaces=True),
    "byte level, special tokens split": lambda path: byte_level(path, split_special_tokens=True),
    "byte level, two templates": lambda path: byte_level(
        path,
        chat_template=[
            {"name": "default", "template": TEMPLATE},
            {"name": "tool_use", "template": "T" + TEMPLATE},
        ],
    ),
    "byte level, no template": lambda path: byte_level(path, chat_template=None),
    "llama 3": llama_3,
    "sentencepiece": sentencepiece,
    "sentencepiece, no space stripped": lambda path: sentencepiece(path, strip=False),
    "sentencepiece, end added": lambda path: sentencepiece(path, add_eos_token=True, add_bos_token=False),
    "word pieces": word_pieces,
}
