"""Runs answers in the background: it asks the engine, posts what comes to a screen, and ends what is to end.

An answer belongs to the app, so that it goes on while another chat or screen is shown. Knows no widget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec.structs import replace
from textual.message_pump import MessagePump
from textual.worker import Worker

from squish.chats.messages import CalledTool
from squish.errors import SquishError
from squish.generation import EVENTS_AT_ONCE, GenerationRequest
from squish.sessions.backend import Backend
from squish.tui import loading
from squish.tui.chat.conversation import Turn
from squish.tui.chat.parameters import left_out
from squish.tui.faults import fault
from squish.tui.messages import AnswerEnded, AnswerEvent

if TYPE_CHECKING:
    from squish.mcp.events import AnswerPart


Decision = Literal["once", "chat", "always", "refuse"]
GROUP = "answer"
"""Of Textual's workers, one for each answer that is being written."""


class _Live(msgspec.Struct):
    """stop: ends the answer at its next moment. call and decided: what the user is asked about, and his answer."""

    worker: Worker[None] | None = None
    stop: Callable[[], None] | None = None
    call: CalledTool | None = None
    decided: asyncio.Future[Decision] | None = None


class AnswerTasks:
    """The answers that are being written. `listener` gets AnswerEvent and, once for each, AnswerEnded."""

    def __init__(self, runtime: Backend, listener: MessagePump) -> None:
        self._runtime, self._listener = runtime, listener
        self._live: dict[Turn, _Live] = {}

    def start(self, turn: Turn) -> None:
        """Ask for a turn's answer, or for the rest of it."""
        live, fixed = _Live(), self._runtime.offers.fixed
        self._live[turn] = live
        turn.answer.problems = left_out(turn.conversation.settings, fixed)
        try:
            request = turn.conversation.request(turn, fixed)
        except SquishError as error:
            self._listener.post_message(AnswerEnded(turn, error))
            return
        live.worker = self._listener.app.run_worker(self._run(turn, live, request), group=GROUP, exit_on_error=False)

    @property
    def busy(self) -> bool:
        """Whether an end is still to come, of any turn."""
        return bool(self._live)

    def is_live(self, turn: Turn) -> bool:
        """Whether a turn's AnswerEnded is still to come."""
        return turn in self._live

    def ended(self, turn: Turn) -> bool:
        """Take an end in; whether it is the first one of this turn."""
        return self._live.pop(turn, None) is not None

    def look(self) -> None:
        """Let those that wait know how their models are."""
        statuses = self._runtime.sessions.status()
        for each in self._live:
            each.answer.hear(each.model, statuses)

    def stop(self, turn: Turn) -> None:
        """Once: ask the engine to end the answer. Twice: leave it, whatever the engine does."""
        live = self._live.get(turn)
        if live is None:
            return
        if live.stop and not turn.answer.stopping:
            turn.answer.stop()
            live.stop()
        elif live.worker:
            live.worker.cancel()
            self._listener.post_message(AnswerEnded(turn))  # a worker that had no chance to begin posts nothing

    def leave(self, turn: Turn) -> None:
        """End an answer that nobody wants to see any more."""
        if (live := self._live.get(turn)) and live.worker:
            live.worker.cancel()
            self._listener.post_message(AnswerEnded(turn))

    async def _run(self, turn: Turn, live: _Live, request: GenerationRequest) -> None:
        failure: SquishError | None = None
        try:
            await loading.agree(self._listener.app, self._runtime.sessions, request.model, turn.answer.asking)
            if turn.conversation.tools.servers:
                await self._with_tools(turn, live, request)
                return
            async with self._runtime.sessions.generate(request) as generation:
                live.stop = generation.cancel
                count = 0
                async for event in generation:
                    self._listener.post_message(AnswerEvent(turn, event))
                    count += 1
                    if count % EVENTS_AT_ONCE == 0:
                        await asyncio.sleep(0)
        except SquishError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the chat down
            failure = fault(error, "Try again.")
        finally:
            self._listener.post_message(AnswerEnded(turn, failure))

    # ---- tools

    def question(self, turn: Turn) -> CalledTool | None:
        """The call of a turn that somebody has to allow or refuse."""
        live = self._live.get(turn)
        return live.call if live and live.decided else None

    def decide(self, turn: Turn, decision: Decision) -> None:
        """Answer that question. Raises StoreError, and the answer goes on all the same."""
        live = self._live.get(turn)
        if live is None or live.call is None or live.decided is None or live.decided.done():
            return
        live.decided.set_result(decision)
        conversation = turn.conversation
        if decision == "chat":
            tools = conversation.tools
            conversation.use_tools(replace(tools, allowed=(*tools.allowed, live.call.tool)))
        elif decision == "always":
            from squish.mcp import permissions

            server = self._runtime.toolbox.find(live.call.tool.partition("/")[0])
            permissions.allow(self._runtime.settings.home, live.call.tool, server)

    async def _with_tools(self, turn: Turn, live: _Live, request: GenerationRequest) -> None:
        from squish.mcp import permissions
        from squish.mcp.events import ToolProblem
        from squish.mcp.rounds import Rounds

        def report(part: AnswerPart) -> None:
            self._listener.post_message(AnswerEvent(turn, part))

        async def permit(call: CalledTool) -> bool:
            return await self._permit(turn, live, call)

        found = self._runtime.store.manifest(request.model)
        able = await self._runtime.calls_tools(request.model)
        sessions, toolbox = self._runtime.sessions, self._runtime.toolbox
        rounds = Rounds(
            sessions.generate, sessions.count, toolbox, permit, report,
            able=able, context=request.sampling.context_in(found.context_length),
        )  # fmt: skip
        live.stop = rounds.stop
        tools = turn.conversation.tools
        changed = permissions.changed(tools, toolbox.known())
        for problem in changed.values():
            report(ToolProblem(problem))
        servers = [name for name in tools.servers if name not in changed]
        await rounds.run(request, servers, tools.off, turn.answer.steps)

    async def _permit(self, turn: Turn, live: _Live, call: CalledTool) -> bool:
        """Whether a call may be made; the user is asked unless he has allowed it before."""
        from squish.mcp import permissions
        from squish.mcp.events import Doing

        server = self._runtime.toolbox.find(call.tool.partition("/")[0])
        if not permissions.is_on(turn.conversation.tools, server):  # it has become another one since the answer began
            return False
        if call.tool in turn.conversation.tools.allowed:
            return True
        if permissions.is_allowed(self._runtime.settings.home, call.tool, server):
            return True
        live.call, live.decided = call, asyncio.get_running_loop().create_future()
        self._listener.post_message(AnswerEvent(turn, Doing(call)))
        try:
            return await live.decided != "refuse"
        finally:
            live.call = live.decided = None
