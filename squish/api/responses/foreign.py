"""Fields of /v1/responses that would change the answer and cannot be had, and those of other APIs: refused. Pure."""

from __future__ import annotations

from squish.api.fields.foreign import Level
from squish.api.openai.foreign import COMMON, HARMLESS
from squish.api.responses.requests import ResponsesRequest

_FORMAT = 'Use text: {"format": {"type": "json_schema", …}}.'
_LIMIT = "Use max_output_tokens."
_THINK = 'Use reasoning: {"effort": "none"}, or high.'
_INPUT = "Use input."
_NOTHING = "Leave it out."
_FLAT = "Write name, description and parameters beside type."

_WORDS = {"response_format": _FORMAT, "max_tokens": _LIMIT, "reasoning_effort": _THINK, "messages": _INPUT}


def _reworded(hint: str) -> str:
    """What to do instead, where the hint for chats names a field that has another name in this API."""
    return next((words for field, words in _WORDS.items() if field in hint), hint)


_OTHERS = {
    "messages": _INPUT,
    "prompt": _INPUT,
    "max_tokens": _LIMIT,
    "max_completion_tokens": _LIMIT,
    "response_format": _FORMAT,
    "reasoning_effort": _THINK,
    "think": _THINK,
    "thinking": _THINK,
    "enable_thinking": _THINK,
    "chat_template_kwargs": _THINK,
    "functions": "Use tools.",
    "function_call": "Use tool_choice.",
    "logprobs": 'Use include: ["message.output_text.logprobs"].',
    "system": "Use instructions.",
    "verbosity": "Use instructions.",
    "n": _NOTHING,
    "continue_final_message": _NOTHING,
    "add_generation_prompt": _NOTHING,
    "best_of": _NOTHING,
    "background": "Use stream.",
    "conversation": "Use previous_response_id, or send the whole conversation in input.",
    "context_management": "Send a shorter input.",
    "truncation": "Send a shorter input.",
    "moderation": _NOTHING,
}

RESPONSES = Level(
    {
        **{name: _reworded(hint) for name, hint in COMMON.items() if name not in ResponsesRequest.__struct_fields__},
        **_OTHERS,
    },
    {
        "input": Level(
            {
                "tool_calls": "Send a function_call item for each call.",
                "tool_call_id": "Send a function_call_output item with a call_id.",
                "reasoning_content": "Send a reasoning item.",
            }
        ),
        "text": Level({"verbosity": "Use instructions."}),
        "tools": Level({"function": _FLAT, "input_schema": _FLAT}),
        "tool_choice": Level({"function": "Write name beside type."}),
        "reasoning": Level({"max_tokens": _LIMIT, "enabled": _THINK}),
    },
    harmless={**HARMLESS, "n": (b"null", b"1"), "add_generation_prompt": (b"null", b"true")},
)
