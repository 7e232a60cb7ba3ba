"""The Responses dialect: its paths, and the responses that a server keeps."""

from __future__ import annotations

from functools import partial

from squish.api.dialect import Asked, Call, Dialect, Route
from squish.api.errors import Failure, Refused
from squish.api.openai.errors import ErrorBody, error_body
from squish.api.operation import Operation
from squish.api.responses.answers import DeletedResponse, Response
from squish.api.responses.events import EVENTS
from squish.api.responses.requests import ResponsesRequest
from squish.api.responses.translate import read

PATH = "/v1/responses"
_ONE = f"{PATH}/<id>"

_FIELDS = {"messages": "input", "max_tokens": "max_output_tokens"}
"""What the engine calls the fields of this API. Where a message begins with such a name, a client sent it."""


async def create(call: Call) -> Asked:
    """POST /v1/responses."""
    return await call.read(partial(read, store=call.services.responses, key=call.owner))


async def retrieve(call: Call) -> Response:
    """GET /v1/responses/{id}."""
    if call.query.get("stream", "").lower() in ("true", "1"):
        message = "A response that is kept comes in one piece; leave stream out."
        raise Refused(400, "invalid_value", message)
    kept = call.services.responses.find(call.parts["id"], call.owner)
    if kept is None:
        raise _unknown(call)
    return kept.response


async def delete(call: Call) -> DeletedResponse:
    """DELETE /v1/responses/{id}."""
    if not call.services.responses.delete(call.parts["id"], call.owner):
        raise _unknown(call)
    return DeletedResponse(call.parts["id"])


def _unknown(call: Call) -> Refused:
    id, bounds = call.parts["id"], call.services.responses.bounds
    return Refused(404, "response_not_found", f"There is no response {id[:64]!r} here. {bounds}")


def _error(failure: Failure, request_id: str) -> ErrorBody:
    param = failure.param or ""
    if not failure.message.startswith(f"{param} "):
        param = _FIELDS.get(param, param)
    return error_body(Failure(failure.status, failure.code, failure.message, param or None), request_id)


_OPERATIONS = (
    Operation(
        "POST",
        PATH,
        "createResponse",
        "Answer a conversation of items.",
        Response,
        ResponsesRequest,
        (
            "text/event-stream",
            "Named events, each with a sequence_number; the last says how it ended.",
        ),
        EVENTS,
    ),
    Operation("GET", f"{PATH}/{{id}}", "getResponse", "A response that is kept.", Response),
    Operation("DELETE", f"{PATH}/{{id}}", "deleteResponse", "Forget a response.", DeletedResponse),
)

RESPONSES = Dialect(
    name="responses",
    prefixes=(PATH,),
    paths=(PATH, f"{PATH}/{{id}}"),
    answers={},
    error=_error,
    errors=ErrorBody,
    operations=_OPERATIONS,
    routes=(Route("POST", PATH, create), Route("GET", _ONE, retrieve), Route("DELETE", _ONE, delete)),
)
