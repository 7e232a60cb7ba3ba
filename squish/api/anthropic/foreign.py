"""Fields that would change an answer and that Squish cannot do, and those of other APIs, with what to write instead."""

from __future__ import annotations

from collections.abc import Mapping

from squish.api.fields.foreign import Level

_NOTHING = "Leave it out."
_FORMAT = 'Use output_config: {"format": {"type": "json_schema", "schema": …}}.'
_THINKING = 'Use thinking: {"type": "enabled"} or {"type": "disabled"}.'
_CHAT = "Use /v1/chat/completions, which has it."
_GRAMMAR = "Use response_format of /v1/chat/completions, which has regex and lark."
_WHOLE = "Send the whole conversation in messages."
_SCHEMA = "Use input_schema."

_INSTEAD: Mapping[str, str] = {
    "mcp_servers": "Connect to them in the client, and send their tools in tools.",
    "container": _NOTHING,
    "compaction": _WHOLE,
    "thread": _WHOLE,
    "fallbacks": _NOTHING,
    "stop": "Use stop_sequences.",
    "stop_token_ids": "Use stop_sequences.",
    "max_completion_tokens": "Use max_tokens.",
    "max_output_tokens": "Use max_tokens.",
    "max_tokens_to_sample": "Use max_tokens.",
    "num_predict": "Use max_tokens.",
    "prompt": "Use messages.",
    "input": "Use messages.",
    "instructions": "Use system.",
    "response_format": _FORMAT,
    "format": _FORMAT,
    "text": _FORMAT,
    "functions": "Use tools.",
    "function_call": "Use tool_choice.",
    "parallel_tool_calls": 'Use tool_choice: {"type": "auto", "disable_parallel_tool_use": true}.',
    "reasoning_effort": 'Use output_config: {"effort": …}.',
    "reasoning": _THINKING,
    "think": _THINKING,
    "enable_thinking": _THINKING,
    "chat_template_kwargs": _THINKING,
    "options": "Write its fields beside model.",
    **dict.fromkeys(
        (
            "n", "logprobs", "top_logprobs", "logit_bias", "min_p", "frequency_penalty", "presence_penalty",
            "repetition_penalty", "continue_final_message",
        ),
        _CHAT,
    ),
    "best_of": "Use n of /v1/chat/completions.",
    "guided_json": _FORMAT,
    **dict.fromkeys(("regex", "grammar"), _GRAMMAR),
}  # fmt: skip

_BLOCK: Mapping[str, str] = {"source": "Only text is understood."}
_ON_TOOLS = dict.fromkeys(("parameters", "inputSchema", "function"), _SCHEMA) | {
    "defer_loading": _NOTHING,
    "allowed_callers": _NOTHING,
}

_SHARED = {
    "messages": Level(
        {"tool_calls": "Send it as a block of type tool_use.", "tool_call_id": "Send a block of type tool_result."},
        {"content": Level(_BLOCK)},
    ),
    "tools": Level(_ON_TOOLS),
    "tool_choice": Level(known=frozenset({"type", "name", "disable_parallel_tool_use"})),
    "thinking": Level(known=frozenset({"type", "budget_tokens", "display"})),
    "output_config": Level(
        known=frozenset({"effort", "format"}),
        inside={"format": Level(known=frozenset({"type", "schema", "name", "description", "strict"}))},
    ),
}
_HARMLESS: Mapping[str, tuple[bytes, ...]] = {
    "n": (b"null", b"1"),
    "allowed_callers": (b"null", b"[]", b'["direct"]'),
    "logprobs": (b"null", b"false"),
    "parallel_tool_calls": (b"null", b"true"),
    **dict.fromkeys(("think", "enable_thinking", "reasoning"), (b"null",)),
}

MESSAGES = Level(_INSTEAD, _SHARED, harmless=_HARMLESS)
