"""Tools in Anthropic's shapes, and the calls of a conversation. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from squish.api.anthropic.requests import ContentBlock, ToolChoice, ToolParam
from squish.api.fields import tools as fields
from squish.errors import InvalidInput
from squish.format import schemas
from squish.generation import Tool, ToolCall

MOST = 1024
LONGEST_NAME = 128

_CHOICES = {"none": "none", "auto": "auto", "any": "required"}


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as fields.tools understands it. Anthropic holds calls to their schemas only where strict says so."""

    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool


def offered(tools: Sequence[ToolParam]) -> tuple[Tool, ...]:
    """The tools of a request. Raises InvalidInput naming the field."""
    found = {}
    for i, tool in enumerate(tools):
        at = f"tools[{i}]"
        if tool.type not in (None, "custom"):
            message = f"{at}.type {tool.type[:40]!r} is not supported: tools of Anthropic's do not run here."
            hint = "Leave it out, or describe it yourself, with an input_schema."
            raise InvalidInput(message, hint=hint, param=f"{at}.type")
        for field in ("name", "input_schema"):
            if getattr(tool, field) is None:
                raise InvalidInput(f"{at}.{field} is missing.", param=f"{at}.{field}")
        assert tool.name is not None
        found[at] = OfferedTool(tool.name, tool.description, tool.input_schema, tool.strict is True)
    return fields.offered(found, "input_schema", most=MOST, longest_name=LONGEST_NAME)


def choice(asked: ToolChoice | None, tools: Sequence[Tool]) -> str:
    """In the engine's words: auto, none, required or call:NAME. Raises InvalidInput naming the field."""
    if asked is None:
        return "auto"
    if asked.type == "tool":
        if asked.name is None:
            raise InvalidInput("tool_choice.name is missing.", param="tool_choice.name")
        if asked.name not in {tool.name for tool in tools}:
            message = f"tool_choice names {asked.name[:64]!r}, which is not one of the tools."
            raise InvalidInput(message, param="tool_choice.name")
        return f"call:{asked.name}"
    if asked.type not in _CHOICES:
        raise InvalidInput("tool_choice.type must be none, auto, any or tool.", param="tool_choice.type")
    if asked.type == "any" and not tools:
        raise InvalidInput("tool_choice requires a tool, but there are no tools.", param="tool_choice")
    return _CHOICES[asked.type]


def call(block: ContentBlock, at: str) -> ToolCall:
    """What an assistant called. Raises InvalidInput naming the field."""
    for field in ("id", "name"):
        if getattr(block, field) is None:
            raise InvalidInput(f"{at}.{field} is missing.", param=f"{at}.{field}")
    assert block.id is not None
    assert block.name is not None
    return ToolCall(block.id, block.name, schemas.json_text(block.input or {}, f"{at}.input"))
