"""The OpenAPI document of the server, made from the Structs that the server decodes and encodes.

docs/reference/openapi.yaml is this document; a test keeps them the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from squish import __version__
from squish.api import dialects, overview
from squish.api.dialect import Dialect
from squish.api.health import Health, Readiness
from squish.api.openai.dialect import OPENAI
from squish.api.openai.requests import ChatRequest, CompletionRequest
from squish.api.operation import Operation

_REF = "#/components/schemas/{name}"

_OWN = (
    Operation("GET", "/health", "getHealth", "The server answers.", Health, open=True),
    Operation(
        "GET",
        "/ready",
        "getReadiness",
        "A model can answer: 503 until it can, and once the server stops.",
        Readiness,
        open=True,
    ),
    Operation("GET", "/metrics", "getMetrics", "Numbers for Prometheus.", None),
    *overview.OPERATIONS,
)
"""What belongs to no dialect."""

_ERRORS = {
    "400": "A field is missing or wrong, or the prompt is longer than the context.",
    "401": "The key is missing or wrong.",
    "403": "A server without a key was called under a foreign host name, or by a foreign web page.",
    "404": "The model is not installed: run squish pull.",
    "405": "The method is not for this path.",
    "408": "The request did not arrive in time.",
    "413": "The request is too large.",
    "415": "The body is compressed.",
    "417": "The request expects something other than 100-continue.",
    "429": "The queue is full; try again after Retry-After seconds.",
    "500": "The engine failed; try again.",
    "503": "Too many connections are open, the server is shutting down, or the request was cancelled at the server.",
}


def document() -> str:
    """The document as YAML."""
    text: bytes = msgspec.yaml.encode(openapi())
    return text.decode()


def openapi() -> dict[str, Any]:
    """The document as a value."""
    schemas = _schemas()
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
            "description": "Large language models on your own machine, in the APIs that clients already speak.",
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


def _schemas() -> dict[str, Any]:
    """Every Struct of the document by its name there. The first dialect's have no prefix."""
    found: dict[str, Any] = {}
    for dialect in dialects.DIALECTS:
        mine = [operation for other, operation in _operations() if other is dialect]
        structs = [struct for each in mine for struct in (each.body, each.answer, *each.pieces) if struct is not None]
        template = _REF.format(name=_name(dialect, "{name}"))
        _, schemas = msgspec.json.schema_components(dict.fromkeys([*structs, dialect.errors]), ref_template=template)
        found |= {_name(dialect, name): schema for name, schema in schemas.items()}
    return found


def _name(dialect: Dialect, name: str) -> str:
    """Dialects have Structs of the same names, so each but the first puts its own before them."""
    return name if dialect is dialects.DIALECTS[0] else f"{dialect.name}.{name}"


def _operations() -> Iterator[tuple[Dialect, Operation]]:
    for dialect in dialects.DIALECTS:
        yield from ((dialect, operation) for operation in dialect.operations)
    yield from ((OPENAI, operation) for operation in _OWN)


def _paths() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for dialect, operation in _operations():
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, dialect)
    return paths


def _described(operation: Operation, dialect: Dialect) -> dict[str, Any]:
    content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if operation.answer:
        content = {"application/json": {"schema": _ref(operation.answer, dialect)}}
    if operation.stream:
        media_type, description = operation.stream
        content[media_type] = {"schema": {"type": "string", "description": description}}
    done = {"description": "Done."} | ({} if operation.method == "HEAD" else {"content": content})
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "responses": {"200": done, **_errors(dialect, operation)},
    }
    if names := re.findall(r"{(\w+)}", operation.path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if operation.body:
        media_type = "multipart/form-data" if operation.form else "application/json"
        schema = {media_type: {"schema": _ref(operation.body, dialect)}}
        described["requestBody"] = {"required": True, "content": schema}
    if operation.open:
        described["security"] = []
    return described


def _errors(dialect: Dialect, operation: Operation) -> dict[str, Any]:
    content = (
        {}
        if operation.method == "HEAD"
        else {"content": {"application/json": {"schema": _ref(dialect.errors, dialect)}}}
    )
    texts = _ERRORS | dict(operation.errors)
    return {status: {"description": texts[status], **content} for status in sorted(texts)}


def _ref(struct: type[msgspec.Struct], dialect: Dialect) -> dict[str, str]:
    return {"$ref": _REF.format(name=_name(dialect, struct.__name__))}


def _plain(schema: Any) -> Any:
    """A schema without what says nothing: titles, empty descriptions and `default: null`, which here means absent."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    empty = (("default", None), ("description", ""))
    kept = {key: value for key, value in schema.items() if (key, value) not in empty and key != "title"}
    return {key: _plain(value) for key, value in kept.items()}
