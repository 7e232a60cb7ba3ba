"""A body of POST /v1/responses to a generation request and the reply to it.

Pure but for the store, which it asks for what a response goes on with, and which the reply gives what is to be kept.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from squish.api import bodies
from squish.api.dialect import Asked
from squish.api.fields.foreign import refuse
from squish.api.fields.limits import MAX_INT, keep_alive
from squish.api.fields.sampling import sampling
from squish.api.responses import conversation, foreign, formats, tools
from squish.api.responses.answers import ReasoningEcho, Response, TextEcho
from squish.api.responses.output import ReplyOptions
from squish.api.responses.reply import Keep, ResponseReply
from squish.api.responses.requests import ResponsesRequest, TextFormat
from squish.api.responses.store import ResponseStore
from squish.errors import ContextLengthExceeded, InvalidInput
from squish.generation import ChatPrompt, GenerationRequest, Message, SamplingParams

_LOGPROBS = "message.output_text.logprobs"
_SEALED = "reasoning.encrypted_content"
_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "logit_bias",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "top_logprobs",
)  # fmt: skip

_TOLD_IN_STREAM = frozenset({ContextLengthExceeded.code})
"""Codex makes the conversation shorter after `response.failed` with this code, and gives up after a status."""


def read(body: bytes, store: ResponseStore, key: str | None = None) -> Asked:
    """key: the name of the client's. Raises InvalidInput naming the field."""
    request = bodies.decode(body, ResponsesRequest)
    refuse(body, foreign.RESPONSES)
    if not request.model.strip():
        raise InvalidInput("model must not be empty.", param="model")
    before = () if request.previous_response_id is None else store.messages(request.previous_response_id, key)
    new, skipped = conversation.read(request.input, before)
    messages = (*before, *new)
    if not messages:
        raise InvalidInput("input must not be empty.", param="input")
    offered = tools.understood(request.tools or [])
    choice, left = tools.choice(request.tool_choice, offered)
    thinking, effort = formats.thinking(request.reasoning)
    prompt = ChatPrompt(
        conversation.with_instructions(request.instructions, messages),
        thinking=thinking,
        tools=left,
        tool_choice=choice,
        effort=effort,
    )
    params = _sampling(request)
    generation = GenerationRequest(request.model, (prompt,), params, keep_alive(request.keep_alive))
    begun = _begun(request, params, offered)
    keep = _keeping(store, key, messages) if begun.store else _forget
    reply = ResponseReply(begun, _reply_options(request, offered), keep)
    left_out = (*offered.skipped, *skipped)
    return Asked(generation, reply, bool(request.stream), left_out=left_out, told_in_stream=_TOLD_IN_STREAM)


def _keeping(store: ResponseStore, key: str | None, messages: Sequence[Message]) -> Keep:
    return lambda response, turn: store.keep(response, (*messages, turn), key)


def _forget(response: Response, turn: Message) -> None:
    """What `store: false` asks for."""


def _reply_options(request: ResponsesRequest, offered: tools.Tools) -> ReplyOptions:
    return ReplyOptions(
        one_call=request.parallel_tool_calls is False,
        summary=_summary(request) is not None,
        sealed=_SEALED in (request.include or ()),
        names=offered.names,
    )


def _summary(request: ResponsesRequest) -> str | None:
    return (request.reasoning and (request.reasoning.summary or request.reasoning.generate_summary)) or None


def _sampling(request: ResponsesRequest) -> SamplingParams:
    given = {name: getattr(request, name) for name in _SAMPLING}
    given["logprobs"] = bool(request.top_logprobs) or _LOGPROBS in (request.include or ())
    given["response_format"] = formats.response_format(request.text)
    return sampling(given, request.max_output_tokens, "max_output_tokens", MAX_INT)


def _begun(request: ResponsesRequest, params: SamplingParams, offered: tools.Tools) -> Response:
    asked_format = request.text.format if request.text is not None else None
    return Response(
        id=f"resp_{secrets.token_hex(16)}",
        created_at=int(time.time()),
        status="in_progress",
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        metadata=request.metadata or {},
        model=request.model,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        reasoning=ReasoningEcho(request.reasoning.effort if request.reasoning else None, _summary(request)),
        store=request.store is not False,
        temperature=params.temperature,
        text=TextEcho(asked_format or TextFormat("text")),
        tool_choice=request.tool_choice or "auto",
        tools=list(offered.functions),
        top_logprobs=params.top_logprobs,
        top_p=params.top_p,
        user=request.user,
    )
