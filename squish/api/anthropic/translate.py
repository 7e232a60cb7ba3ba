"""Bodies of the Messages API to generation requests.

Pure: bytes in, values out, InvalidInput naming the field otherwise. It knows no HTTP and no engine.
"""

from __future__ import annotations

from typing import TypeVar

from squish.api import bodies
from squish.api.anthropic import conversation, foreign
from squish.api.anthropic.replies import MessagesReply, ReplyOptions
from squish.api.anthropic.requests import CountRequest, MessagesRequest
from squish.api.dialect import Asked
from squish.api.fields.foreign import refuse
from squish.api.fields.limits import MAX_INT, check_range, keep_alive
from squish.api.fields.sampling import sampling
from squish.errors import InvalidInput
from squish.generation import MAX_STOPS, ChatPrompt, GenerationRequest, ResponseFormat

_SAME = ("temperature", "top_p", "top_k", "seed")
_DISPLAYS = (None, "summarized", "omitted")

RequestT = TypeVar("RequestT", bound=CountRequest)


def read_messages(body: bytes) -> Asked:
    """A body of POST /v1/messages. Raises InvalidInput naming the field."""
    request = _decoded(body, MessagesRequest)
    prompt, wanted = _prompt(request)
    stops = request.stop_sequences or []
    if len(stops) > MAX_STOPS:
        message = f"stop_sequences can hold {MAX_STOPS}, not {len(stops)}."
        raise InvalidInput(message, param="stop_sequences")
    check_range(request.max_tokens, "max_tokens", 1)
    given = {name: getattr(request, name) for name in _SAME} | {"stop": stops, "response_format": wanted}
    params = sampling(given, request.max_tokens, "max_tokens", MAX_INT)
    generation = GenerationRequest(request.model, (prompt,), params, keep_alive(request.keep_alive))
    choice, thinking = request.tool_choice, request.thinking
    options = ReplyOptions(
        request.model,
        one_call=bool(choice and choice.disable_parallel_tool_use),
        omits_thoughts=bool(thinking and thinking.display == "omitted"),
    )
    return Asked(generation, MessagesReply(options), bool(request.stream))


def read_count(body: bytes) -> tuple[str, ChatPrompt]:
    """A body of POST /v1/messages/count_tokens: the model, and what is to be counted. Raises InvalidInput."""
    request = _decoded(body, CountRequest)
    return request.model, _prompt(request)[0]


def _decoded(body: bytes, kind: type[RequestT]) -> RequestT:
    request = bodies.decode(body, kind)
    refuse(body, foreign.MESSAGES)
    if not request.model.strip():
        raise InvalidInput("model must not be empty.", param="model")
    if request.thinking and request.thinking.display not in _DISPLAYS:
        message = "thinking.display must be summarized or omitted."
        raise InvalidInput(message, param="thinking.display")
    return request


def _prompt(request: CountRequest) -> tuple[ChatPrompt, ResponseFormat | None]:
    prompt, wanted = conversation.chat_prompt(request), conversation.answer_format(request)
    if prompt.continue_last and wanted:
        message = "output_config.format is for a whole answer, and the last message is the beginning of one."
        raise InvalidInput(message, hint="Leave out one of them.", param="output_config.format")
    return prompt, wanted
