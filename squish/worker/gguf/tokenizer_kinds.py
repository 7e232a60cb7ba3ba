"""Each kind of tokenizer that a GGUF file may have, built out of its vocabulary. It writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from squish.worker.gguf import vocabulary
from squish.worker.gguf.file import GgufHeader, nearest
from squish.worker.gguf.splitting import SPLITTINGS, Splitting
from squish.worker.gguf.vocabulary import BYTE, CONTROL, UNKNOWN, USER_DEFINED

_SPACE = "▁"


@dataclass(frozen=True, slots=True)
class Kind:
    """check: raises for a file that cannot be built. adds_bos: whether texts begin with a token where the file says
    nothing. spaces: whether spaces are written as marks, so that one may be put before a text. bytes: whether tokens
    are byte for byte.
    """

    build: Callable[[GgufHeader, list[str], list[int]], Tokenizer]
    check: Callable[[GgufHeader, list[str]], object]
    adds_bos: Callable[[GgufHeader], bool]
    spaces: bool = False
    bytes: bool = False


# ---- byte-level BPE


def _splitting(header: GgufHeader) -> Splitting:
    name = header.text("tokenizer.ggml.pre")
    if not name:
        problem = "it does not say how its tokenizer splits texts: tokenizer.ggml.pre is missing, as in early files"
        raise header.unsupported(problem, "Take a newer file of the same model, or one in the safetensors format.")
    known = SPLITTINGS.get(name)
    if known is None:
        raise header.unsupported(f"its pre-tokenizer {name!r} is not known; {nearest(name, SPLITTINGS)}")
    return known


def _check_bytes(header: GgufHeader, tokens: list[str]) -> None:
    if header.text("tokenizer.ggml.pre") != "gemma4":
        _splitting(header)
    vocabulary.merges(header, vocabulary.numbered(header, tokens))


def _bytes(header: GgufHeader, tokens: list[str], types: list[int]) -> Tokenizer:
    if header.text("tokenizer.ggml.pre") == "gemma4":
        return _merged(header, tokens, types)
    split, numbered = _splitting(header), vocabulary.numbered(header, tokens)
    merges = vocabulary.merges(header, numbered)
    tokenizer = Tokenizer(models.BPE(vocab=numbered, merges=merges, ignore_merges=split.ignore_merges))
    if split.compose:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split.build()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _bytes_add_bos(header: GgufHeader) -> bool:
    return header.text("tokenizer.ggml.pre") == "gemma4" or _splitting(header).add_bos


# ---- SentencePiece


def _prefixed(header: GgufHeader) -> bool:
    """Whether a space is put before a text."""
    stated = header.flag("tokenizer.ggml.add_space_prefix")
    return True if stated is None else stated


def _check_scores(header: GgufHeader, tokens: list[str]) -> None:
    vocabulary.scores(header, len(tokens))


def _scored(header: GgufHeader, tokens: list[str], types: list[int]) -> Tokenizer:
    merges = vocabulary.merges_by_score(tokens, types, vocabulary.scores(header, len(tokens)))
    return _with_marks(tokens, types, merges, _prefixed(header))


def _merged(header: GgufHeader, tokens: list[str], types: list[int]) -> Tokenizer:
    """Marks for spaces, and merges as the file lists them; lines are tokenized one by one."""
    merges = vocabulary.merges(header, vocabulary.numbered(header, tokens))
    tokenizer = _with_marks(tokens, types, merges, False)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]+|\n+"), behavior="isolated")
    return tokenizer


def _with_marks(tokens: list[str], types: list[int], merges: list[tuple[str, str]], prefixed: bool) -> Tokenizer:
    unknown = next((token for token, type in zip(tokens, types, strict=True) if type == UNKNOWN), None)
    unknown = unknown or next((token for token in tokens if token == "<unk>"), None)
    numbered = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocab=numbered, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=BYTE in types)
    )
    marks = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), marks]) if prefixed else marks
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    return tokenizer


def _unigrams(header: GgufHeader, tokens: list[str], types: list[int]) -> Tokenizer:
    scores = vocabulary.scores(header, len(tokens))
    unknown = header.integer("tokenizer.ggml.unknown_token_id")
    pairs = list(zip(tokens, scores, strict=True))
    tokenizer = Tokenizer(models.Unigram(pairs, unknown, BYTE in types))
    steps: list[normalizers.Normalizer] = []
    if "tokenizer.ggml.precompiled_charsmap" in header.metadata:
        table = bytes(each & 0xFF for each in header.integers("tokenizer.ggml.precompiled_charsmap"))
        steps.append(normalizers.Precompiled(table))
    if header.flag("tokenizer.ggml.remove_extra_whitespaces"):
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "always" if _prefixed(header) else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, scheme)
    tokenizer.decoder = decoders.Metaspace(_SPACE, scheme)
    return tokenizer


# ---- WordPiece


def _word_pieces(header: GgufHeader, tokens: list[str], types: list[int]) -> Tokenizer:
    """The file marks the beginnings of words, WordPiece what goes on with one."""
    special = {CONTROL, USER_DEFINED, UNKNOWN}
    numbered = {
        token if type in special else token[1:] if token.startswith(_SPACE) else f"##{token}": i
        for i, (token, type) in enumerate(zip(tokens, types, strict=True))
    }
    unknown = header.integer("tokenizer.ggml.unknown_token_id")
    unk = "[UNK]" if unknown is None or not 0 <= unknown < len(tokens) else tokens[unknown]
    tokenizer = Tokenizer(models.WordPiece(vocab=numbered, unk_token=unk))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _nothing(header: GgufHeader, tokens: list[str]) -> None:
    pass


# By `tokenizer.ggml.model`.
KINDS = {
    "gpt2": Kind(_bytes, _check_bytes, _bytes_add_bos, bytes=True),
    "llama": Kind(_scored, _check_scores, lambda header: True, spaces=True),
    "gemma4": Kind(_merged, lambda header, tokens: vocabulary.merges(header, vocabulary.numbered(header, tokens)),
                   lambda header: True, spaces=True),
    "t5": Kind(_unigrams, _check_scores, lambda header: False, spaces=True),
    "bert": Kind(_word_pieces, _nothing, lambda header: True, spaces=True),
}  # fmt: skip
