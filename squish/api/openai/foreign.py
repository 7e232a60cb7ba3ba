"""Fields of other servers, and of OpenAI's past, that would change the answer: refused, with what to write instead."""

from __future__ import annotations

from collections.abc import Mapping

from squish.api.fields.foreign import OFF, Level

_FORMAT = 'Use response_format: {"type": "%s", …}.'
_SCHEMA, _REGEX, _LARK = _FORMAT % "json_schema", _FORMAT % "regex", _FORMAT % "lark"
_THINK = "Use reasoning_effort: none or high."
_PROMPT = "Send finished text to /v1/completions."
_FIRST = "Send it as the first of messages."
_LIMIT = "Use max_tokens."
_SAMPLING = "Use min_p or top_p."
_TEXT = "Send its text in content."
_BESIDE = "Write its fields beside model."
_NOTHING = "Leave it out."
_CHAT = "Use /v1/chat/completions."
_MESSAGES = "Use messages, or /v1/completions."
_ONLY_TEXT = "Only text is understood."
_CONTEXT = "A conversation has the whole context of the model."
_SPECIAL = "Send token ids as prompt to /v1/completions, special ones and all."
_NO_SEARCH = "Search first, and send what was found in messages."

_ON = (b"null", b"true")
_ONE = (b"null", b"1", b"1.0")
HARMLESS: Mapping[str, tuple[bytes, ...]] = {
    **dict.fromkeys(("include_reasoning", "separate_reasoning", "stream_reasoning", "do_sample"), _ON),
    **dict.fromkeys(("skip_special_tokens", "spaces_between_special_tokens", "detokenize"), _ON),
    **dict.fromkeys(
        (
            "repeat_penalty",
            "length_penalty",
            "typical_p",
            "typ_p",
            "tfs_z",
            "num_beams",
            "beam_width",
            "encoder_repetition_penalty",
            "guidance_scale",
        ),
        _ONE,
    ),
    **dict.fromkeys(("think", "thinking", "enable_thinking", "reasoning", "random_seed"), (b"null", b'""')),
    "enable_reasoning": (b"null",),
    "repeat_last_n": (b"null", b"-1"),
    "penalty_last_n": (b"null", b"-1"),
    "mirostat_tau": (*OFF, b"5", b"5.0"),
    "mirostat_eta": (*OFF, b"0.1"),
    **dict.fromkeys(("best_of", "num_return_sequences"), (*_ONE, b"0")),
    "num_predict": (b"null", b"-1"),
    "n_predict": (b"null", b"-1"),
    "thinking_budget": (b"null", b"-1"),
    "reasoning_budget": (b"null", b"-1"),
    "budget_tokens": (b"null",),
    "reasoning_format": (b"null", b'"auto"', b'"deepseek"', b'"parsed"'),
    "truncation": (b"null", b'"disabled"'),
    **dict.fromkeys(("tool_choice", "function_call"), (b"null", b'"none"', b'"auto"')),
    "verbosity": (b"null", b'"medium"'),
    "modalities": (b"null", b"[]", b'["text"]'),
}
"""Names whose values that change nothing are others than OFF."""

COMMON: Mapping[str, str] = {
    "guided_json": _SCHEMA,
    "guided_regex": _REGEX,
    "guided_grammar": _LARK,
    "guided_choice": 'Use response_format: {"type": "regex", "regex": "one|two"}.',
    "guided_decoding_backend": _NOTHING,
    "structured_outputs": _SCHEMA,
    "json_schema": _SCHEMA,
    "schema": _SCHEMA,
    "format": _SCHEMA,
    "text": _SCHEMA,
    "regex": _REGEX,
    "ebnf": _LARK,
    "grammar": _LARK,
    "raw": _PROMPT,
    "template": _PROMPT,
    "input": "Use messages or prompt.",
    "inputs": "Use messages or prompt.",
    "options": _BESIDE,
    "parameters": _BESIDE,
    "sampling_params": _BESIDE,
    "extra_body": _BESIDE,
    "num_predict": _LIMIT,
    "n_predict": _LIMIT,
    "max_new_tokens": _LIMIT,
    "max_output_tokens": _LIMIT,
    "max_length": _LIMIT,
    "min_tokens": _NOTHING,
    "ignore_eos": _NOTHING,
    "stop_sequences": "Use stop.",
    "stop_token_ids": "Use stop.",
    "include_stop_str_in_output": _NOTHING,
    "bad_words": "Use logit_bias.",
    "allowed_token_ids": "Use logit_bias.",
    "banned_tokens": "Use logit_bias.",
    "banned_strings": "Use stop.",
    "stop_regex": "Use stop.",
    "no_stop_trim": _NOTHING,
    "random_seed": "Use seed.",
    "n_probs": "Use logprobs.",
    "do_sample": "Use temperature: 0.",
    "num_beams": _NOTHING,
    "num_return_sequences": "Use n.",
    "repeat_penalty": "Use repetition_penalty.",
    "repeat_last_n": _NOTHING,
    "penalty_last_n": _NOTHING,
    "encoder_repetition_penalty": "Use repetition_penalty.",
    "negative_prompt": "Say in messages what is not wanted.",
    "guidance_scale": _NOTHING,
    "custom_token_bans": "Use logit_bias.",
    "ban_eos_token": _NOTHING,
    "num_ctx": _CONTEXT,
    "n_ctx": _CONTEXT,
    "t_max_predict_ms": _LIMIT,
    "image_data": _ONLY_TEXT,
    "return_tokens_as_token_ids": _NOTHING,
    "return_token_ids": _NOTHING,
    "structural_tag": _SCHEMA,
    "input_ids": "Send token ids as prompt to /v1/completions.",
    "add_special_tokens": _SPECIAL,
    "add_bos_token": _SPECIAL,
    "length_penalty": _NOTHING,
    "use_beam_search": _NOTHING,
    "beam_width": _NOTHING,
    "typical_p": _SAMPLING,
    "typ_p": _SAMPLING,
    "tfs_z": _SAMPLING,
    "top_a": _SAMPLING,
    "top_n_sigma": _SAMPLING,
    "smoothing_factor": _SAMPLING,
    "no_repeat_ngram_size": "Use repetition_penalty.",
    "repetition_context_size": _NOTHING,
    "min_new_tokens": _NOTHING,
    "samplers": _NOTHING,
    "lora": _NOTHING,
    "adapters": _NOTHING,
    "epsilon_cutoff": _SAMPLING,
    "eta_cutoff": _SAMPLING,
    "penalty_alpha": _SAMPLING,
    "dynamic_temperature": _NOTHING,
    "mirostat": _NOTHING,
    "mirostat_tau": _NOTHING,
    "mirostat_eta": _NOTHING,
    "xtc_probability": _NOTHING,
    "dry_multiplier": _NOTHING,
    "dynatemp_range": _NOTHING,
    "prompt_logprobs": _NOTHING,
    "logits_processors": _NOTHING,
    "skip_special_tokens": _NOTHING,
    "truncate_prompt_tokens": "Send a shorter prompt.",
    "truncation": "Send a shorter prompt.",
    "transforms": "Send a shorter prompt.",
    "thinking_config": _THINK,
    "enable_reasoning": _THINK,
    "disable_reasoning": _THINK,
    "generation_config": _BESIDE,
    "previous_response_id": "Send the whole conversation in messages.",
    "include_reasoning": "Read content alone; thoughts come as reasoning_content.",
    "separate_reasoning": _NOTHING,
    "reasoning_format": _NOTHING,
    "thinking_budget": _LIMIT,
    "reasoning_budget": _LIMIT,
}

_NOT_IN_CHATS: Mapping[str, str] = {
    "prompt": _MESSAGES,
    "batch": _MESSAGES,
    "best_of": "Use n.",
    "echo": _NOTHING,
    "suffix": _MESSAGES,
    "functions": "Use tools.",
    "function_call": "Use tool_choice.",
    "chat_template": _PROMPT,
    "chat_template_args": "Use chat_template_kwargs.",
    "system": _FIRST,
    "instructions": _FIRST,
    "prompt_mode": _THINK,
    "safe_prompt": _FIRST,
    "documents": "Send their text in messages.",
    "images": _ONLY_TEXT,
    "image_url": _ONLY_TEXT,
    "plugins": _NO_SEARCH,
    "enable_search": _NO_SEARCH,
    "search_parameters": _NO_SEARCH,
}

_NOT_IN_COMPLETIONS = dict.fromkeys(
    (
        "messages", "tools", "tool_choice", "functions", "function_call", "reasoning_effort", "think", "thinking",
        "enable_thinking", "reasoning", "chat_template", "chat_template_kwargs", "continue_final_message",
        "modalities", "audio", "prediction", "verbosity", "web_search_options", "system", "instructions",
    ),
    _CHAT,
) | {"max_completion_tokens": _LIMIT, "top_logprobs": "Use logprobs: 0 to 5."}  # fmt: skip

_IN_FORMAT = frozenset({"type", "json_schema", "schema", "regex", "lark", "name", "description", "strict"})
_NOT_TEXT = (
    "image", "images", "image_url", "video", "videos", "video_url", "audio_url", "input_audio", "file", "files",
    "attachments", "documents", "document",
)  # fmt: skip
_PARAMETERS = dict.fromkeys(("input_schema", "inputSchema", "parametersJsonSchema", "arguments"), "Use parameters.")
_INSIDE_BOTH: Mapping[str, Level] = {
    "response_format": Level(
        known=_IN_FORMAT,
        inside={
            "json_schema": Level(
                known=frozenset({"name", "schema", "description", "strict"}),
                unknown="The schema belongs in response_format.json_schema.schema.",
            )
        },
    ),
    "stream_options": Level(dict.fromkeys(("continuous_usage_stats", "chunk_include_usage"), "Use include_usage.")),
}

_OURS = {name: hint for name, hint in COMMON.items() if name != "num_ctx"} | {"n_ctx": "Use num_ctx."}
CHAT = Level(
    {**_OURS, **_NOT_IN_CHATS},
    {
        **_INSIDE_BOTH,
        "messages": Level(
            {**dict.fromkeys(_NOT_TEXT, _TEXT), "thinking": "Use reasoning_content."},
            {"content": Level(dict.fromkeys(_NOT_TEXT, _TEXT))},
        ),
        "tools": Level(
            dict.fromkeys(("parameters", "input_schema", "inputSchema"), "Use function.parameters."),
            {"function": Level(_PARAMETERS)},
        ),
        "tool_choice": Level({"disable_parallel_tool_use": "Use parallel_tool_calls: false."}),
        "thinking": Level(known=frozenset({"type"}), unknown=_LIMIT),
        "reasoning": Level(known=frozenset({"enabled", "effort"}), unknown=_NOTHING),
        "chat_template_kwargs": Level(known=frozenset({"enable_thinking", "thinking"}), unknown=_PROMPT),
    },
    harmless=HARMLESS,
)
COMPLETION = Level(
    {**_OURS, **_NOT_IN_COMPLETIONS},
    _INSIDE_BOTH,
    harmless={**HARMLESS, "add_special_tokens": _ON, "add_bos_token": _ON},  # a prompt is tokenized with them
)

_NAMED_PROMPT = "Use prompt_name, with one of the model's own prompts, or write it into input."
_TRUNCATE = "Use truncate: true."
_FILES_SAY = ("normalize", "normalized", "embd_normalize", "pooling", "pooling_type", "late_chunking")
EMBEDDINGS = Level(
    {
        **dict.fromkeys(("input_type", "task", "task_type", "prompt", "instruction"), _NAMED_PROMPT),
        **dict.fromkeys(("truncation", "truncate_prompt_tokens", "truncation_side"), _TRUNCATE),
        **dict.fromkeys(("output_dimension", "output_dimensionality", "embed_dim"), "Use dimensions."),
        **dict.fromkeys(("inputs", "texts", "content", "messages"), "Use input."),
        **dict.fromkeys(("output_dtype", "embedding_type", "embedding_types", "embed_dtype"), "Vectors are float32."),
        "stream": "An answer comes whole.",
        **dict.fromkeys(_FILES_SAY, "A model's own files say what it does."),
        "add_special_tokens": "Send token ids as input, special ones and all.",
    },
    harmless={**dict.fromkeys(_FILES_SAY, (b"null",)), "add_special_tokens": _ON},
)
