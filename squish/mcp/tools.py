"""Tools as servers describe them, and their results as text that a model can read. Pure.

What a server says is not ours: texts are cleaned and cut here, before anybody sees them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from squish import figures
from squish.generation import Tool
from squish.text import clean, visible

MOST = 256
"""Tools of one server, at most."""
LONGEST_RESULT = 1_000_000
"""Characters of a result that are kept at all; what the model gets of them is less."""
NO_OBJECT = "The arguments are not a JSON object."

_NAME = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME = 64
_LONGEST_DESCRIPTION = 4_000
_LARGEST_SCHEMA = 64 << 10


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool of a server. name: as the server calls it; schema: of its arguments, as JSON text."""

    server: str
    name: str
    title: str
    description: str
    schema: str

    @property
    def id(self) -> str:
        """What a permission names: `time/get_current_time`."""
        return f"{self.server}/{self.name}"


class _Described(msgspec.Struct):
    name: str
    title: str | None = None
    description: str | None = None
    inputSchema: dict[str, Any] = {}


class _Block(msgspec.Struct):
    """Any block of content; which fields it has depends on its type."""

    type: str = ""
    text: str | None = None
    mimeType: str | None = None
    data: str | None = None
    uri: str | None = None
    name: str | None = None
    resource: dict[str, Any] | None = None


class _Result(msgspec.Struct):
    content: list[Any] = []
    structuredContent: Any = None
    isError: bool | None = False
    resultType: str | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """text: what came back, cleaned. failed: the tool itself, or the way to it, says that it went wrong."""

    text: str
    failed: bool = False


def described(server: str, listed: Iterable[Any], allowed: tuple[str, ...] | None = None) -> list[ServerTool]:
    """The tools of a server that can be used, each name once. allowed: names of those that may be; None is all."""
    found: dict[str, ServerTool] = {}
    for each in listed:
        try:
            tool = msgspec.convert(each, _Described)
            schema = msgspec.json.encode({"type": "object"} | tool.inputSchema)
        except (msgspec.ValidationError, RecursionError):
            continue
        usable = clean(tool.name) == tool.name and 0 < len(tool.name) <= 128 and len(schema) <= _LARGEST_SCHEMA
        if usable and tool.name not in found and (allowed is None or tool.name in allowed) and len(found) < MOST:
            about = clean(tool.description or tool.title or "")[:_LONGEST_DESCRIPTION]
            found[tool.name] = ServerTool(server, tool.name, clean(tool.title or ""), about, schema.decode())
    return list(found.values())


def offered(tools: Iterable[ServerTool]) -> dict[str, ServerTool]:
    """Tools by the name that the model knows them by: their own, with the server's in front where two have the same."""
    tools = list(tools)
    plain = [_plain(tool.name) for tool in tools]
    names: dict[str, ServerTool] = {}
    for tool, name in zip(tools, plain, strict=True):
        wanted = name if plain.count(name) == 1 else _plain(f"{tool.server}__{tool.name}")
        at = 2
        while wanted in names:
            wanted = f"{wanted[: _LONGEST_NAME - 4]}_{at}"
            at += 1
        names[wanted] = tool
    return names


def for_model(names: dict[str, ServerTool]) -> tuple[Tool, ...]:
    """As the engine takes them. A schema of a stranger is held as far as it can be."""
    return tuple(
        Tool(name, tool.description, tool.schema, lenient=True, field=f"tools of {tool.server}")
        for name, tool in names.items()
    )


def result(raw: dict[str, Any]) -> ToolResult:
    """The result of a call as text; what is not text is named."""
    try:
        found = msgspec.convert(raw, _Result)
    except msgspec.ValidationError as error:
        return ToolResult(f"The tool's result cannot be read: {error}", failed=True)
    if found.resultType not in (None, "complete"):
        return ToolResult("The tool asks for something that Squish does not offer.", failed=True)
    parts = [_text(each) for each in found.content[:1000]]
    text = "\n\n".join(part for part in parts if part)
    if not text and found.structuredContent is not None:
        text = msgspec.json.encode(found.structuredContent).decode()
    return ToolResult(clean(text[:LONGEST_RESULT]).strip() or "(nothing)", bool(found.isError))


def shortened(text: str, characters: int) -> str:
    """The text, or its beginning and its end with a line between them that says what is missing."""
    if len(text) <= characters:
        return text
    head, tail = characters * 3 // 4, characters // 4
    missing = len(text) - head - tail
    return f"{text[:head]}\n[… {missing:,} characters left out …]\n{text[len(text) - tail :]}"


def values_of(arguments: str) -> dict[str, Any] | None:
    """What a model wrote as arguments; None for what is not a JSON object."""
    try:
        values = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def readable(arguments: str) -> str:
    """The arguments of a call for people who decide about it: all of them, one a line, longer texts as they are.

    What a terminal would not show is written as JSON writes it: nothing is agreed to unseen.
    """
    values = values_of(arguments)
    if not values:
        return visible(arguments)
    lines = []
    for name, value in values.items():
        if isinstance(value, str) and "\n" in value:
            lines += [f"{name}:", *(f"  {line}" for line in value.split("\n"))]
        else:
            lines.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    return visible("\n".join(lines))


def _text(raw: Any) -> str:
    try:
        block = msgspec.convert(raw, _Block)
    except msgspec.ValidationError:
        return "[something that cannot be read]"
    match block.type:
        case "text":
            return block.text or ""
        case "resource" if isinstance(block.resource, dict):
            inner = block.resource
            uri = str(inner.get("uri", ""))[:500]
            return str(inner["text"]) if isinstance(inner.get("text"), str) else f"[file {uri}, not text]"
        case "resource_link":
            return f"[{block.name or 'link'}: {(block.uri or '')[:500]}]"
        case kind:
            size = figures.size(len(block.data or "") * 3 // 4)
            return f"[{kind or 'something'} {block.mimeType or ''}, {size}, not shown to the model]"


def _plain(name: str) -> str:
    return _NAME.sub("_", name)[:_LONGEST_NAME]
