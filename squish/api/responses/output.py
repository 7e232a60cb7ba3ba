"""An answer as items: thoughts, texts and calls, one after the other. Pure: events of generation in, Structs out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from squish.api.responses.answers import FunctionCall, ItemStatus, OutputItem, OutputMessage, Reasoning
from squish.api.responses.items import Call, Events, Item, Place, Text, Thoughts
from squish.api.responses.tools import Name
from squish.generation import GenerationEvent, Message, ReasoningDelta, TextDelta, ToolCall, ToolCallDelta


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """What a request says about how the answer is reported. one_call: of several calls, the first is the answer.

    summary: thoughts come as the summary. sealed: and once more as encrypted_content. names: of functions, by what the
    model calls them.
    """

    one_call: bool = False
    summary: bool = False
    sealed: bool = False
    names: Mapping[str, Name] = field(default_factory=dict)


class Output:
    """items: those that are complete. One more can be open; what is of another kind ends it."""

    def __init__(self, options: ReplyOptions, number: Callable[[], int]) -> None:
        self.items: list[OutputItem] = []
        self._options = options
        self._number = number
        self._open: Item | None = None
        self._calls = 0

    def add(self, event: GenerationEvent) -> Events:
        """What is to be said about an event; nothing about those that bring nothing."""
        match event:
            case ReasoningDelta(text=text) if text:
                return self._think(text)
            case TextDelta(text=text) if text or event.logprobs:
                return self._say(event)
            case ToolCallDelta(call_index=index) if index == 0 or not self._options.one_call:
                return self._call(event)
            case _:
                return []

    def end(self, status: ItemStatus) -> Events:
        """Ends what is open. An answer without anything is an empty message."""
        events = [] if self._open or self.items else self._begin(Text(self._place("msg")))
        return events + self._close(status)

    def _think(self, text: str) -> Events:
        events, item = Events(), self._open
        if not isinstance(item, Thoughts):
            item = Thoughts(self._place("rs"), summary=self._options.summary, sealed=self._options.sealed)
            events = self._begin(item)
        return events + item.more(text)

    def _say(self, event: TextDelta) -> Events:
        events, item = Events(), self._open
        if not isinstance(item, Text):
            item = Text(self._place("msg"))
            events = self._begin(item)
        return events + item.more(event.text, event.logprobs)

    def _call(self, event: ToolCallDelta) -> Events:
        events, item = Events(), self._open
        if not isinstance(item, Call) or event.call_index >= self._calls:
            name = event.name or ""
            item = Call(self._place("fc"), event.id, self._options.names.get(name, Name(name)))
            self._calls += 1
            events = self._begin(item)
        return events + item.more(event.arguments)

    def _place(self, prefix: str) -> Place:
        index = len(self.items) + (self._open is not None)
        return Place(f"{prefix}_{secrets.token_hex(12)}", index, self._number)

    def _begin(self, item: Item) -> Events:
        events = self._close("completed")
        self._open = item
        return events + item.begin()

    def _close(self, status: ItemStatus) -> Events:
        if self._open is None:
            return []
        item, events = self._open.end(status)
        self.items.append(item)
        self._open = None
        return events


def turn(items: Sequence[OutputItem]) -> Message:
    """An answer as a turn of the conversation that goes on after it."""
    text = reasoning = ""
    calls: list[ToolCall] = []
    for item in items:
        match item:
            case OutputMessage(content=parts):
                text += "".join(part.text for part in parts)
            case Reasoning(content=content, summary=summary):
                reasoning += "".join([*(part.text for part in content), *(part.text for part in summary)])
            case FunctionCall():
                namespace = item.namespace or None
                calls.append(ToolCall(item.call_id, Name(item.name, namespace).full, item.arguments))
    return Message("assistant", text, tuple(calls), reasoning=reasoning)
