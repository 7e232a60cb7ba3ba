"""The values of conversations: a chat and how it asks, its messages, and the tree that they form.

A message's versions are the messages with the same parent and role; a chat's head is the leaf of the branch that is
shown. It knows nothing of the file in which they lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from squish.chats.answer_format import response_format
from squish.generation import Message, SamplingParams, ToolCall, require_kv_bits

MAX_TITLE = 60

Role = Literal["user", "assistant"]
State = Literal["writing", "done", "stopped", "failed"]
Titled = Literal["question", "model", "user"]
Unread = Literal["", "news", "failed"]
Outcome = Literal["waiting", "running", "done", "failed", "refused", "stopped"]


class ChatSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a chat asks: sampling, system prompt, and whether the model is to think (None: as it likes).

    response_format: as a person writes it, see answer_format. context: tokens of prompt and answer, None: the model's.
    kv_bits: of a number in the model's KV cache, None: as it is loaded.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 2048
    seed: int | None = None
    stop: tuple[str, ...] = ()
    system: str = ""
    thinking: bool | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    response_format: str = ""
    context: int | None = None
    kv_bits: int | None = None

    def sampling(self) -> SamplingParams:
        """Raises InvalidInput naming the field that is out of its range, kv_bits too."""
        require_kv_bits(self.kv_bits)
        return SamplingParams(
            self.max_tokens, self.temperature, self.top_p, self.top_k, self.min_p, self.seed, self.stop,
            self.repetition_penalty, self.presence_penalty, self.frequency_penalty,
            response_format=response_format(self.response_format), context=self.context,
        )  # fmt: skip


class Attachment(msgspec.Struct, frozen=True):
    """A text file that goes with a message."""

    name: str
    text: str


class CalledTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call that an answer made. name: as the model knows the tool; tool: its server and its own name.

    arguments: a JSON text. result: what the model got of it; empty until the call is over.
    """

    id: str
    name: str
    arguments: str
    tool: str = ""
    result: str = ""
    outcome: Outcome = "waiting"


class ToolStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of an answer that ended in calls: what was said and thought before them, and the calls."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CalledTool, ...] = ()


class ChatTools(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which tools a chat may use: those of `servers`, but for the ones in `off`; `allowed` are not asked for.

    Tools are named as in CalledTool.tool. marks: by server, how it was set up when it was switched on.
    """

    servers: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    marks: dict[str, str] = {}


class Figures(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an answer took. ttft, decode and thought in seconds; error: why it has no end."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    ttft: float = 0.0
    decode: float = 0.0
    thought: float = 0.0
    reason: str = ""
    error: str = ""
    with_queue: bool = False  # as in Timings
    server: str = ""  # as in Timings


class Saved(msgspec.Struct, frozen=True):
    """One message. model: who wrote an answer. created in seconds since 1970. steps: of an answer, before its text."""

    id: int
    chat: int
    parent: int | None
    role: Role
    text: str
    reasoning: str
    model: str
    attachments: tuple[Attachment, ...]
    state: State
    figures: Figures
    created: float
    steps: tuple[ToolStep, ...] = ()

    @property
    def full_text(self) -> str:
        """What the model reads: the text, and the attached files behind it."""
        return with_files(self.text, self.attachments)


class Chat(msgspec.Struct, frozen=True):
    """One conversation without its messages. head: the last message of the branch that is shown.

    titled: whose words the title is. pinned: it stays at the top of the list. archived: it is not in the list.
    tags: in their order, without the `#`. preset: the one used last. unread: how an answer ended that nobody saw.
    """

    id: int
    title: str
    model: str
    settings: ChatSettings
    draft: str
    head: int | None
    created: float
    updated: float
    tools: ChatTools = msgspec.field(default_factory=ChatTools)
    titled: Titled = "user"
    pinned: bool = False
    archived: bool = False
    tags: tuple[str, ...] = ()
    preset: str = ""
    unread: Unread = ""


class Hit(msgspec.Struct, frozen=True):
    """A message that was found; snippet shows the place, with the words between \\x02 and \\x03.

    archived: its chat is.
    """

    chat: int
    title: str
    message: int
    role: Role
    snippet: str
    created: float
    archived: bool = False


class Tree:
    """All messages of a chat, and the branch that leads to its head."""

    def __init__(self, messages: Iterable[Saved], head: int | None) -> None:
        self._by_id = {each.id: each for each in messages}
        self._below: dict[int | None, list[Saved]] = {}
        for each in self._by_id.values():
            self._below.setdefault(each.parent, []).append(each)
        self.branch = self._up_from(head)

    def versions(self, message: int) -> list[int]:
        """The versions of a message, the oldest first, itself among them."""
        this = self._by_id[message]
        return [each.id for each in self._below[this.parent] if each.role == this.role]

    def newest_below(self, message: int) -> int:
        """The leaf one comes to from a message by taking the newest version each time."""
        while below := self._below.get(message):
            message = below[-1].id
        return message

    def _up_from(self, message: int | None) -> list[Saved]:
        branch: list[Saved] = []
        while message is not None and (each := self._by_id.get(message)):
            branch.append(each)
            message = each.parent
        return branch[::-1]


def title_of(text: str) -> str:
    """The first words of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - 1].rsplit(" ", 1)[0] + "…"


def with_files(text: str, attachments: Iterable[Attachment]) -> str:
    """A message with its files behind it, each in a fence that none of its own lines closes."""
    parts = [text]
    for each in attachments:
        longest = max((len(run) for run in re.findall("`{3,}", each.text)), default=2)
        fence = "`" * (longest + 1)
        parts.append(f"{each.name}:\n{fence}\n{each.text.rstrip()}\n{fence}")
    return "\n\n".join(part for part in parts if part)


def as_sent(steps: Iterable[ToolStep], text: str = "") -> tuple[Message, ...]:
    """An answer as the model reads it again: its calls with what they gave, and its text, if it has one."""
    messages: list[Message] = []
    for step in steps:
        calls = tuple(ToolCall(each.id, each.name, each.arguments) for each in step.calls)
        messages.append(Message("assistant", step.text, calls, reasoning=step.reasoning))
        messages += [
            Message("tool", each.result or "(stopped)", tool_call_id=each.id, name=each.name) for each in step.calls
        ]
    return (*messages, Message("assistant", text)) if text else tuple(messages)
