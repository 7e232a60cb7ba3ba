"""What a model can do besides going on with text, judged by its chat template and the marks in its vocabulary.

The marks are those by which mlx-lm, which runs the model, tells calls and thoughts from text; a test compares the two.
Both processes may import it; nothing is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from squish.errors import CorruptModel
from squish.files import read_regular
from squish.format.embedding import ModelKind
from squish.format.model_directory import TOKENIZER_CONFIG, read_object

_TEMPLATE, _TOKENIZER = "chat_template.jinja", "tokenizer.json"
_DEFAULT = "default"
_OF_TOKENIZER = (_TOKENIZER, TOKENIZER_CONFIG)
_LARGEST = 256 << 20

_CALLS: tuple[tuple[str, ...], ...] = (
    ("<minimax:tool_call>",),
    ("<|tool_call>", "<tool_call|>"),
    ("<start_function_call>",),
    ("<longcat_tool_call>",),
    ("<arg_key>",),
    ("<|tool_list_start|>",),
    ("<|tool_call_start|>",),
    ("<tool_call>\\n<function=",),
    ("<tool_call>\n<function=",),
    ("<|tool_calls_section_begin|>",),
    ('<function name="', '<param name="'),
    ("[TOOL_CALLS]",),
    ("<atem:function_calls>",),
    ("<tool_call>", "tool_call.name"),
)
"""A template that has all texts of one of these shows how its model calls tools."""
_CALL_TOKENS = (("<|tool_call_start|>", "<|tool_call_end|>"),)
_THOUGHT_TOKENS = (
    ("<think>", "</think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|think:start|>", "<|think:end|>"),
    ("<|channel>", "<channel|>"),
)
_HARMONY = "<|channel|>analysis"
_SWITCHES = ("enable_thinking", "reasoning_content")


class Abilities(msgspec.Struct, frozen=True):
    """tools: it can be offered functions. thinking: it can think before it answers."""

    chat: bool
    tools: bool
    thinking: bool


def chat_templates(directory: Path) -> dict[str, str]:
    """A model's chat templates by name; "default" is the one that is used unless another is asked for."""
    alone = _template_file(directory)
    return _templates_of(_tokenizer_config(directory)) if alone is None else {_DEFAULT: alone}


def _template_file(directory: Path) -> str | None:
    try:
        return (directory / _TEMPLATE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _templates_of(config: Mapping[str, Any]) -> dict[str, str]:
    found = config.get("chat_template")
    if isinstance(found, str):
        return {_DEFAULT: found}
    named = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    return {
        each["name"]: each["template"]
        for each in named
        if isinstance(each.get("name"), str) and isinstance(each.get("template"), str)
    }


def chat_template(directory: Path) -> str | None:
    """The chat template that is used unless another is asked for; None where there is none."""
    return chat_templates(directory).get(_DEFAULT)


def kind_in(directory: Path, kind: ModelKind) -> ModelKind:
    """What the model in a directory is for: one that writes chats only where it has a chat template.

    kind: as its configuration has it. Without the files of a tokenizer it is left at that.
    """
    if kind not in ("chat", "completion") or not any((directory / name).exists() for name in _OF_TOKENIZER):
        return kind
    return "chat" if _template_file(directory) is not None or _has_template(directory) else "completion"


def _has_template(directory: Path) -> bool:
    try:
        found = (directory / TOKENIZER_CONFIG).stat()
    except OSError:
        return False
    return _says_template(directory, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=256)
def _says_template(directory: Path, modified: int, size: int) -> bool:
    """Kept while the file is the same: every request asks, and a large one takes 10 ms."""
    config = _tokenizer_config(directory)
    return bool(_templates_of(config) or config.get("chat_template_type"))


def _tokenizer_config(directory: Path) -> dict[str, Any]:
    try:
        return read_object(directory / TOKENIZER_CONFIG, directory.name)
    except (FileNotFoundError, CorruptModel):
        return {}


def read(directory: Path) -> Abilities:
    """What the model in a directory can do. Its tokenizer is searched, which takes a moment for a large one."""
    try:
        vocabulary = read_regular(directory / _TOKENIZER, _LARGEST)
    except OSError:
        vocabulary = b""
    templates = chat_templates(directory)
    if len(templates) > 1:  # mlx-lm looks for marks only in a template that stands alone
        return judge("", vocabulary)
    return judge(templates.get(_DEFAULT), vocabulary)


def judge(template: str | None, vocabulary: bytes) -> Abilities:
    """vocabulary: tokenizer.json as it is; a token stands in it as a JSON string."""
    text = template or ""
    calls = any(all(mark in text for mark in marks) for marks in _CALLS) or _has(vocabulary, _CALL_TOKENS)
    shown = any(each in text for marks in _THOUGHT_TOKENS for each in marks) or any(each in text for each in _SWITCHES)
    thinks = _HARMONY in text or (shown and _has(vocabulary, _THOUGHT_TOKENS))
    return Abilities(template is not None, calls and template is not None, thinks)


def _has(vocabulary: bytes, pairs: tuple[tuple[str, ...], ...]) -> bool:
    return any(all(json.dumps(token).encode() in vocabulary for token in pair) for pair in pairs)
