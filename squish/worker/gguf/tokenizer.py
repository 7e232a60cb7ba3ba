"""The tokenizer in a GGUF file → tokenizer.json, tokenizer_config.json and chat_template.jinja.

It knows byte-level BPE and how the known pre-tokenizers split text. A tokenizer model or a pre-tokenizer outside its
table is refused by name: a wrong split gives wrong tokens without any error. It knows no weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from squish.errors import UnsupportedModel
from squish.worker.gguf.file import GgufHeader

_CONTROL, _USER_DEFINED = 3, 4

# Control tokens that end a turn although the file's eos_token_id names only one of them.
_END_OF_TURN = frozenset({"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"})

# Contractions, letters with one leading mark, digits, marks, line ends, spaces; the models differ in the digits only.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    r"DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class _PreTokenizer:
    """How a family splits text before BPE, and what its tokenizer does when the file does not say."""

    build: Callable[[], pre_tokenizers.PreTokenizer]
    add_bos: bool = False
    ignore_merges: bool = False
    compose: bool = False  # NFC before anything else


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Token ids of the specials; `eos` holds every id that ends an answer, the file's own first."""

    bos: int | None
    eos: tuple[int, ...]
    unk: int | None
    pad: int | None
    vocabulary: int


def _byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _single_digits() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level()])


def _words(digits: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(_WORDS.replace("DIGITS", digits)), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _three_digit_words() -> pre_tokenizers.PreTokenizer:
    return _words(r"\p{N}{1,3}")


def _one_digit_words() -> pre_tokenizers.PreTokenizer:
    return _words(r"\p{N}")


_PRE_TOKENIZERS = {
    "smollm": _PreTokenizer(_single_digits),
    "gpt-2": _PreTokenizer(_byte_level),
    "llama-bpe": _PreTokenizer(_three_digit_words, add_bos=True, ignore_merges=True),
    "qwen2": _PreTokenizer(_one_digit_words, compose=True),
}


def check_tokenizer(header: GgufHeader) -> SpecialTokens:
    """Refuse a tokenizer that cannot be rebuilt, without building it. Raises UnsupportedModel or CorruptModel."""
    _pre_tokenizer(header)
    tokens = header.strings("tokenizer.ggml.tokens")
    _merges(header, _vocabulary(header, tokens))
    types = _token_types(header, len(tokens))

    def token_id(key: str) -> int | None:
        value = header.integer(f"tokenizer.ggml.{key}_token_id")
        if value is not None and not 0 <= value < len(tokens):
            raise header.corrupt(f"its {key} token {value} is outside the vocabulary")
        return value

    named = [token_id("eos"), token_id("eot"), token_id("eom")]
    marked = [i for i, kind in enumerate(types) if kind == _CONTROL and tokens[i] in _END_OF_TURN]
    # Both raise for what could not be written.
    header.text("tokenizer.chat_template")
    _leading(header, tokens, token_id("bos"))
    eos = tuple(dict.fromkeys(i for i in [*named, *marked] if i is not None))
    return SpecialTokens(token_id("bos"), eos, token_id("unknown"), token_id("padding"), len(tokens))


def write_tokenizer(header: GgufHeader, destination: Path, context_length: int) -> None:
    """Write the tokenizer files into `destination`. Raises UnsupportedModel or CorruptModel before writing."""
    specials = check_tokenizer(header)
    tokens = header.strings("tokenizer.ggml.tokens")
    template = header.text("tokenizer.chat_template")
    leading = _leading(header, tokens, specials.bos)
    tokenizer = _build(header, tokens, leading)
    (destination / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "add_bos_token": leading is not None,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }
    eos = specials.eos[0] if specials.eos else None
    for name, token in (("bos", specials.bos), ("eos", eos), ("unk", specials.unk), ("pad", specials.pad)):
        if token is not None:
            config[f"{name}_token"] = tokens[token]
    path = destination / "tokenizer_config.json"
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if template:
        (destination / "chat_template.jinja").write_text(template, encoding="utf-8", newline="")


def _pre_tokenizer(header: GgufHeader) -> _PreTokenizer:
    model = header.text("tokenizer.ggml.model")
    if model != "gpt2":
        raise UnsupportedModel(
            f"{header.path.name} has a tokenizer of the kind {model!r}; only byte-level BPE ('gpt2') can be imported.",
            hint="Look for the same model in the safetensors format.",
            param=str(header.path),
        )
    name = header.text("tokenizer.ggml.pre")
    known = _PRE_TOKENIZERS.get(name or "")
    if known is None:
        raise UnsupportedModel(
            f"{header.path.name} needs the pre-tokenizer {name!r}; known are {', '.join(sorted(_PRE_TOKENIZERS))}.",
            hint="Look for the same model in the safetensors format.",
            param=str(header.path),
        )
    for key in ("add_space_prefix", "add_eos_token"):
        if header.flag(f"tokenizer.ggml.{key}"):
            raise UnsupportedModel(f"{header.path.name}: a tokenizer with {key} set cannot be imported.")
    return known


def _leading(header: GgufHeader, tokens: list[str], bos: int | None) -> str | None:
    """The token that begins every text, or None."""
    stated = header.flag("tokenizer.ggml.add_bos_token")
    wanted = _pre_tokenizer(header).add_bos if stated is None else stated
    if bos is None or not wanted:
        return None
    if ":" in tokens[bos] or tokens[bos].startswith("$"):
        # Both mean something else in the templates that put a token before a text.
        raise UnsupportedModel(f"{header.path.name}: the begin token {tokens[bos]!r} cannot be imported.")
    return tokens[bos]


def _token_types(header: GgufHeader, count: int) -> list[int]:
    types = header.integers("tokenizer.ggml.token_type")
    if len(types) != count:
        raise header.corrupt(f"it has {count} tokens but {len(types)} token types")
    return types


def _build(header: GgufHeader, tokens: list[str], bos: str | None) -> Tokenizer:
    pre = _pre_tokenizer(header)
    vocabulary = _vocabulary(header, tokens)
    merges = _merges(header, vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre.ignore_merges))
    if pre.compose:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre.build()
    tokenizer.decoder = decoders.ByteLevel()
    bytes_only = processors.ByteLevel(trim_offsets=False)
    if bos is None:
        tokenizer.post_processor = bytes_only
    else:
        template = processors.TemplateProcessing(
            single=[bos, "$A"], pair=[bos, "$A", f"{bos}:1", "$B:1"], special_tokens=[(bos, vocabulary[bos])]
        )
        tokenizer.post_processor = processors.Sequence([bytes_only, template])
    types = _token_types(header, len(tokens))
    added = [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (_CONTROL, _USER_DEFINED) and token
    ]
    tokenizer.add_tokens(added)
    return tokenizer


def _vocabulary(header: GgufHeader, tokens: list[str]) -> dict[str, int]:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or not tokens:
        raise header.corrupt("its vocabulary is empty or has the same token twice")
    return vocabulary


def _merges(header: GgufHeader, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for merge in header.strings("tokenizer.ggml.merges"):
        # Byte-level tokens hold no space, so the first one after the first character divides the pair.
        at = merge.find(" ", 1)
        left, right = merge[:at], merge[at + 1 :]
        if at < 0 or left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise header.corrupt(f"its merge {merge!r} does not fit its vocabulary")
        merges.append((left, right))
    return merges
