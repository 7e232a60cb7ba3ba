"""The OpenAPI document of the server, made from the Structs that the server decodes and encodes.

docs/reference/openapi.yaml is this document; a test keeps them the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from squish import __version__
from squish.api.health import Health
from squish.api.models import Model, ModelList
from squish.api.openai.errors import ErrorBody
from squish.api.openai.requests import ChatRequest, CompletionRequest
from squish.api.openai.responses import ChatChunk, ChatCompletion, Completion

_STRUCTS = (ChatRequest, CompletionRequest, ChatCompletion, ChatChunk, Completion, Model, ModelList, Health, ErrorBody)
_REF = "#/components/schemas/{name}"

_ERRORS = {
    "400": "A field is missing or wrong, or the prompt is longer than the context.",
    "401": "The key is missing or wrong.",
    "403": "A server without a key was asked under a foreign host name, or by a foreign web page.",
    "404": "The model is not installed: run squish pull.",
    "405": "The method is not for this path.",
    "408": "The request did not arrive in time.",
    "413": "The request is too large.",
    "415": "The body is compressed.",
    "417": "The request expects something else than 100-continue.",
    "429": "The queue is full; try again after Retry-After seconds.",
    "500": "The engine failed; try again.",
    "503": "Too many connections are open, the server ends, or somebody at the server cancelled the request.",
}


def document() -> str:
    """The document as YAML."""
    text: bytes = msgspec.yaml.encode(openapi())
    return text.decode()


def openapi() -> dict[str, Any]:
    """The document as a value."""
    _, schemas = msgspec.json.schema_components(_STRUCTS, ref_template=_REF)
    for struct in (ChatRequest, CompletionRequest):
        for name, neutral in struct.neutral.items():
            schemas[struct.__name__]["properties"][name]["enum"] = [None, *neutral]
    # null stands for absent, so that which of them is there is for the server to say when both are named
    schemas["CompletionRequest"]["oneOf"] = [{"required": ["prompt"]}, {"required": ["batch"]}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Squish",
            "version": __version__,
            "description": "Large language models on your own machine, for OpenAI clients.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://localhost:11435"}],
        "security": [{"bearer": []}, {"basic": []}, {"key": []}, {}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The password is the key."},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": {name: _plain(schema) for name, schema in schemas.items()},
        },
    }


def _paths() -> dict[str, Any]:
    chat_stream = ("text/event-stream", {"type": "string", "description": "`data:` lines, each a ChatChunk; [DONE]."})
    text_stream = ("text/event-stream", {"type": "string", "description": "`data:` lines, each a Completion; [DONE]."})
    return {
        "/v1/chat/completions": {
            "post": _operation(
                "createChatCompletion", "Answer a conversation.", ChatCompletion, ChatRequest, chat_stream
            )
        },
        "/v1/completions": {
            "post": _operation("createCompletion", "Go on with texts.", Completion, CompletionRequest, text_stream)
        },
        "/v1/models": {"get": _operation("listModels", "Every installed model.", ModelList)},
        "/v1/models/{id}": {
            "get": _operation("getModel", "One installed model; its id can contain a slash.", Model)
            | {"parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]}
        },
        "/health": {"get": _operation("getHealth", "The server answers.", Health) | {"security": []}},
        "/metrics": {"get": _metrics()},
    }


def _operation(
    id: str,
    summary: str,
    answer: type[msgspec.Struct],
    body: type[msgspec.Struct] | None = None,
    stream: tuple[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(answer)}}
    if stream:
        content[stream[0]] = {"schema": stream[1]}
    operation: dict[str, Any] = {
        "operationId": id,
        "summary": summary,
        "responses": {"200": {"description": "Done.", "content": content}, **_errors()},
    }
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _metrics() -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "getMetrics",
        "summary": "Numbers for Prometheus.",
        "responses": {"200": {"description": "Done.", "content": content}, **_errors()},
    }


def _errors() -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(ErrorBody)}}
    return {status: {"description": text, "content": content} for status, text in _ERRORS.items()}


def _ref(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=struct.__name__)}


def _plain(schema: Any) -> Any:
    """A schema without what says nothing: titles, empty descriptions and `default: null`, which means absent here."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    empty = (("default", None), ("description", ""))
    kept = {key: value for key, value in schema.items() if (key, value) not in empty and key != "title"}
    return {key: _plain(value) for key, value in kept.items()}
