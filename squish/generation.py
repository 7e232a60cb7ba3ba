"""The values of text generation: what is asked for, and what comes back as a stream of events.

Values only. They cross the process border as msgpack, so they are msgspec Structs.
It does not know who asks (HTTP, terminal, script) nor how tokens are made.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from squish.errors import InvalidInput

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "cancelled"]


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Role
    content: str


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat"):
    """A conversation, rendered by the model's own chat template.

    continue_last: the last message is an unfinished answer that the model goes on writing.
    thinking: asks a template that knows `enable_thinking` to switch it; None leaves the template's default.
    """

    messages: tuple[Message, ...]
    continue_last: bool = False
    thinking: bool | None = None


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """Raw text, tokenized with the model's special tokens and no template."""

    text: str


class TokenPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """Token ids, used as they are."""

    tokens: tuple[int, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt


class SamplingParams(msgspec.Struct, frozen=True):
    """How tokens are chosen and when a row ends.

    temperature 0 is greedy. top_p in (0, 1]; 1 is off. top_k 0 and min_p 0 are off.
    seed: the same seed gives the same tokens alone and in a batch; None draws a new one.
    stop: up to four strings, matched on text; no part of one is ever sent.

    Raises InvalidInput naming the field for a value out of its range, so that every front door refuses the same.
    """

    max_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self.max_tokens >= 1, "max_tokens", "at least 1")
        _check(math.isfinite(self.temperature) and 0 <= self.temperature <= 2, "temperature", "between 0 and 2")
        _check(math.isfinite(self.top_p) and 0 < self.top_p <= 1, "top_p", "above 0 and at most 1")
        _check(self.top_k >= 0, "top_k", "0 (off) or more")
        _check(math.isfinite(self.min_p) and 0 <= self.min_p <= 1, "min_p", "between 0 and 1")
        _check(self.seed is None or -(2**63) <= self.seed < 2**64, "seed", "a 64-bit integer")
        _check(len(self.stop) <= 4 and all(self.stop), "stop", "up to four non-empty strings")


def _check(holds: bool, field: str, must_be: str) -> None:
    if not holds:
        raise InvalidInput(f"{field} must be {must_be}.", param=field)


class GenerationRequest(msgspec.Struct, frozen=True):
    """What a front door asks the session manager for.

    Row i of the answer belongs to prompts[i]; all rows run in one batch and are admitted, and cancelled, together.
    keep_alive: seconds the model stays loaded after this request; None is the configured time, negative is for ever.
    """

    model: str
    prompts: tuple[Prompt, ...]
    sampling: SamplingParams = SamplingParams()
    keep_alive: float | None = None


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one row. cached_tokens of prompt_tokens were not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Timings(msgspec.Struct, frozen=True):
    """Seconds in the worker: from a request's arrival to its first token, and from there to its last."""

    ttft: float
    decode: float

    def decode_tps(self, completion_tokens: int) -> float:
        """Tokens per second after the first token; 0 when there was no second one."""
        return (completion_tokens - 1) / self.decode if completion_tokens > 1 and self.decode > 0 else 0.0


class Queued(msgspec.Struct, frozen=True, tag="queued"):
    """Waiting for a place; position 1 is next."""

    position: int


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """The model is being read into memory."""


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """The prompts are tokenized and fit the context; prefill begins. prompt_tokens: one count per row."""

    prompt_tokens: tuple[int, ...]


class Prefill(msgspec.Struct, frozen=True, tag="prefill"):
    """Prompt tokens of a row processed so far."""

    index: int
    done: int
    total: int


class TextDelta(msgspec.Struct, frozen=True, tag="text"):
    """More of a row's answer."""

    index: int
    text: str


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The last event of a row."""

    index: int
    reason: FinishReason
    usage: Usage
    timings: Timings


GenerationEvent = Queued | Loading | Accepted | Prefill | TextDelta | Finished
