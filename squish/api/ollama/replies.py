"""Generation events as Ollama's answers and lines of streams. Pure, but for the clock. It knows no HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from squish import generation
from squish.api.dialect import Row
from squish.api.errors import Failure
from squish.api.ollama.errors import ErrorLine, error_line
from squish.api.ollama.responses import (
    Answer,
    AnswerMessage,
    CalledFunction,
    CalledTool,
    ChatResponse,
    GenerateResponse,
    Logprob,
    TokenLogprob,
)
from squish.api.replies.frames import JsonLines
from squish.generation import (
    CUT,
    Finished,
    FinishReason,
    GenerationEvent,
    ReasoningDelta,
    TextDelta,
    Timings,
    ToolCall,
    ToolCallDelta,
    Usage,
)


@dataclass(frozen=True, slots=True)
class LineContent:
    """What one line says. ending: what only the last line has."""

    text: str = ""
    thinking: str = ""
    calls: Sequence[CalledTool] = ()
    logprobs: Sequence[generation.TokenLogprob] = ()
    ending: dict[str, Any] = field(default_factory=dict)


Line = Callable[[str, LineContent], Answer]


def chat_line(model: str, content: LineContent) -> ChatResponse:
    """A line of POST /api/chat."""
    message = AnswerMessage(
        content=content.text,
        thinking=content.thinking or UNSET,
        tool_calls=list(content.calls) if content.calls else UNSET,
    )
    return ChatResponse(model=model, message=message, **_in_common(content))


def text_line(model: str, content: LineContent) -> GenerateResponse:
    """A line of POST /api/generate."""
    return GenerateResponse(
        model=model, response=content.text, thinking=content.thinking or UNSET, **_in_common(content)
    )


def _in_common(content: LineContent) -> dict[str, Any]:
    return {
        "created_at": datetime.now(UTC),
        "done": bool(content.ending),
        "logprobs": _logprobs(content.logprobs),
        **content.ending,
    }


class LineReply:
    """An answer in lines of JSON, or in one piece. line: makes one. model: as the client named it."""

    frames = JsonLines()

    def __init__(self, model: str, line: Line) -> None:
        self._model = model
        self._line = line
        self._began = time.monotonic_ns()
        self._calls = Row()  # it puts the pieces of calls together
        self._sent = 0  # calls

    def whole(self, rows: Sequence[Row]) -> Answer:
        row = rows[0]
        whole, rest = _complete(row.tool_calls, 0)
        ending = self._ending(row.reason, row.usage, row.timings)
        return self._line(self._model, LineContent(row.text + rest, row.reasoning, whole, row.logprobs, ending))

    def chunks(self, event: GenerationEvent) -> Sequence[Answer]:
        match event:
            case TextDelta(text=text, logprobs=tokens) if text or tokens:
                return [self._say(text=text, logprobs=tokens)]
            case ReasoningDelta(text=text) if text:
                return [self._say(thinking=text)]
            case ToolCallDelta():
                self._calls.add(event)
                return self._finished_calls(len(self._calls.tool_calls) - 1)
            case Finished(reason=reason, usage=usage, timings=timings):
                calls = self._finished_calls(len(self._calls.tool_calls))
                return [*calls, self._say(ending=self._ending(reason, usage, timings))]
            case _:
                return []

    def last(self, rows: Sequence[Row]) -> Sequence[Answer]:
        return []

    def alive(self, event: GenerationEvent | None) -> Sequence[Answer]:
        return [self._say()]

    def failed(self, failure: Failure, request_id: str = "") -> Sequence[ErrorLine]:
        return [error_line(failure)]

    def kept(self, reason: Literal["load", "unload"]) -> Answer:
        """The answer to a request that only loads or unloads the model."""
        return self._say(ending={"done_reason": reason})

    def _finished_calls(self, until: int) -> list[Answer]:
        """Lines with the calls that are complete: those before one that has begun, and all of them at the end."""
        calls, rest = _complete(self._calls.tool_calls[self._sent : until], self._sent)
        self._sent = max(self._sent, until)
        return [self._say(text=rest, calls=calls)] if calls or rest else []

    def _say(self, **content: Any) -> Answer:
        return self._line(self._model, LineContent(**content))

    def _ending(self, reason: FinishReason, usage: Usage, timings: Timings) -> dict[str, Any]:
        return {
            "done_reason": "length" if reason in CUT else "stop",
            "total_duration": time.monotonic_ns() - self._began,
            "load_duration": _nanoseconds(timings.load),
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(timings.ttft),
            "eval_count": usage.completion_tokens,
            "eval_duration": _nanoseconds(timings.decode),
        }


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def _complete(calls: Sequence[ToolCall], first: int) -> tuple[list[CalledTool], str]:
    """Calls with their arguments as objects, and as text what was cut off in the middle of one. first: its index."""
    found, rest = [], ""
    for index, call in enumerate(calls, first):
        try:
            arguments = msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
        except msgspec.MsgspecError:
            rest += f'{{"name": {msgspec.json.encode(call.name).decode()}, "arguments": {call.arguments}'
        else:
            found.append(CalledTool(call.id, CalledFunction(index, call.name, arguments)))
    return found, rest


def _logprobs(tokens: Sequence[generation.TokenLogprob]) -> list[Logprob] | UnsetType:
    if not tokens:
        return UNSET
    return [
        Logprob(
            each.token,
            each.logprob,
            list(each.bytes),
            [TokenLogprob(top.token, top.logprob, list(top.bytes)) for top in each.top] or UNSET,
        )
        for each in tokens
    ]
