"""Runs answers in the background: it asks the engine, posts what comes to a screen, and ends what is to end.

An answer belongs to the app, so that it goes on while another chat or screen is shown. Knows no widget.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.message_pump import MessagePump
from textual.worker import Worker

from squish.errors import SquishError
from squish.generation import GenerationRequest
from squish.runtime import Runtime
from squish.sessions.answer import Generation
from squish.tui import loading
from squish.tui.chat.conversation import Turn
from squish.tui.faults import fault
from squish.tui.messages import AnswerEnded, AnswerEvent


@dataclass(slots=True)
class _Live:
    worker: Worker[None] | None = None
    generation: Generation | None = None


class AnswerTasks:
    """The answers that are being written. `listener` gets AnswerEvent and, once for each, AnswerEnded."""

    def __init__(self, runtime: Runtime, listener: MessagePump) -> None:
        self._runtime, self._listener = runtime, listener
        self._live: dict[Turn, _Live] = {}

    def start(self, turn: Turn) -> None:
        """Ask for a turn's answer, or for the rest of it."""
        live = self._live[turn] = _Live()
        try:
            request = turn.conversation.request(turn)
        except SquishError as error:
            self._listener.post_message(AnswerEnded(turn, error))
            return
        live.worker = self._listener.app.run_worker(self._run(turn, live, request), group="answer", exit_on_error=False)

    def is_live(self, turn: Turn) -> bool:
        """Whether a turn's AnswerEnded is still to come."""
        return turn in self._live

    def ended(self, turn: Turn) -> bool:
        """Take an end in; whether it is the first one of this turn."""
        return self._live.pop(turn, None) is not None

    def stop(self, turn: Turn) -> None:
        """Once: ask the engine to end the answer. Twice: leave it, whatever the engine does."""
        live = self._live.get(turn)
        if live is None:
            return
        if live.generation and not turn.answer.stopping:
            turn.answer.stopping = True
            live.generation.cancel()
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
            await loading.agree(self._listener.app, self._runtime.sessions, request.model)
            async with self._runtime.sessions.generate(request) as generation:
                live.generation = generation
                async for event in generation:
                    self._listener.post_message(AnswerEvent(turn, event))
        except SquishError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the chat down
            failure = fault(error, "Try again.")
        finally:
            self._listener.post_message(AnswerEnded(turn, failure))
