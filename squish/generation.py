"""The values of text generation: what is asked for, and what comes back as a stream of events.

Values only. They cross the process border as msgpack, so they are msgspec Structs.
It does not know who asks (HTTP, terminal, script) nor how tokens are made.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from squish.errors import InvalidInput

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "context", "cancelled", "tool_calls"]
"""Why an answer ended. length: max_tokens was reached; context: prompt and answer together fill the context."""
Effort = Literal["low", "medium", "high"]
FormatKind = Literal["json_object", "json_schema", "regex", "lark"]


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model made. arguments: a JSON text."""

    id: str
    name: str
    arguments: str


CUT: frozenset[FinishReason] = frozenset({"length", "context"})
"""The reasons of an answer that a limit ended before the model did."""
REASONS: Mapping[FinishReason, str] = MappingProxyType({
    "length": "reached max tokens",
    "context": "context full",
    "cancelled": "stopped",
    "tool_calls": "calls a tool",
})  # fmt: skip
"""In words, for people; that an answer came to its own end goes without saying."""
KV_BITS = (32, 16, 8)
"""That a number in a KV cache can have."""
LARGEST = 2**31 - 1
"""Of a count; as max_tokens it stands for no limit."""
MAX_STOPS = 64


class Message(msgspec.Struct, frozen=True, gc=False):
    """One turn of a conversation.

    tool_calls: what an assistant turn called. tool_call_id: the call that a tool turn answers. name: of the tool.
    reasoning: what an assistant turn thought, for templates that show it again.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str = ""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call. parameters: the JSON schema of its arguments, as JSON text.

    lenient: what of the schema cannot be held is left out, where it would be refused.
    field: what an error about the schema names, as the client wrote it.
    """

    name: str
    description: str = ""
    parameters: str = "{}"
    lenient: bool = False
    field: str = "tools"


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat"):
    """A conversation, rendered by the model's own chat template.

    continue_last: the last message is an unfinished answer that the model goes on writing.
    thinking: whether to think; None leaves it to the template.
    effort: how much to think, low, medium or high, for templates that know degrees; None leaves it to the template.
    tool_choice: "auto"; "none" (the model does not learn of the tools); "required" (it must call one); or "call:NAME".
    """

    messages: tuple[Message, ...]
    continue_last: bool = False
    thinking: bool | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    effort: Effort | None = None


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """Raw text, tokenized with the model's special tokens and no template."""

    text: str


class TokenPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """Token ids, used as they are."""

    tokens: tuple[int, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt


class ResponseFormat(msgspec.Struct, frozen=True):
    """What the answer must match from its first character to its last, once the model has stopped thinking.

    text: the JSON schema, the regular expression or the Lark grammar; unused for json_object.
    field: what an error about it names, as the client wrote it.
    lenient: what of a schema cannot be held is left out, where it would be refused.
    """

    kind: FormatKind
    text: str = ""
    field: str = "response_format"
    lenient: bool = False


class SamplingParams(msgspec.Struct, frozen=True):
    """How tokens are chosen and when a row ends.

    temperature 0 is greedy. top_p in [0, 1]; 1 is off, 0 is greedy. top_k 0 and min_p 0 are off.
    seed: the same seed gives the same tokens alone and in a batch; None and -1 draw a new one.
    stop: up to 64 strings, matched on text; no part of one is ever sent.
    repetition_penalty: above 0, 1 is off; divides what the prompt or the answer holds already.
    repetition_window: how many of the latest tokens that penalty looks back on; 0 is all of them.
    presence_penalty, frequency_penalty: -2 to 2, 0 is off; taken from what the answer holds already, once or each time.
    logit_bias: (token id, -100 to 100) pairs; 100 all but forces a token and -100 forbids it.
    logprobs: text comes with the log-probability of each token, and of the top_logprobs (0 to 20) likeliest ones there.
    n: rows for each prompt, which is processed once.
    context: tokens that prompt and answer may have together, 2 at least; None is as many as the model's context holds.

    Raises InvalidInput naming the field for a value out of its range, so that every front door refuses the same.
    """

    max_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    n: int = 1
    response_format: ResponseFormat | None = None
    repetition_window: int = 0
    context: int | None = None

    def __post_init__(self) -> None:
        _check(1 <= self.max_tokens <= LARGEST, "max_tokens", f"between 1 and {LARGEST}")
        _check(math.isfinite(self.temperature) and 0 <= self.temperature <= 2, "temperature", "between 0 and 2")
        _check(math.isfinite(self.top_p) and 0 <= self.top_p <= 1, "top_p", "between 0 and 1")
        _check(0 <= self.top_k <= LARGEST, "top_k", f"between 0 (off) and {LARGEST}")
        _check(math.isfinite(self.min_p) and 0 <= self.min_p <= 1, "min_p", "between 0 and 1")
        _check(self.seed is None or -(2**63) <= self.seed < 2**64, "seed", "a 64-bit integer")
        _check(len(self.stop) <= MAX_STOPS and all(self.stop), "stop", f"at most {MAX_STOPS} non-empty strings")
        repetition = self.repetition_penalty
        _check(math.isfinite(repetition) and 0 < repetition <= 10, "repetition_penalty", "above 0 and at most 10")
        _check(0 <= self.repetition_window <= LARGEST, "repetition_window", f"between 0 (all) and {LARGEST}")
        for field in ("presence_penalty", "frequency_penalty"):
            _check(math.isfinite(value := getattr(self, field)) and -2 <= value <= 2, field, "between -2 and 2")
        biases = all(token >= 0 and math.isfinite(bias) and -100 <= bias <= 100 for token, bias in self.logit_bias)
        _check(biases, "logit_bias", "token ids with numbers between -100 and 100")
        _check(0 <= self.top_logprobs <= 20, "top_logprobs", "between 0 and 20")
        _check(1 <= self.n <= 128, "n", "between 1 and 128")
        _check(self.context is None or 2 <= self.context <= LARGEST, "context", f"between 2 and {LARGEST}")

    def context_in(self, longest: int) -> int:
        """Tokens that prompt and answer may have together. longest: of the model, 0 where not known."""
        return min(self.context, longest or self.context) if self.context else longest


def _check(holds: bool, field: str, must_be: str) -> None:
    if not holds:
        raise InvalidInput(f"{field} must be {must_be}.", param=field)


def require_kv_bits(bits: int | None) -> None:
    """Raises InvalidInput for bits that a number in a KV cache cannot have."""
    _check(bits in (None, *KV_BITS), "kv_bits", "32, 16 or 8")


TITLE = "chat title"
"""The client of a request for the title of a chat, which nobody waits for; over HTTP its address is behind it."""
PURPOSE = ("squish-purpose", "chat-title")
"""The header by which one Squish tells another that a request is for a title."""


def is_title(client: str) -> bool:
    return client == TITLE or client.startswith(f"{TITLE} ")


class GenerationRequest(msgspec.Struct, frozen=True):
    """What a front door asks the session manager for.

    Row p * n + c is choice c (of sampling.n) for prompts[p]. All rows run in one batch and are admitted, and cancelled,
    together.
    keep_alive: seconds the model stays loaded after this request; None is the configured time, negative is forever.
    client: who asks, for people to read; empty for this program's own chat.
    account: who takes turns with others; requests of one have no more than its turns, however many they are.
    background: nobody waits for it, so it goes behind requests that somebody waits for.
    kv_bits: 32, 16 or 8 of a number in the model's KV cache, which is loaded anew for it; None takes it as it is.

    Raises InvalidInput for other bits.
    """

    model: str
    prompts: tuple[Prompt, ...]
    sampling: SamplingParams = SamplingParams()
    keep_alive: float | None = None
    client: str = ""
    account: str = ""
    background: bool = False
    kv_bits: int | None = None

    def __post_init__(self) -> None:
        require_kv_bits(self.kv_bits)

    @property
    def rows(self) -> int:
        return len(self.prompts) * self.sampling.n


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one row.

    cached_tokens of prompt_tokens were not computed again: for a second choice that is all but the last.
    reasoning_tokens of completion_tokens were spent thinking.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Timings(msgspec.Struct, frozen=True):
    """Seconds in the worker: from a request's arrival to its first token, and from there to its last.

    load: seconds before that, for which the request waited for its model to be loaded; 0 where it was loaded already.
    draft_tokens: tokens that were guessed, and checked by the model; accepted_tokens of them were right.
    with_queue: another server answered and does not say how long its queue was: ttft begins when it was asked.
    server: the server that answered, as it is called here; empty for a model of this program.
    """

    ttft: float
    decode: float
    load: float = 0.0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    with_queue: bool = False
    server: str = ""

    @property
    def counts(self) -> str:
        """What stands behind a TTFT that is not the model's alone."""
        return " with the server's queue" if self.with_queue else ""

    def decode_tps(self, completion_tokens: int) -> float:
        """Tokens per second after the first token; 0 when there was no second one."""
        return (completion_tokens - 1) / self.decode if completion_tokens > 1 and self.decode > 0 else 0.0


class Queued(msgspec.Struct, frozen=True, tag="queued"):
    """Waiting for a place; position 1 is next."""

    position: int


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """The model is being read into memory. compiling: the engine is compiled first, which happens once on a machine."""

    compiling: bool = False


class Preparing(msgspec.Struct, frozen=True, tag="preparing"):
    """The model has the request, so its TTFT begins: the prompts are tokenized. grammar: and a grammar is compiled."""

    grammar: bool = False


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """The prompts are tokenized and fit the context; prefill begins. prompt_tokens: one count per row.

    not_held: places of schemas that the answers are not held to, as the request allows.
    """

    prompt_tokens: tuple[int, ...]
    not_held: tuple[str, ...] = ()


class Prefill(msgspec.Struct, frozen=True, tag="prefill"):
    """Prompt tokens of a row processed so far, of those that were not cached."""

    index: int
    done: int
    total: int


class Likely(msgspec.Struct, frozen=True):
    """A token that could have stood in a place, and its log-probability (at least -9999)."""

    token: str
    bytes: builtins.bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token of the answer. top: the likeliest tokens in its place, the likeliest first.

    token is what its bytes read as; half a character reads as U+FFFD.
    """

    token: str
    bytes: builtins.bytes
    logprob: float
    top: tuple[Likely, ...] = ()


class TextDelta(msgspec.Struct, frozen=True, tag="text"):
    """More of a row's answer. logprobs, when asked for: its tokens, whose bytes joined are the bytes of text."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True, tag="reasoning"):
    """More of what the model thinks before it answers."""

    index: int
    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, tag="tool_call"):
    """A piece of a row's call_index-th call: first one with its name, then its arguments as JSON text, in pieces."""

    index: int
    call_index: int
    id: str
    name: str | None
    arguments: str


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The last event of a row. stop: the stop string that ended it, if one did."""

    index: int
    reason: FinishReason
    usage: Usage
    timings: Timings
    stop: str | None = None


EVENTS_AT_ONCE = 32
"""Events that a reader takes before it lets others have their turn: what is there already comes without waiting."""

GenerationEvent = (
    Queued | Loading | Preparing | Accepted | Prefill | TextDelta | ReasoningDelta | ToolCallDelta | Finished
)
