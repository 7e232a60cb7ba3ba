"""Whether two tokenizers do the same: the texts and conversations that they are compared on, and the comparison."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import product
from typing import Any

# Of transformers' tokenizer: what mlx-lm and the worker call, and what that calls. A class with its own does not match.
_METHODS = (
    *("__call__", "__len__", "_convert_encoding", "_convert_id_to_token", "_convert_token_to_id_with_added_voc"),
    *("_decode", "_encode_plus", "apply_chat_template", "clean_up_tokenization", "convert_ids_to_tokens"),
    *("convert_tokens_to_ids", "decode", "encode", "get_chat_template", "get_vocab", "special_tokens_map"),
)
_SAMPLES = 512
_BLOCK_OF_IDS = 40

TEXTS = (
    "",
    " ",
    "Hello, world!",
    "  two  spaces   three\t\ttabs \n\n\nlines\r\n",
    " leading and trailing ",
    "I'm you're he's we'll they'd isn't IT'S don't , . ? ! n't",
    "1 12 123 1234 1,234,567.89 0x1F 1e-10 ½ ² ① 一二三",
    "naïve café e\u0301 Å A\u030a ﬁ ﬂ ǆ İ ı ß ſ",
    "日本語のテキスト 한국어 中文 العربية עברית हिन्दी ไทย",
    "🙂 👨‍👩‍👧‍👦 🇫🇷 👍🏽 \U0001f9ff \U000e0041",
    "\u200b\u200c\u200d\ufeff\u00a0\u2028\u2029\u3000\u00ad",
    "\x00\x01\x07\x1b[31m\x7f\x85",
    "▁under ▁▁ score Ġ Ċ <0x0A> <0xFF> ##ing @@",
    "<s></s><unk><pad><mask>[CLS][SEP][INST][/INST]<|endoftext|><|im_start|>user<|im_end|><think></think>",
    "<bos> <eos> <|begin_of_text|> <|eot_id|> <start_of_turn> <tool_call>{}</tool_call> < |im_end|>",
    "def f(x):\n\treturn {'a': [x**2 for _ in range(10)]}  # comment\n    if a<=b!=c: pass",
    "https://example.org/a_b-c?d=e%20f#g user@example.org C:\\temp\\new",
    "CamelCaseAndSCREAMING_SNAKE_case-kebab",
    "a" * 300,
    "ab " * 200,
    "\n" * 70,
    " " * 130,
    "\ufffd\ud7ff\ue000\uffff",
    "The quick brown fox jumps over the lazy dog. " * 8,
)

_USER = {"role": "user", "content": "  What is 2+2? <|im_end|> & \"quotes\" 'x' \n"}
_CALL = {"id": "call00001", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": [1, None]}}}
CONVERSATIONS: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": "hi"}],
    [{"role": "system", "content": "Be brief.\n"}, _USER],
    [{"role": "system", "content": ""}, {"role": "user", "content": ""}],
    [_USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4 "}, {"role": "user", "content": "日本 é"}],
    [_USER, {"role": "assistant", "content": " four\n"}],
    [_USER, {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}, _USER],
    [
        _USER,
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "content": "4", "tool_call_id": "call00001", "name": "add"},
    ],
    [{"role": "assistant", "content": "first"}],
    [_USER, _USER],
    [{"role": "stranger", "content": "who?"}],
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds <numbers> & 'things'.",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["é", None]}}},
        },
    }
]


def same_methods(tokenizer: Any) -> bool:
    """Whether a tokenizer of transformers has no Python of its own where it would matter."""
    base = next((each for each in type(tokenizer).__mro__ if each.__name__ == "TokenizersBackend"), None)
    return base is not None and all(
        inspect.getattr_static(type(tokenizer), name, None) is inspect.getattr_static(base, name, None)
        for name in _METHODS
    )


def same_behavior(one: Any, other: Any) -> bool:
    """Whether two of mlx_lm's TokenizerWrappers do the same with every text, every conversation and many tokens."""
    return (
        all(_read(one, name) == _read(other, name) for name in _WRAPPED)
        and one.get_vocab() == other.get_vocab()
        and all(_same_text(one, other, text) for text in TEXTS)
        and _same_tokens(one, other)
        and _same_templates(one, other)
    )


_WRAPPED = (
    *("eos_token_ids", "has_chat_template", "has_thinking", "think_start", "think_start_tokens", "think_end"),
    *("think_end_tokens", "has_tool_calling", "tool_call_start", "tool_call_start_tokens", "tool_call_end"),
    *("tool_call_end_tokens", "structural_markers", "response_transitions", "tool_parser", "_thinking_kwarg"),
)


def _read(wrapper: Any, name: str) -> Any:
    return getattr(wrapper, name)


def _same_text(one: Any, other: Any, text: str) -> bool:
    for special in (True, False):
        ids = one.encode(text, add_special_tokens=special)
        if ids != other.encode(text, add_special_tokens=special) or one.decode(ids) != other.decode(ids):
            return False
        if _streamed(one, ids) != _streamed(other, ids):
            return False
    return True


def _streamed(wrapper: Any, ids: list[int]) -> list[str]:
    """The pieces in which a text comes out when its tokens come one by one."""
    detokenizer = wrapper.detokenizer
    pieces = []
    for token in ids:
        detokenizer.add_token(token)
        pieces.append(detokenizer.last_segment)
    detokenizer.finalize()
    return [*pieces, detokenizer.last_segment]


def _same_tokens(one: Any, other: Any) -> bool:
    """Every id is the same token, and ids from all over the vocabulary, with the added ones, are the same text."""
    size = len(one)
    every = list(range(size))
    sample = every[:: max(size // _SAMPLES, 1)] + every[-_SAMPLES // 2 :]
    return (
        size == len(other)
        and one.convert_ids_to_tokens(every) == other.convert_ids_to_tokens(every)
        and all(one.decode([id]) == other.decode([id]) for id in sample)
        and all(
            one.decode(sample[at : at + _BLOCK_OF_IDS]) == other.decode(sample[at : at + _BLOCK_OF_IDS])
            for at in range(0, len(sample), _BLOCK_OF_IDS)
        )
    )


def _same_templates(one: Any, other: Any) -> bool:
    if not one.has_chat_template:
        return True
    cases = product(CONVERSATIONS, (None, TOOLS), (True, False), (True, False, None))
    return all(_shown_alike(one, other, case) for case in cases)


def _shown_alike(one: Any, other: Any, case: tuple[Any, ...]) -> bool:
    """A template may say what time it is, so what differs is shown a second time."""
    return any(_outcome(_shower(one, case)) == _outcome(_shower(other, case)) for _ in range(2))


def _shower(wrapper: Any, case: tuple[Any, ...]) -> Callable[[], str]:
    conversation, tools, goes_on, thinking = case
    extra = ({} if tools is None else {"tools": tools}) | ({} if thinking is None else {"enable_thinking": thinking})

    def show() -> str:
        text: str = wrapper.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=not goes_on, continue_final_message=goes_on, **extra
        )
        return text

    return show


def _outcome(show: Callable[[], str]) -> tuple[str, str]:
    """What comes out: the text, or which error and, where the template itself refuses, in which words."""
    try:
        return "text", show()
    except Exception as error:  # noqa: BLE001 - a template may raise anything; it has to be the same
        return type(error).__name__, str(error) if type(error).__name__ == "TemplateError" else ""
