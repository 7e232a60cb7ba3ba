"""The events of a streamed response; each is named by its tag. Structs only.

sequence_number counts the events of a stream from 0 without a gap. output_index: of the item in the response's output.
content_index, summary_index: of the part in its item; an item of ours has one.
"""

from __future__ import annotations

import msgspec
from msgspec import field

from squish.api.openai.responses import ContentLogprob
from squish.api.responses.answers import OutputItem, OutputText, ReasoningText, Response, SummaryText


class Event(msgspec.Struct, frozen=True, kw_only=True):
    sequence_number: int


class Created(Event, frozen=True, kw_only=True, tag="response.created"):
    response: Response


class InProgress(Event, frozen=True, kw_only=True, tag="response.in_progress"):
    """Also sent again while nothing else happens, so that clients go on waiting."""

    response: Response


class Completed(Event, frozen=True, kw_only=True, tag="response.completed"):
    response: Response


class Incomplete(Event, frozen=True, kw_only=True, tag="response.incomplete"):
    response: Response


class Failed(Event, frozen=True, kw_only=True, tag="response.failed"):
    response: Response


class ItemAdded(Event, frozen=True, kw_only=True, tag="response.output_item.added"):
    output_index: int
    item: OutputItem


class ItemDone(Event, frozen=True, kw_only=True, tag="response.output_item.done"):
    output_index: int
    item: OutputItem


class OfItem(Event, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class PartAdded(OfItem, frozen=True, kw_only=True, tag="response.content_part.added"):
    content_index: int = 0
    part: OutputText | ReasoningText


class PartDone(OfItem, frozen=True, kw_only=True, tag="response.content_part.done"):
    content_index: int = 0
    part: OutputText | ReasoningText


class TextMore(OfItem, frozen=True, kw_only=True, tag="response.output_text.delta"):
    content_index: int = 0
    delta: str
    logprobs: list[ContentLogprob] = field(default_factory=list)


class TextDone(OfItem, frozen=True, kw_only=True, tag="response.output_text.done"):
    content_index: int = 0
    text: str
    logprobs: list[ContentLogprob] = field(default_factory=list)


class ThoughtMore(OfItem, frozen=True, kw_only=True, tag="response.reasoning_text.delta"):
    content_index: int = 0
    delta: str


class ThoughtDone(OfItem, frozen=True, kw_only=True, tag="response.reasoning_text.done"):
    content_index: int = 0
    text: str


class SummaryAdded(OfItem, frozen=True, kw_only=True, tag="response.reasoning_summary_part.added"):
    summary_index: int = 0
    part: SummaryText


class SummaryDone(OfItem, frozen=True, kw_only=True, tag="response.reasoning_summary_part.done"):
    summary_index: int = 0
    part: SummaryText


class SummaryTextMore(OfItem, frozen=True, kw_only=True, tag="response.reasoning_summary_text.delta"):
    summary_index: int = 0
    delta: str


class SummaryTextDone(OfItem, frozen=True, kw_only=True, tag="response.reasoning_summary_text.done"):
    summary_index: int = 0
    text: str


class ArgumentsMore(OfItem, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(OfItem, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    name: str
    arguments: str


EVENTS = (
    Created,
    InProgress,
    Completed,
    Incomplete,
    Failed,
    ItemAdded,
    ItemDone,
    PartAdded,
    PartDone,
    TextMore,
    TextDone,
    ThoughtMore,
    ThoughtDone,
    SummaryAdded,
    SummaryDone,
    SummaryTextMore,
    SummaryTextDone,
    ArgumentsMore,
    ArgumentsDone,
)
