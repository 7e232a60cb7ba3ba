"""Fields of other servers, and of OpenAI's past, that would change the answer: refused, with what to write instead.

Who sends one expects it to work. A field that is in no list of ours is ignored. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from squish.errors import InvalidInput

_FORMAT = 'Use response_format: {"type": "%s", …}.'
_SCHEMA, _REGEX, _LARK = _FORMAT % "json_schema", _FORMAT % "regex", _FORMAT % "lark"
_THINK = "Use reasoning_effort: none or high."
_PROMPT = "Send finished text to /v1/completions."
_NOTHING = "Leave it out."

INSTEAD: Mapping[str, str] = {
    "functions": "Use tools.",
    "function_call": "Use tool_choice.",
    "guided_json": _SCHEMA,
    "guided_regex": _REGEX,
    "guided_grammar": _LARK,
    "guided_choice": 'Use response_format: {"type": "regex", "regex": "one|two"}.',
    "guided_decoding_backend": _NOTHING,
    "structured_outputs": _SCHEMA,
    "json_schema": _SCHEMA,
    "schema": _SCHEMA,
    "format": _SCHEMA,
    "regex": _REGEX,
    "ebnf": _LARK,
    "grammar": _LARK,
    "chat_template": _PROMPT,
    "chat_template_kwargs": _THINK,
    "enable_thinking": _THINK,
    "think": _THINK,
    "thinking": _THINK,
    "reasoning": _THINK,
    "add_generation_prompt": _PROMPT,
    "continue_final_message": _PROMPT,
    "raw": _PROMPT,
    "template": _PROMPT,
    "system": "Send it as the first of messages.",
    "instructions": "Send it as the first of messages.",
    "input": "Use messages or prompt.",
    "options": "Write temperature, top_p and the like beside model.",
    "num_predict": "Use max_tokens.",
    "n_predict": "Use max_tokens.",
    "max_new_tokens": "Use max_tokens.",
    "max_output_tokens": "Use max_tokens.",
    "min_tokens": _NOTHING,
    "ignore_eos": _NOTHING,
    "stop_sequences": "Use stop.",
    "stop_token_ids": "Use stop.",
    "repeat_penalty": "Use repetition_penalty.",
    "repeat_last_n": _NOTHING,
    "length_penalty": _NOTHING,
    "use_beam_search": _NOTHING,
    "beam_width": _NOTHING,
    "typical_p": "Use min_p or top_p.",
    "tfs_z": "Use min_p or top_p.",
    "top_a": "Use min_p or top_p.",
    "mirostat": _NOTHING,
    "xtc_probability": _NOTHING,
    "dry_multiplier": _NOTHING,
    "prompt_logprobs": _NOTHING,
    "logits_processors": _NOTHING,
}
"""Names, and what to do instead."""

_OFF = (b"null", b"false", b'""', b"[]", b"{}", b"0", b"0.0")


def refuse(body: bytes) -> None:
    """Raise InvalidInput for a field of INSTEAD in this body, a JSON object; off, as null is, it changes nothing."""
    for name, value in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items():
        if name in INSTEAD and bytes(value) not in _OFF:
            raise InvalidInput(f"{name} is not supported by this server.", hint=INSTEAD[name], param=name)
