"""Fields of Ollama's API that would change the answer and cannot be had, those of other APIs, and
options that do not stand in `options`: refused, with what to write instead. Pure."""

from __future__ import annotations

from squish.api.fields.foreign import Level
from squish.api.openai import foreign as openai

_NOTHING = "Leave it out."
_BESIDE = "Write it in options."
_NO_OPTION = "Write its fields in options."
_ELSEWHERE = "Use POST /v1/chat/completions, which has it."
_N = "Use n of POST /v1/chat/completions."
_LIMIT = "Use num_predict."
_LIMIT_BESIDE = "Use num_predict in options."
_STOP = "Use stop in options."
_ONLY_TEXT = "Only text is understood."
_IN_TEXT = "Write it into the text."
_RAW = 'Send finished text to POST /api/generate with "raw": true.'

_WORDS = {
    "response_format": "Use format.",
    "max_tokens": _LIMIT_BESIDE,
    "reasoning_effort": "Use think.",
    "repetition_penalty": "Use repeat_penalty in options.",
    "/v1/completions": _RAW,
    "Use stop": _STOP,
    "Use seed": "Use seed in options.",
    "temperature": "Use temperature: 0 in options.",
    "min_p or top_p": "Use min_p or top_p in options.",
    "beside model": _NO_OPTION,
    "logit_bias": "Use logit_bias of POST /v1/chat/completions.",
    "Use n.": _N,
}


def _reworded(hint: str) -> str:
    """What to do instead, where the hint for OpenAI's chats names what Ollama calls otherwise."""
    return next((words for part, words in _WORDS.items() if part in hint), hint)


_OPTIONS = Level(
    {
        **dict.fromkeys(("max_tokens", "n_predict", "max_new_tokens", "max_completion_tokens"), _LIMIT),
        "repetition_penalty": "Use repeat_penalty.",
        "logit_bias": _ELSEWHERE,
        **dict.fromkeys(("grammar", "json_schema", "response_format"), "Use format."),
        **dict.fromkeys(("dry_multiplier", "xtc_probability", "dynatemp_range", "top_n_sigma"), _NOTHING),
        "stop_sequences": "Use stop.",
    }
)
_IN_OPTIONS = (
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "num_predict", "num_ctx", "repeat_penalty",
    "repeat_last_n", "presence_penalty", "frequency_penalty", "mirostat", "typical_p", "tfs_z",
)  # fmt: skip
_COMMON = {
    **{name: _reworded(hint) for name, hint in openai.COMMON.items() if name not in ("format", "options")},
    **dict.fromkeys(_IN_OPTIONS, _BESIDE),
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), _LIMIT_BESIDE),
    "repetition_penalty": _WORDS["repetition_penalty"],
    "response_format": "Use format.",
    **dict.fromkeys(
        ("reasoning_effort", "reasoning", "thinking", "enable_thinking", "chat_template_kwargs"), "Use think."
    ),
    **dict.fromkeys(("n", "logit_bias", "tool_choice", "parallel_tool_calls"), _ELSEWHERE),
    "best_of": _N,
    "continue_final_message": _NOTHING,
    "add_generation_prompt": _ELSEWHERE,
    "functions": "Use tools.",
    "instructions": "Use system, or the first of messages.",
    "suffix": 'Send the text with the model\'s own marks and "raw": true to POST /api/generate.',
    "template": f"The model's own chat template is used. {_RAW}",
    "context": "Send the whole conversation to POST /api/chat.",
    "images": _ONLY_TEXT,
    **dict.fromkeys(("width", "height", "steps"), "Only text is made."),
    "_debug_render_only": _NOTHING,
}
_HARMLESS = {
    **openai.HARMLESS,
    "tool_choice": (b"null", b'"auto"'),
    **dict.fromkeys(("n", "best_of"), (b"null", b"1")),
    **dict.fromkeys(("parallel_tool_calls", "add_generation_prompt"), (b"null", b"true")),
    **dict.fromkeys(("temperature", "top_p", "seed"), (b"null",)),
}

_CHATS_OWN = {
    "prompt": "Use messages, or POST /api/generate.",
    "system": "Send it as the first of messages.",
}
_TEXTS_OWN = {"messages": "Use POST /api/chat.", "tools": "Use POST /api/chat."}

CHAT = Level(_COMMON | _CHATS_OWN, {"options": _OPTIONS}, harmless=_HARMLESS)
GENERATE = Level(
    {name: hint for name, hint in _COMMON.items() if name != "raw"} | _TEXTS_OWN,
    {"options": _OPTIONS},
    harmless=_HARMLESS,
)

_EMBEDDING = {
    **{name: _IN_TEXT if "prompt_name" in hint else hint for name, hint in openai.EMBEDDINGS.instead.items()},
    "prompt_name": _IN_TEXT,
    "add_special_tokens": "Send token ids to POST /v1/embeddings, special ones and all.",
    "encoding_format": "Vectors are numbers here; POST /v1/embeddings has base64.",
}
_EMBEDDING.pop("stream")  # an answer comes whole, and clients say so or not
_EMBEDDING_HARMLESS = {**openai.EMBEDDINGS.harmless, "encoding_format": (b"null", b'"float"')}

EMBED = Level(_EMBEDDING | {"prompt": "Use input."}, harmless=_EMBEDDING_HARMLESS)
EMBEDDINGS = Level(
    {
        **{name: hint for name, hint in _EMBEDDING.items() if name != "prompt"},
        "input": "Use prompt, or POST /api/embed.",
    }
    | dict.fromkeys(("dimensions", "truncate"), "Use POST /api/embed, which has it."),
    harmless={**_EMBEDDING_HARMLESS, "truncate": (b"null", b"true")},
)
