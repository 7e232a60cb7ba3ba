"""How a request is written for each kind of server: the fields of OpenAI's API, and what some have besides. Pure.

A field that a server does not know is sent only where the user has set it, so that the server itself can refuse it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from squish.chats.export import openai_message
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, FormatKind, GenerationRequest, Message, ResponseFormat, SamplingParams, Tool

Thinking = Literal["enable_thinking", "template", "effort"]
Continuing = Literal["named", "by itself", "no"]

_JSON: frozenset[FormatKind] = frozenset({"json_object", "json_schema"})
_FORMATS = {"json_object": "JSON", "json_schema": "a JSON schema", "regex": "a pattern", "lark": "a grammar"}
ON_SERVER = "set on the server"
"""Why a chat cannot choose what its requests cannot say."""
_SAMPLING = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}


@dataclass(frozen=True, slots=True)
class Fields:
    """sampling: what the server calls fields that OpenAI does not have. thinking: how thinking is switched.

    continuing: whether it goes on with an answer that is the last message: by itself, or where a field says so.
    further: what is sent with every request. formats: to what it holds answers, as our formats are called.
    context: what the server calls a limit of the context; empty where a request cannot have one.
    accepts: the first chunk comes when the request has left the queue and its model is loaded.
    purpose: it wants to know which requests are for titles of chats.
    """

    sampling: Mapping[str, str] = field(default_factory=lambda: _SAMPLING)
    thinking: Thinking = "template"
    continuing: Continuing = "no"
    further: Mapping[str, Any] = field(default_factory=dict)
    formats: frozenset[FormatKind] = _JSON
    context: str = ""
    accepts: bool = False
    purpose: bool = False


SQUISH = Fields(
    thinking="enable_thinking",
    continuing="named",
    further={"stream_options": {"include_usage": True, "include_timings": True}},
    formats=_JSON | {"regex", "lark"},
    context="num_ctx",
    accepts=True,
    purpose=True,
)
LLAMA = Fields(
    _SAMPLING | {"repetition_penalty": "repeat_penalty"},
    further={"return_progress": True, "timings_per_token": False},
)
OLLAMA = Fields(thinking="effort", continuing="by itself")
VLLM = Fields(continuing="named")
MLX = Fields(formats=frozenset())  # it takes response_format, and passes over it
PLAIN = Fields()


def body(request: GenerationRequest, fields: Fields) -> dict[str, Any]:
    """The body of POST /v1/chat/completions. Raises InvalidInput for what this server cannot do."""
    prompt = request.prompts[0]
    if len(request.prompts) != 1 or not isinstance(prompt, ChatPrompt):
        raise InvalidInput("Another server is asked one conversation at a time.", param="prompt")
    if request.kv_bits is not None:
        hint = "Leave it out, or set engine.kv_bits where the server runs."
        raise InvalidInput("kv_bits is for models on this machine.", hint=hint, param="kv_bits")
    written: dict[str, Any] = {
        "model": request.model,
        "messages": [message(each) for each in prompt.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_sampling(request.sampling, fields),
        **_context(request.sampling.context, fields),
        **_thinking(prompt, fields),
        **_tools(prompt),
        **fields.further,
    }
    if request.sampling.response_format is not None:
        written["response_format"] = response_format(request.sampling.response_format, fields)
    if prompt.continue_last:
        written |= _continuing(fields)
    return written


def without(written: Mapping[str, Any], refused: str) -> dict[str, Any] | None:
    """A body for a model that refuses a field, as newer ones of OpenAI do: the limit has another name there, and values
    that nobody has chosen can be left out. None where nothing else can be asked."""
    rest = {name: value for name, value in written.items() if name != refused}
    if refused == "max_tokens" and refused in written:
        return rest | {"max_completion_tokens": written[refused]}
    if refused in ("temperature", "top_p") and written.get(refused) == getattr(SamplingParams(), refused):
        return rest
    return None


def _sampling(sampling: SamplingParams, fields: Fields) -> dict[str, Any]:
    plain = SamplingParams()
    written: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    for name in ("top_k", "min_p", "repetition_penalty"):
        if (value := getattr(sampling, name)) != getattr(plain, name):
            written[fields.sampling[name]] = value
    for name in ("presence_penalty", "frequency_penalty"):
        if value := getattr(sampling, name):
            written[name] = value
    if sampling.seed is not None and sampling.seed >= 0:
        written["seed"] = sampling.seed
    if sampling.stop:
        written["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        written["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    return written


def _context(limit: int | None, fields: Fields) -> dict[str, Any]:
    if limit is not None and not fields.context:
        raise InvalidInput("This server takes no context limit.", hint="Leave context out.", param="context")
    return {} if limit is None else {fields.context: limit}


def _thinking(prompt: ChatPrompt, fields: Fields) -> dict[str, Any]:
    written: dict[str, Any] = {"reasoning_effort": prompt.effort} if prompt.effort else {}
    if prompt.thinking is None:
        return written
    match fields.thinking:
        case "enable_thinking":
            written["enable_thinking"] = prompt.thinking
        case "template":
            written["chat_template_kwargs"] = {"enable_thinking": prompt.thinking}
        case "effort":
            written.setdefault("reasoning_effort", "medium" if prompt.thinking else "none")
    return written


def _tools(prompt: ChatPrompt) -> dict[str, Any]:
    if not prompt.tools:
        return {}
    kind, _, name = prompt.tool_choice.partition(":")
    choice: Any = {"type": "function", "function": {"name": name}} if name else kind
    return {"tools": [_tool(each) for each in prompt.tools], "tool_choice": choice}


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": msgspec.Raw(tool.parameters.encode())}
    return {"type": "function", "function": function | ({"strict": False} if tool.lenient else {})}


def message(message: Message) -> dict[str, Any]:
    return openai_message(message) | ({"reasoning_content": message.reasoning} if message.reasoning else {})


def response_format(wanted: ResponseFormat, fields: Fields) -> dict[str, Any]:
    """How a format is written. Raises InvalidInput for one that this server does not hold answers to."""
    if wanted.kind not in fields.formats:
        problem = f"This server cannot hold an answer to {_FORMATS[wanted.kind]}."
        hint = "It knows JSON and JSON schemas." if fields.formats else None
        raise InvalidInput(problem, hint=hint, param="response_format")
    match wanted.kind:
        case "json_object":
            return {"type": "json_object"}
        case "json_schema":
            schema = {"name": "answer", "schema": msgspec.Raw(wanted.text.encode()), "strict": not wanted.lenient}
            return {"type": "json_schema", "json_schema": schema}
    return {"type": wanted.kind, wanted.kind: wanted.text}


def _continuing(fields: Fields) -> dict[str, Any]:
    if fields.continuing == "no":
        hint = "Retry writes it anew; a higher max tokens lets it end."
        raise InvalidInput("This server cannot continue an answer.", hint=hint)
    return {"continue_final_message": True, "add_generation_prompt": False} if fields.continuing == "named" else {}
