"""The tokenizer in a GGUF file → tokenizer.json, tokenizer_config.json and chat_template.jinja.

It knows byte-level BPE, BPE by scores (SentencePiece), unigrams and WordPiece; how BPE splits text is in splitting.py,
how each kind is built in tokenizer_kinds.py. A tokenizer outside its tables is refused by name: a wrong split gives
wrong tokens without any error. It knows no weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, processors

from squish.errors import UnsupportedModel
from squish.worker.gguf import vocabulary
from squish.worker.gguf.file import GgufHeader
from squish.worker.gguf.tokenizer_kinds import KINDS, Kind
from squish.worker.gguf.vocabulary import CONTROL, USER_DEFINED

# Control tokens that end a turn although the file's eos_token_id names only one of them.
_END_OF_TURN = frozenset({
    "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "<|end|>", "<end_of_turn>", "<EOT>",
    "[EOT]", "_<EOT>", "<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|return|>", "<|call|>", "<|eot|>", "<turn|>",
    "<|endofturn|>", "<|end_of_turn|>", "[|endofturn|]", "<|user|>", "<|observation|>",
})  # fmt: skip
# Tokens that end no turn where a model has one of the others: they only divide an answer, or begin the next turn.
_ONLY_WITHOUT = {"<|end|>": {"<|return|>", "<|call|>"}, "<|user|>": set(), "<|observation|>": set()}
_MODEL = "tokenizer.ggml.model"
_WITHOUT = ("none", "no_vocab")
# Kinds that are not imported, and what helps: of these models not even safetensors run.
REFUSED_KINDS = {
    "rwkv": "Take a model of another family: the safetensors of this one come with a tokenizer that is code, "
    "and no code of a model is run.",
}
_TEMPLATE, _TEMPLATES = "tokenizer.chat_template", "tokenizer.chat_templates"


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Token ids of the specials; `eos` holds every id that ends an answer, the file's own first."""

    bos: int | None
    eos: tuple[int, ...]
    unk: int | None
    pad: int | None
    vocabulary: int


def check_tokenizer(header: GgufHeader) -> SpecialTokens:
    """Refuse a tokenizer that cannot be rebuilt, without building it. Raises UnsupportedModel or CorruptModel."""
    kind = _kind(header)
    tokens = header.strings(vocabulary.TOKENS)
    vocabulary.numbered(header, tokens)
    types = vocabulary.token_types(header, len(tokens))
    kind.check(header, tokens)

    def token_id(key: str) -> int | None:
        value = header.integer(f"tokenizer.ggml.{key}_token_id")
        if value is not None and not 0 <= value < len(tokens):
            raise header.corrupt(f"its {key} token {value} is outside the vocabulary")
        return value

    named = [token_id("eos"), token_id("eot"), token_id("eom")]
    known = set(tokens)
    marked = [
        i for i, type in enumerate(types) if type == CONTROL and tokens[i] in _END_OF_TURN and _ends(tokens[i], known)
    ]
    # Both raise for what could not be written.
    _templates(header)
    bos = token_id("bos")
    _leading(header, tokens, bos)
    eos = tuple(dict.fromkeys(i for i in [*named, *marked] if i is not None))
    return SpecialTokens(bos, eos, token_id("unknown"), token_id("padding"), len(tokens))


def write_tokenizer(header: GgufHeader, destination: Path, context_length: int) -> None:
    """Write the tokenizer files into `destination`. Raises UnsupportedModel or CorruptModel before writing."""
    specials = check_tokenizer(header)
    tokens = header.strings(vocabulary.TOKENS)
    templates = _templates(header)
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
    if len(templates) > 1:
        config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    path = destination / "tokenizer_config.json"
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if list(templates) == ["default"]:
        (destination / "chat_template.jinja").write_text(templates["default"], encoding="utf-8", newline="")


def _ends(token: str, known: set[str]) -> bool:
    others = _ONLY_WITHOUT.get(token)
    if others is None:
        return True
    return bool(others) and not others & known


def _templates(header: GgufHeader) -> dict[str, str]:
    """Chat templates by their name; "default" is the one that has none."""
    found = {"default": header.text(_TEMPLATE)}
    for name in header.strings(_TEMPLATES) if _TEMPLATES in header.metadata else ():
        found[name] = header.text(f"{_TEMPLATE}.{name}")
    return {name: text for name, text in found.items() if text}


def require_tokenizer_kind(header: GgufHeader) -> None:
    """Refuse a kind of tokenizer that is not known, where the header says so far which it is."""
    if header.text(_MODEL) is not None:
        _kind(header)


def _kind(header: GgufHeader) -> Kind:
    model = header.text(_MODEL)
    if not model or model in _WITHOUT:
        raise header.unsupported(f"it has no tokenizer: {_MODEL} is {model!r}" if model else f"it has no {_MODEL}")
    if model in REFUSED_KINDS:
        raise header.unsupported(f"its tokenizer {model!r} is not imported yet", REFUSED_KINDS[model])
    kind = KINDS.get(model)
    if kind is None:
        raise header.unsupported(f"its tokenizer {model!r} is not known; known are {', '.join(sorted(KINDS))}")
    refused = ("add_eos_token",) if kind.spaces else ("add_eos_token", "add_space_prefix")
    for key in refused:
        if header.flag(f"tokenizer.ggml.{key}"):
            raise UnsupportedModel(f"{header.path.name}: a tokenizer with {key} set cannot be imported.")
    return kind


def _leading(header: GgufHeader, tokens: list[str], bos: int | None) -> str | None:
    """The token that begins every text, or None."""
    stated = header.flag("tokenizer.ggml.add_bos_token")
    wanted = _kind(header).adds_bos(header) if stated is None else stated
    if bos is None or not wanted:
        return None
    if ":" in tokens[bos] or tokens[bos].startswith("$"):
        # Both mean something else in the templates that put a token before a text.
        raise UnsupportedModel(f"{header.path.name}: the begin token {tokens[bos]!r} cannot be imported.")
    return tokens[bos]


def _build(header: GgufHeader, tokens: list[str], bos: str | None) -> Tokenizer:
    kind = _kind(header)
    types = vocabulary.token_types(header, len(tokens))
    tokenizer = kind.build(header, tokens, types)
    steps: list[processors.PostProcessor] = [processors.ByteLevel(trim_offsets=False)] if kind.bytes else []
    if bos is not None:
        template = processors.TemplateProcessing(
            single=[bos, "$A"], pair=[bos, "$A", f"{bos}:1", "$B:1"], special_tokens=[(bos, tokens.index(bos))]
        )
        steps.append(template)
    if steps:
        tokenizer.post_processor = steps[0] if len(steps) == 1 else processors.Sequence(steps)
    strips = header.text("general.architecture") == "phi3" and kind.spaces
    added = [
        AddedToken(token, special=type == CONTROL, normalized=False, rstrip=strips and type == CONTROL and i > 2)
        for i, (token, type) in enumerate(zip(tokens, types, strict=True))
        if type in (CONTROL, USER_DEFINED) and token
    ]
    tokenizer.add_tokens(added)
    return tokenizer
