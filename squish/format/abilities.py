"""What a model can do besides going on with text, judged by its chat template and the marks in its vocabulary.

The marks are those by which mlx-lm, which runs the model, tells calls and thoughts from text; a test compares the two.
Both processes may import it; nothing is loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from squish.errors import CorruptModel
from squish.files import read_regular
from squish.format.model_directory import TOKENIZER_CONFIG, read_object

_TEMPLATE, _TOKENIZER = "chat_template.jinja", "tokenizer.json"
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


@dataclass(frozen=True, slots=True)
class Abilities:
    """tools: it can be offered functions. thinking: it can think before it answers."""

    chat: bool
    tools: bool
    thinking: bool


def chat_template(directory: Path) -> str | None:
    """A model's chat template; None where it has none, or several."""
    try:
        return (directory / _TEMPLATE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    try:
        found = read_object(directory / TOKENIZER_CONFIG, directory.name).get("chat_template")
    except (FileNotFoundError, CorruptModel):
        return None
    return found if isinstance(found, str) else None


def read(directory: Path) -> Abilities:
    """What the model in a directory can do. Its tokenizer is searched, which takes a moment for a large one."""
    try:
        vocabulary = read_regular(directory / _TOKENIZER, _LARGEST)
    except OSError:
        vocabulary = b""
    return judge(chat_template(directory), vocabulary)


def judge(template: str | None, vocabulary: bytes) -> Abilities:
    """vocabulary: tokenizer.json as it is; a token stands in it as a JSON string."""
    text = template or ""
    calls = any(all(mark in text for mark in marks) for marks in _CALLS) or _has(vocabulary, _CALL_TOKENS)
    shown = any(each in text for marks in _THOUGHT_TOKENS for each in marks) or any(each in text for each in _SWITCHES)
    thinks = _HARMONY in text or (shown and _has(vocabulary, _THOUGHT_TOKENS))
    return Abilities(template is not None, calls and template is not None, thinks)


def _has(vocabulary: bytes, pairs: tuple[tuple[str, ...], ...]) -> bool:
    return any(all(json.dumps(token).encode() in vocabulary for token in pair) for pair in pairs)
