"""The items of an answer while they grow, and the events for each step. Pure.

Each is begun, gets more, and is ended once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from msgspec import UNSET

from squish.api.openai import logprobs
from squish.api.openai.responses import ContentLogprob
from squish.api.responses import events as say
from squish.api.responses import thoughts
from squish.api.responses.answers import (
    FunctionCall,
    ItemStatus,
    OutputItem,
    OutputMessage,
    OutputText,
    Reasoning,
    ReasoningText,
    SummaryText,
)
from squish.api.responses.tools import Name
from squish.generation import TokenLogprob

Events = list[say.Event]
EventT = TypeVar("EventT", bound=say.OfItem)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item stands. number: gives each event its sequence_number."""

    id: str
    index: int
    number: Callable[[], int]

    def added(self, item: OutputItem) -> say.Event:
        return say.ItemAdded(sequence_number=self.number(), output_index=self.index, item=item)

    def done(self, item: OutputItem) -> say.Event:
        return say.ItemDone(sequence_number=self.number(), output_index=self.index, item=item)

    def event(self, kind: type[EventT], **fields: object) -> EventT:
        """An event of this item, with the fields that it has besides its place."""
        return kind(sequence_number=self.number(), item_id=self.id, output_index=self.index, **fields)


class Item(Protocol):
    def begin(self) -> Events: ...

    def end(self, status: ItemStatus) -> tuple[OutputItem, Events]:
        """The item as it is when it is complete, and the events that say so."""


class Text:
    """A message with one part."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._pieces: list[str] = []
        self._logprobs: list[ContentLogprob] = []

    def begin(self) -> Events:
        at = self._place
        empty = OutputMessage(id=at.id, status="in_progress", content=[])
        return [at.added(empty), at.event(say.PartAdded, part=OutputText(""))]

    def more(self, text: str, tokens: Sequence[TokenLogprob]) -> Events:
        found = logprobs.of_chat(tokens)
        likely = found.content if found else []
        self._pieces.append(text)
        self._logprobs += likely
        return [self._place.event(say.TextMore, delta=text, logprobs=likely)]

    def end(self, status: ItemStatus) -> tuple[OutputItem, Events]:
        at, text = self._place, "".join(self._pieces)
        part = OutputText(text, logprobs=self._logprobs)
        item = OutputMessage(id=at.id, status=status, content=[part])
        done = at.event(say.TextDone, text=text, logprobs=self._logprobs)
        return item, [done, at.event(say.PartDone, part=part), at.done(item)]


class Thoughts:
    """summary: as the summary, else as content. sealed: and once more as encrypted_content."""

    def __init__(self, place: Place, *, summary: bool, sealed: bool) -> None:
        self._place = place
        self._summary = summary
        self._sealed = sealed
        self._pieces: list[str] = []

    def begin(self) -> Events:
        at = self._place
        added = at.added(Reasoning(id=at.id, status="in_progress"))
        if self._summary:
            return [added, at.event(say.SummaryAdded, part=SummaryText(""))]
        return [added, at.event(say.PartAdded, part=ReasoningText(""))]

    def more(self, text: str) -> Events:
        self._pieces.append(text)
        return [self._place.event(say.SummaryTextMore if self._summary else say.ThoughtMore, delta=text)]

    def end(self, status: ItemStatus) -> tuple[OutputItem, Events]:
        at, text = self._place, "".join(self._pieces)
        seal = thoughts.sealed(text) if self._sealed else None
        if self._summary:
            summary = SummaryText(text)
            item = Reasoning(id=at.id, summary=[summary], encrypted_content=seal, status=status)
            done = [at.event(say.SummaryTextDone, text=text), at.event(say.SummaryDone, part=summary)]
        else:
            content = ReasoningText(text)
            item = Reasoning(id=at.id, content=[content], encrypted_content=seal, status=status)
            done = [at.event(say.ThoughtDone, text=text), at.event(say.PartDone, part=content)]
        return item, [*done, at.done(item)]


class Call:
    """call_id: what its output will name."""

    def __init__(self, place: Place, call_id: str, name: Name) -> None:
        self._place = place
        self._call_id = call_id
        self._name = name
        self._pieces: list[str] = []

    def begin(self) -> Events:
        return [self._place.added(self._item("in_progress"))]

    def more(self, arguments: str) -> Events:
        self._pieces.append(arguments)
        return [self._place.event(say.ArgumentsMore, delta=arguments)] if arguments else []

    def end(self, status: ItemStatus) -> tuple[OutputItem, Events]:
        item = self._item(status)
        done = self._place.event(say.ArgumentsDone, name=item.name, arguments=item.arguments)
        return item, [done, self._place.done(item)]

    def _item(self, status: ItemStatus) -> FunctionCall:
        return FunctionCall(
            id=self._place.id,
            call_id=self._call_id,
            name=self._name.name,
            namespace=UNSET if self._name.namespace is None else self._name.namespace,
            arguments="".join(self._pieces),
            status=status,
        )
