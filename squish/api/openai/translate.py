"""Bodies in OpenAI's shapes to generation requests.

Pure: bytes in, values out, InvalidInput naming the field otherwise. It knows no HTTP and no engine.
Unknown fields are ignored; an explicit null is an absent field; a known field that would change the answer and that the
engine does not support is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from squish.api.dialect import Asked, Reply
from squish.api.openai.replies import ChatReply, CompletionReply, Head
from squish.api.openai.requests import ChatMessage, ChatRequest, CommonRequest, CompletionRequest, ContentPart
from squish.engine import MAX_ROWS
from squish.errors import InvalidInput
from squish.generation import (
    ChatPrompt,
    GenerationRequest,
    Message,
    Prompt,
    Role,
    SamplingParams,
    TextPrompt,
    TokenPrompt,
)

MAX_N = 128
MAX_INT = 2**31 - 1  # no count a client could mean is larger; larger ones do not fit the frames to the worker

_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

RequestT = TypeVar("RequestT", bound=CommonRequest)


def read_chat(body: bytes) -> Asked:
    """A body of POST /v1/chat/completions. Raises InvalidInput naming the field."""
    request = decode(body, ChatRequest)
    return _asked(request, chat_to_generation(request), ChatReply(_head("chatcmpl", request)))


def read_completion(body: bytes) -> Asked:
    """A body of POST /v1/completions. Raises InvalidInput naming the field."""
    request = decode(body, CompletionRequest)
    return _asked(request, completion_to_generation(request), CompletionReply(_head("cmpl", request)))


def _asked(request: CommonRequest, generation: GenerationRequest, reply: Reply) -> Asked:
    return Asked(generation, reply, bool(request.stream), request.rows_per_prompt)


def _head(prefix: str, request: CommonRequest) -> Head:
    return Head.new(prefix, request.model, request.rows_per_prompt, request.wants_usage_chunk)


def decode(body: bytes, kind: type[RequestT]) -> RequestT:
    """A request body as a value. Raises InvalidInput, with the path of the field where there is one."""
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The request body is not valid JSON: {error}.") from None
    except RecursionError:
        raise InvalidInput("The request body is nested too deeply.") from None
    _refuse_unsupported(request)
    return request


def chat_to_generation(request: ChatRequest) -> GenerationRequest:
    """Rows: n times the conversation."""
    if not request.messages:
        raise InvalidInput("messages must not be empty.", param="messages")
    prompt = ChatPrompt(tuple(_message(message, i) for i, message in enumerate(request.messages)))
    limit = request.max_completion_tokens
    if limit is None:
        return _generation(request, [prompt], request.max_tokens, "max_tokens", "messages")
    if request.max_tokens not in (None, limit):
        raise InvalidInput(
            "max_tokens and max_completion_tokens are the same limit; send one of them.", param="max_completion_tokens"
        )
    return _generation(request, [prompt], limit, "max_completion_tokens", "messages")


def completion_to_generation(request: CompletionRequest) -> GenerationRequest:
    """Rows: each prompt n times, in the order of the prompts, as OpenAI counts its choices."""
    if (request.prompt is None) == (request.batch is None):
        both = request.prompt is not None
        reason = "prompt and batch exclude each other; send one of them." if both else "Send a prompt or a batch."
        raise InvalidInput(reason, param="batch" if both else "prompt")
    if request.batch is not None:
        prompts, param = _texts(request.batch, "batch"), "batch"
    else:
        assert request.prompt is not None
        prompts, param = _prompts(request.prompt), "prompt"
    return _generation(request, prompts, request.max_tokens, "max_tokens", param)


def _generation(
    request: CommonRequest, prompts: list[Prompt], max_tokens: int | None, limit_param: str, prompt_param: str
) -> GenerationRequest:
    if not request.model.strip():
        raise InvalidInput("model must not be empty.", param="model")
    n = request.rows_per_prompt
    if not 1 <= n <= MAX_N:
        raise InvalidInput(f"n must be between 1 and {MAX_N}.", param="n")
    if len(prompts) * n > MAX_ROWS:
        raise InvalidInput(
            f"One request can have {MAX_ROWS} answers, not {len(prompts) * n}.", param="n" if n > 1 else prompt_param
        )
    sampling = _sampling(request, max_tokens, limit_param)
    return GenerationRequest(request.model, tuple(prompt for prompt in prompts for _ in range(n)), sampling)


def _sampling(request: CommonRequest, max_tokens: int | None, limit_param: str) -> SamplingParams:
    given = {
        "max_tokens": request.default_max_tokens if max_tokens is None else max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "min_p": request.min_p,
        "seed": request.seed,
        "stop": (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
    }
    for name, value in (("max_tokens", max_tokens), ("top_k", request.top_k)):
        if value is not None and value > MAX_INT:
            field = limit_param if name == "max_tokens" else name
            raise InvalidInput(f"{field} must be at most {MAX_INT}.", param=field)
    try:
        return msgspec.structs.replace(SamplingParams(), **{k: v for k, v in given.items() if v is not None})
    except InvalidInput as error:
        if error.param == "max_tokens" and limit_param != "max_tokens":
            raise InvalidInput(error.message.replace("max_tokens", limit_param), param=limit_param) from None
        raise


def _message(message: ChatMessage, index: int) -> Message:
    at = f"messages[{index}]"
    role = _ROLES.get(message.role)
    if role is None:
        known = "tools are not supported" if message.role in ("tool", "function") else "unknown"
        raise InvalidInput(
            f"The role {message.role[:40]!r} cannot be used ({known}). Roles: {', '.join(_ROLES)}.", param=f"{at}.role"
        )
    for name in ("tool_calls", "function_call", "audio"):
        if getattr(message, name) not in (None, []):
            raise InvalidInput(f"{at}.{name} is not supported.", param=f"{at}.{name}")
    if message.content is None:
        raise InvalidInput(f"{at}.content is missing.", param=f"{at}.content")
    if isinstance(message.content, str):
        return Message(role, message.content)
    if not message.content:
        raise InvalidInput(f"{at}.content must not be an empty list.", param=f"{at}.content")
    return Message(role, "".join(_part(part, f"{at}.content[{i}]") for i, part in enumerate(message.content)))


def _part(part: ContentPart, at: str) -> str:
    if part.type != "text":
        raise InvalidInput(f"Content of type {part.type[:40]!r} is not supported, only text.", param=f"{at}.type")
    if part.text is None:
        raise InvalidInput(f"{at}.text is missing.", param=f"{at}.text")
    return part.text


def _prompts(prompt: str | list[str | int | list[int]]) -> list[Prompt]:
    if isinstance(prompt, str):
        return _texts([prompt], "prompt")
    if all(isinstance(item, int) for item in prompt):
        return [_tokens(prompt, "prompt")]
    if all(isinstance(item, str) for item in prompt):
        return _texts([item for item in prompt if isinstance(item, str)], "prompt")
    if all(isinstance(item, list) for item in prompt):
        lists = [item for item in prompt if isinstance(item, list)]
        return [_tokens(item, f"prompt[{i}]") for i, item in enumerate(lists)]
    raise InvalidInput("prompt must be a string, a list of strings, or one or more lists of token ids.", param="prompt")


def _texts(texts: list[str], field: str) -> list[Prompt]:
    if not texts:
        raise InvalidInput(f"{field} must not be empty.", param=field)
    for i, text in enumerate(texts):
        if not text:
            at = field if field == "prompt" and len(texts) == 1 else f"{field}[{i}]"
            raise InvalidInput(f"{at} must not be empty.", param=at)
    return [TextPrompt(text) for text in texts]


def _tokens(items: object, at: str) -> TokenPrompt:
    tokens = tuple(msgspec.convert(items, list[int]))
    if not tokens:
        raise InvalidInput(f"{at} must not be empty.", param=at)
    if not all(0 <= token <= MAX_INT for token in tokens):
        raise InvalidInput(f"{at} has numbers that are no token ids.", param=at)
    return TokenPrompt(tokens)


def _refuse_unsupported(request: CommonRequest) -> None:
    for name, neutral in request.neutral.items():
        value = getattr(request, name)
        if value is not None and not any(_same(value, each) for each in neutral):
            raise InvalidInput(f"{name} is not supported by this server; leave it out.", param=name)


def _same(value: object, neutral: object) -> bool:
    """Equality that keeps booleans, numbers and the rest apart, though 0 is 0.0."""
    if isinstance(value, bool) or isinstance(neutral, bool):
        return value is neutral
    return value == neutral


def _invalid(reason: str) -> InvalidInput:
    """msgspec's words, `Expected …, got … - at `$.a[0].b``, as an error that names the field."""
    text, _, path = reason.partition(" - at `")
    param = re.sub(r"^\$\.?", "", path.rstrip("`")) or None
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", text):
        param = f"{param}.{missing[1]}" if param else missing[1]
        return InvalidInput(f"{param} is missing.", param=param)
    text = text.replace("`", "").replace(" | null", "")
    return InvalidInput(f"{param}: {text}." if param else f"The request body: {text}.", param=param)
