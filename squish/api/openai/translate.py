"""Bodies in OpenAI's shapes to generation requests.

Pure: bytes in, values out, InvalidInput naming the field otherwise. It knows no HTTP and no engine.
Unknown fields are ignored; an explicit null is an absent field; a known field that would change the answer and that the
engine does not support is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from squish.api import bodies
from squish.api.dialect import Asked, Reply
from squish.api.fields.foreign import refuse
from squish.api.fields.limits import check_range, keep_alive
from squish.api.fields.prompts import prompts, texts
from squish.api.fields.sampling import sampling
from squish.api.openai import conversation, foreign, formats
from squish.api.openai.replies import ChatReply, CompletionReply, Head
from squish.api.openai.requests import ChatRequest, CommonRequest, CompletionRequest
from squish.errors import InvalidInput
from squish.generation import (
    GenerationRequest,
    Prompt,
    SamplingParams,
)
from squish.sessions.queue import MAX_ROWS

MAX_LOGPROBS = 5  # of a text completion, as with OpenAI; chats have 20

_SAME_IN_BOTH = (
    "temperature", "top_p", "top_k", "min_p", "seed", "n",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "stop",
)  # fmt: skip
"""Fields that SamplingParams has under the same name, where absent means its default."""

RequestT = TypeVar("RequestT", bound=CommonRequest)


def read_chat(body: bytes) -> Asked:
    """A body of POST /v1/chat/completions. Raises InvalidInput naming the field."""
    request = decode(body, ChatRequest)
    reply = ChatReply(_head("chatcmpl", request), one_call=request.parallel_tool_calls is False)
    return _asked(request, chat_to_generation(request), reply)


def read_completion(body: bytes) -> Asked:
    """A body of POST /v1/completions. Raises InvalidInput naming the field."""
    request = decode(body, CompletionRequest)
    return _asked(request, completion_to_generation(request), CompletionReply(_head("cmpl", request)))


def _asked(request: CommonRequest, generation: GenerationRequest, reply: Reply) -> Asked:
    return Asked(generation, reply, bool(request.stream), request.rows_per_prompt)


def _head(prefix: str, request: CommonRequest) -> Head:
    rows, usage, timings = request.rows_per_prompt, request.wants_usage_chunk, request.wants_timings
    return Head.new(prefix, request.model, rows, usage, timings)


def decode(body: bytes, kind: type[RequestT]) -> RequestT:
    """A request body as a value. Raises InvalidInput, with the path of the field where there is one."""
    request = bodies.decode(body, kind)
    refuse(body, foreign.CHAT if issubclass(kind, ChatRequest) else foreign.COMPLETION)
    _refuse_unsupported(request)
    return request


def chat_to_generation(request: ChatRequest) -> GenerationRequest:
    """One prompt with n rows."""
    prompt = conversation.chat_prompt(request)
    if prompt.continue_last and request.response_format and request.response_format.type != "text":
        message = "response_format is for a whole answer, and the last message is the beginning of one."
        hint = "Leave out one of them, or send add_generation_prompt: true."
        raise InvalidInput(message, hint=hint, param="response_format")
    if request.top_logprobs and not request.logprobs:
        raise InvalidInput("top_logprobs needs logprobs to be true.", param="top_logprobs")
    extra = {"logprobs": request.logprobs, "top_logprobs": request.top_logprobs}
    limit = request.max_completion_tokens
    if limit is None:
        return _generation(request, [prompt], (request.max_tokens, "max_tokens"), "messages", extra)
    if request.max_tokens not in (None, limit):
        raise InvalidInput(
            "max_tokens and max_completion_tokens are the same limit; send one of them.", param="max_completion_tokens"
        )
    return _generation(request, [prompt], (limit, "max_completion_tokens"), "messages", extra)


def completion_to_generation(request: CompletionRequest) -> GenerationRequest:
    """Rows: each prompt n times, in the order of the prompts, as OpenAI counts its choices."""
    if (request.prompt is None) == (request.batch is None):
        both = request.prompt is not None
        reason = "prompt and batch exclude each other; send one of them." if both else "Send a prompt or a batch."
        raise InvalidInput(reason, param="batch" if both else "prompt")
    if request.batch is not None:
        found, param = texts(request.batch, "batch", one=False), "batch"
    else:
        assert request.prompt is not None
        found, param = prompts(request.prompt, "prompt"), "prompt"
    check_range(request.logprobs, "logprobs", 0, MAX_LOGPROBS)
    extra = {"logprobs": request.logprobs is not None, "top_logprobs": request.logprobs}
    return _generation(request, found, (request.max_tokens, "max_tokens"), param, extra)


def _generation(
    request: CommonRequest,
    prompts: Sequence[Prompt],
    limit: tuple[int | None, str],
    prompt_param: str,
    extra: Mapping[str, object],
) -> GenerationRequest:
    """limit: of tokens, and the field it came in. extra: fields of SamplingParams that only this endpoint has."""
    if not request.model.strip():
        raise InvalidInput("model must not be empty.", param="model")
    params = _sampling(request, limit, extra)
    rows = len(prompts) * params.n
    if rows > MAX_ROWS:
        field = "n" if params.n > 1 else prompt_param
        raise InvalidInput(f"One request can have {MAX_ROWS} answers, not {rows}.", param=field)
    return GenerationRequest(request.model, tuple(prompts), params, keep_alive(request.keep_alive))


def _sampling(request: CommonRequest, limit: tuple[int | None, str], extra: Mapping[str, object]) -> SamplingParams:
    given = {name: getattr(request, name) for name in _SAME_IN_BOTH} | dict(extra)
    check_range(request.num_ctx, "num_ctx", 2)
    given["context"] = request.num_ctx
    given["response_format"] = formats.response_format(request.response_format)
    return sampling(given, *limit, request.default_max_tokens)


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
