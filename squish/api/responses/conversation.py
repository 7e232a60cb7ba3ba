"""The items of a conversation as messages that the engine understands. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

import msgspec

from squish.api.fields import tools as fields
from squish.api.responses import thoughts
from squish.api.responses.requests import InputItem, InputPart
from squish.api.responses.tools import Name
from squish.errors import InvalidInput
from squish.generation import Message, Role, ToolCall

_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_UNREADABLE = ("input_image", "input_file")
_SKIPPED = frozenset(
    (
        "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "computer_call",
        "mcp_list_tools", "mcp_call", "mcp_approval_request", "tool_search_call", "tool_search_output", "compaction",
        "compaction_summary", "ghost_snapshot",
    )
)  # fmt: skip
"""What only another server's tools do; it is left out of the conversation, and the log says so."""


def read(given: str | Sequence[InputItem], before: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The messages, and the types of the items that are skipped. before: the conversation that they go on with.

    Raises InvalidInput naming the field.
    """
    if isinstance(given, str):
        return (Message("user", given),), ()
    turns = _Turns({call.id: call.name for message in before for call in message.tool_calls})
    for i, item in enumerate(given):
        turns.add(item, f"input[{i}]")
    return turns.messages(), tuple(turns.skipped)


def with_instructions(instructions: str | None, messages: Sequence[Message]) -> tuple[Message, ...]:
    """One system message in front, of the instructions and of all that stand in front already: templates know one."""
    leading = list(takewhile(lambda message: message.role == "system", messages))
    texts = ([instructions] if instructions else []) + [message.content for message in leading]
    rest = tuple(messages[len(leading) :])
    return (Message("system", "\n\n".join(texts)), *rest) if texts else rest


class _Turns:
    """Messages as they are put together: thoughts, a text and calls that follow each other are one turn.

    skipped: types of items and parts that are left out.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.skipped: dict[str, None] = {}
        self._names = names  # of the calls so far, by their id
        self._done: list[Message] = []
        self._turn: Message | None = None

    def messages(self) -> tuple[Message, ...]:
        self._close()
        return tuple(self._done)

    def add(self, item: InputItem, at: str) -> None:
        match item.type:
            case None | "message":
                self._message(item, at)
            case "reasoning":
                if self._turn is not None and (self._turn.content or self._turn.tool_calls):
                    self._close()
                self._extend(reasoning=_thought(item, at))
            case "function_call" | "custom_tool_call":
                self._call(item, at)
            case "function_call_output" | "custom_tool_call_output":
                self._output(item, at)
            case hosted if hosted in _SKIPPED:
                self.skipped[hosted] = None
            case _:
                message = f"{at}.type {item.type[:40]!r} is not supported."
                hint = "Items are message, function_call, function_call_output and reasoning."
                raise InvalidInput(message, hint=hint, param=f"{at}.type")

    def _message(self, item: InputItem, at: str) -> None:
        if item.role is None:
            raise InvalidInput(f"{at}.role is missing.", param=f"{at}.role")
        role = _ROLES.get(item.role)
        if role is None:
            message = f"The role {item.role[:40]!r} cannot be used. Roles: {', '.join(_ROLES)}."
            raise InvalidInput(message, param=f"{at}.role")
        if item.content is None:
            raise InvalidInput(f"{at}.content is missing.", param=f"{at}.content")
        text = _text(item.content, f"{at}.content")
        if role == "assistant":
            if self._turn is not None and (self._turn.content or self._turn.tool_calls):
                self._close()
            self._extend(content=text)
        else:
            self._close()
            self._done.append(Message(role, text))

    def _call(self, item: InputItem, at: str) -> None:
        for field in ("call_id", "name"):
            if not getattr(item, field):
                raise InvalidInput(f"{at}.{field} is missing.", param=f"{at}.{field}")
        name = Name(item.name or "", item.namespace).full
        if item.type == "custom_tool_call":
            arguments = msgspec.json.encode({"input": item.input or ""}).decode()
        else:
            arguments = fields.arguments(item.arguments, f"{at}.arguments")
        self._names[item.call_id or ""] = name
        self._extend(calls=(ToolCall(item.call_id or "", name, arguments),))

    def _output(self, item: InputItem, at: str) -> None:
        call = item.call_id
        if call is None:
            raise InvalidInput(f"{at}.call_id is missing.", param=f"{at}.call_id")
        if call not in self._names:
            message = f"{at}.call_id {call[:64]!r} is not the id of an earlier call."
            raise InvalidInput(message, hint="It answers the call_id of a function_call.", param=f"{at}.call_id")
        if item.output is None:
            raise InvalidInput(f"{at}.output is missing.", param=f"{at}.output")
        text = item.output if isinstance(item.output, str) else self._given(item.output, f"{at}.output")
        self._close()
        self._done.append(Message("tool", text, tool_call_id=call, name=self._names[call]))

    def _given(self, parts: Sequence[InputPart], at: str) -> str:
        """A tool's output, as text. Images in it are left out: refusing them would end an agent's conversation."""
        self.skipped |= dict.fromkeys(part.type for part in parts if part.type in _UNREADABLE)
        return "".join(
            f"[{part.type.removeprefix('input_')} left out: this model reads text only]"
            if part.type in _UNREADABLE
            else _part(part, f"{at}[{i}]")
            for i, part in enumerate(parts)
        )

    def _extend(self, content: str = "", calls: tuple[ToolCall, ...] = (), reasoning: str = "") -> None:
        turn = self._turn or Message("assistant", "")
        self._turn = msgspec.structs.replace(
            turn,
            content=turn.content + content,
            tool_calls=turn.tool_calls + calls,
            reasoning=turn.reasoning + reasoning,
        )

    def _close(self) -> None:
        """A turn of thoughts alone is left out: templates show them beside a text or a call."""
        if self._turn is not None and (self._turn.content or self._turn.tool_calls):
            self._done.append(self._turn)
        self._turn = None


def _thought(item: InputItem, at: str) -> str:
    """What was thought, from whichever field has it."""
    found = thoughts.opened(item.encrypted_content)
    if found is not None:
        return found
    if item.content:
        return _text(item.content, f"{at}.content")
    return _text(item.summary or [], f"{at}.summary")


def _text(given: str | Sequence[InputPart], at: str) -> str:
    if isinstance(given, str):
        return given
    return "".join(_part(part, f"{at}[{i}]") for i, part in enumerate(given))


def _part(part: InputPart, at: str) -> str:
    if part.type == "refusal":
        return part.refusal or ""
    if part.type not in _TEXTS:
        raise InvalidInput(f"Content of type {part.type[:40]!r} is not supported, only text.", param=f"{at}.type")
    if part.text is None:
        raise InvalidInput(f"{at}.text is missing.", param=f"{at}.text")
    return part.text
