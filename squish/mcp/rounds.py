"""One answer in which the model may call tools: it generates, the calls are made, and it generates again.

It knows neither engine nor screen: what generates is handed in, and what happens is reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from squish.chats.messages import CalledTool, Outcome, ToolStep, as_sent
from squish.errors import InvalidInput, McpError
from squish.generation import (
    EVENTS_AT_ONCE,
    ChatPrompt,
    Finished,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
    TextDelta,
    TextPrompt,
    ToolCallDelta,
)
from squish.mcp.events import AnswerStopped, Doing, Offered, Permit, Reaching, Report, Steps, ToolProblem
from squish.mcp.toolbox import Toolbox, gather
from squish.mcp.tools import NO_OBJECT, ServerTool, for_model, offered, shortened, values_of

MOST_ROUNDS = 12
"""Times that a model may call tools in one answer; then it has to answer without."""
MOST_CALLS = 16
"""Calls at one time; the ones beyond that are refused."""
RESULT_TOKENS = 8192
"""Tokens of a result that the model gets at most; less where its context is short."""

_REFUSED = "The user did not allow this call."
_NO_MORE = f"An answer may call tools {MOST_ROUNDS} times."
_CHARACTERS = 3  # of a token, where nobody counts: fewer than there mostly are

T = TypeVar("T")


class Answering(Protocol):
    """A generation: events, and a way to end it."""

    def __aiter__(self) -> AsyncIterator[GenerationEvent]: ...

    def cancel(self) -> None: ...


Generate = Callable[[GenerationRequest], AbstractAsyncContextManager[Answering]]
Count = Callable[[str, tuple[TextPrompt, ...]], Awaitable[tuple[int, ...] | None]]


class Rounds:
    """generate, count: of the session manager. context: tokens of the model's, 0 where not known. able: the model can
    call tools. permit: asked before every call. report: gets all that happens.
    """

    def __init__(
        self, generate: Generate, count: Count, toolbox: Toolbox, permit: Permit, report: Report, *,
        able: bool, context: int = 0,
    ) -> None:  # fmt: skip
        self._generate, self._count, self._toolbox = generate, count, toolbox
        self._permit, self._report, self._able = permit, report, able
        self._most = min(RESULT_TOKENS, context // 4) if context else RESULT_TOKENS
        self._model = ""
        self._steps: list[ToolStep] = []
        self._asked: Answering | None = None
        self._inner: asyncio.Future[Any] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the answer wherever it is; what was written stays."""
        self._stopped = True
        if self._asked is not None:
            self._asked.cancel()
        if self._inner is not None:
            self._inner.cancel()

    async def run(
        self,
        request: GenerationRequest,
        servers: Sequence[str],
        off: Sequence[str] = (),
        before: Sequence[ToolStep] = (),
    ) -> None:
        """The answer to a request of one chat prompt. off: tools of these servers that are not offered.

        before: the steps that its last messages are. Raises what generating raises.
        """
        self._model, self._steps = request.model, list(before)
        try:
            await self._go_round(request, await self._offer(servers, off), len(before))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._stopped or (task is not None and task.cancelling()):
                raise
            self._end_calls()
            self._report(AnswerStopped())

    async def _go_round(self, request: GenerationRequest, names: dict[str, ServerTool], before: int) -> None:
        (prompt,) = request.prompts
        assert isinstance(prompt, ChatPrompt)
        base, said = prompt.messages, ""
        if prompt.continue_last:
            base, said = base[:-1], base[-1].content
        asked = replace(prompt, tools=for_model(names))
        self._report(Offered(asked.tools))
        for left in range(MOST_ROUNDS, -1, -1):
            step = await self._one(replace(request, prompts=(asked,)), names)
            if step is None:
                return
            self._steps.append(replace(step, text=said + step.text))
            if left == 0:  # it calls what it was not offered any more
                for at in range(len(step.calls)):
                    self._set(at, "refused", _NO_MORE)
                return
            await self._call(names)
            said, made = "", as_sent(self._steps[before:])
            asked = replace(asked, messages=(*base, *made), continue_last=False)
            if left == 1:
                asked = replace(asked, tools=())
                self._report(
                    ToolProblem(
                        McpError(f"Limit of {MOST_ROUNDS} rounds of tool calls reached; the model answers now.")
                    )
                )

    async def _offer(self, servers: Sequence[str], off: Sequence[str]) -> dict[str, ServerTool]:
        """The tools that the model is to know of, by the names it knows them by."""
        if not servers:
            return {}
        if not self._able:
            problem = "This model cannot call tools: its chat template has no format for it. It answers without them."
            self._report(ToolProblem(InvalidInput(problem, hint="Use a model that was trained to call tools.")))
            return {}
        reaching = gather(self._toolbox, servers, lambda left: self._report(Reaching(left)))
        tools, problems = await self._until_stopped(reaching)
        for each in problems:
            self._report(ToolProblem(each))
        return offered(tool for tool in tools if tool.id not in off)

    async def _one(self, request: GenerationRequest, names: dict[str, ServerTool]) -> ToolStep | None:
        """One generation; the step that it made if it ended in calls."""
        text, thought = list[str](), list[str]()
        calls: dict[int, CalledTool] = {}
        reason, count = "", 0
        if self._stopped:
            raise asyncio.CancelledError
        async with self._generate(request) as generation:
            self._asked = generation
            async for event in generation:
                match event:
                    case TextDelta(text=piece):
                        text.append(piece)
                    case ReasoningDelta(text=piece):
                        thought.append(piece)
                    case ToolCallDelta(call_index=at, name=name, arguments=piece, id=id):
                        known = calls.get(at) or _begun(id, name or "", names)
                        calls[at] = replace(known, arguments=known.arguments + piece)
                    case Finished(reason=reason):
                        pass
                self._report(event)
                count += 1
                if count % EVENTS_AT_ONCE == 0:
                    await asyncio.sleep(0)
        self._asked = None
        if reason != "tool_calls" or not calls:
            return None
        return ToolStep("".join(text), "".join(thought), tuple(calls[at] for at in sorted(calls)))

    # ---- calls

    async def _call(self, names: dict[str, ServerTool]) -> None:
        """Make the calls of the last step, one after the other."""
        self._report(Steps(tuple(self._steps)))
        for at, call in enumerate(self._steps[-1].calls):
            tool = names.get(call.name)
            if tool is None:
                self._set(at, "failed", f"There is no tool {call.name}.")
            elif at >= MOST_CALLS:
                self._set(at, "refused", f"Only {MOST_CALLS} calls can be made at a time.")
            elif values_of(call.arguments) is None:  # nobody is asked about what cannot be called
                self._set(at, "failed", NO_OBJECT)
            elif not await self._allowed(call):
                self._set(at, "refused", _REFUSED)
            else:
                await self._make(at, call, tool)

    async def _allowed(self, call: CalledTool) -> bool:
        self._report(Doing(call))
        return await self._until_stopped(self._permit(call))

    async def _make(self, at: int, call: CalledTool, tool: ServerTool) -> None:
        self._set(at, "running", "")
        running = self._steps[-1].calls[at]

        def progress(text: str) -> None:
            self._report(Doing(running, text))

        self._report(Doing(running))
        found = await self._until_stopped(self._toolbox.call(tool, call.arguments, progress))
        self._set(at, "failed" if found.failed else "done", await self._until_stopped(self._short(found.text)))

    async def _short(self, text: str) -> str:
        """The text, or as much of it as the model may get."""
        for _ in range(3):
            if len(text.encode()) <= self._most:  # no token is less than a byte
                return text
            counted = await self._count(self._model, (TextPrompt(text),))
            if counted is None:
                return shortened(text, self._most * _CHARACTERS)
            if counted[0] <= self._most:
                return text
            text = shortened(text, len(text) * self._most * 9 // (counted[0] * 10))
        return text

    def _set(self, at: int, outcome: Outcome, result: str) -> None:
        last = self._steps[-1]
        calls = list(last.calls)
        calls[at] = replace(calls[at], outcome=outcome, result=result)
        self._steps[-1] = replace(last, calls=tuple(calls))
        self._report(Steps(tuple(self._steps)))

    def _end_calls(self) -> None:
        """Nothing of the last step goes on."""
        for at, call in enumerate(self._steps[-1].calls if self._steps else ()):
            if call.outcome in ("waiting", "running"):
                self._set(at, "stopped", "The user stopped this call.")

    async def _until_stopped(self, what: Awaitable[T]) -> T:
        """Wait for something that `stop` ends. Raises CancelledError."""
        self._inner = inner = asyncio.ensure_future(what)
        if self._stopped:
            inner.cancel()
        try:
            return await inner
        finally:
            self._inner = None
            if not inner.done():
                inner.cancel()


def _begun(id: str, name: str, names: dict[str, ServerTool]) -> CalledTool:
    return CalledTool(id, name, "", names[name].id if name in names else "")
