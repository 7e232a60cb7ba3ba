"""Anthropic's dialect: which paths it has and what makes it one."""

from __future__ import annotations

from squish.api.anthropic import models, translate
from squish.api.anthropic.answers import EVENTS, Message, TokensCount
from squish.api.anthropic.errors import ErrorEvent, error_body
from squish.api.anthropic.requests import CountRequest, MessagesRequest
from squish.api.dialect import Call, Dialect, Route
from squish.api.operation import Operation

PATH = "/v1/messages"
_COUNT = f"{PATH}/count_tokens"


async def count_tokens(call: Call) -> TokensCount:
    """POST /v1/messages/count_tokens. A model that is installed and not loaded is loaded."""
    model, prompt = await call.read(translate.read_count)
    async with call.asking(model):
        [tokens] = await call.services.runtime.sessions.count_loading(model, (prompt,))
    return TokensCount(tokens)


_OPERATIONS = (
    Operation(
        "POST",
        PATH,
        "createMessage",
        "Answer a conversation.",
        Message,
        MessagesRequest,
        ("text/event-stream", "Named events: message_start, then blocks, message_delta and message_stop; or error."),
        (*EVENTS, ErrorEvent),
    ),
    Operation("POST", _COUNT, "countTokens", "Count the tokens of a conversation.", TokensCount, CountRequest),
)

ANTHROPIC = Dialect(
    name="anthropic",
    prefixes=(PATH,),
    paths=(PATH, _COUNT),
    answers={PATH: translate.read_messages},
    error=error_body,
    errors=ErrorEvent,
    operations=_OPERATIONS,
    routes=(Route("POST", _COUNT, count_tokens),),
    id_header="request-id",
    mark=models.HEADER,
)
