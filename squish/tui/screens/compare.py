"""Answers of two or three models side by side: they are written at once, or in turn, and one of them is kept.

State changes only in handlers. Who is asked when is in chat/comparison.
"""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from squish.sessions.backend import Backend
from squish.text import clean
from squish.tui import actions
from squish.tui.advice import reporting_errors
from squish.tui.chat.answer_tasks import AnswerTasks
from squish.tui.chat.comparison import Comparison
from squish.tui.memory_readings import MemoryReadings
from squish.tui.messages import AnswerEnded, AnswerEvent
from squish.tui.terminal import clipboard
from squish.tui.widgets.chat.contender_view import ContenderView
from squish.tui.widgets.keys import Keys
from squish.tui.widgets.status import StatusStrip, StripFacts
from squish.tui.windows.window import ClosesOnce

TICK = 0.5
ROOMY = 100


class CompareScreen(ClosesOnce[None]):
    """Ends when one is kept, or when the user leaves; by then no answer grows any more."""

    CSS_PATH: ClassVar = "compare.tcss"
    BINDINGS = actions.bindings("compare")
    AUTO_FOCUS = "VerticalScroll"

    def __init__(self, runtime: Backend, comparison: Comparison, memory: MemoryReadings) -> None:
        super().__init__()
        self._comparison, self._memory = comparison, memory
        self._tasks = AnswerTasks(runtime, self)
        self._views = {each.turn: ContenderView(comparison, each) for each in comparison.contenders}

    def compose(self) -> ComposeResult:
        yield StatusStrip()
        yield Static(clean(self._comparison.contenders[0].turn.question), id="question", markup=False)
        yield Horizontal(*self._views.values(), id="contenders")
        yield Keys()

    def on_mount(self) -> None:
        self._lay_out(self.app.size.width)  # the first picture comes before a size of its own
        self.set_interval(TICK, self._show)
        self._ask_due()

    def on_unmount(self) -> None:
        for each in self._views:  # where the program ends
            if each.answer.running:
                each.answer.leave()
                with reporting_errors(self.app):
                    each.conversation.save(each)

    def on_resize(self) -> None:
        self._lay_out(self.size.width)

    def _lay_out(self, width: int) -> None:
        self.set_class(width < ROOMY, "-stacked")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        comparison = self._comparison
        match action:
            case "stop":
                return not comparison.over
            case "keep":
                return comparison.kept is None and parameters[0] in range(1, len(comparison.contenders) + 1)
            case "leave":
                return comparison.over
        return True

    # ---- the answers

    def _ask_due(self) -> None:
        for each in self._comparison.due():
            self._tasks.start(each.turn)
        self._show()

    def _show(self) -> None:
        self._tasks.look()
        for view in self._views.values():
            view.show()
        over = self._comparison.over
        symbol, style = ("■", "$text-warning") if over else ("▶", "$text-primary")
        if all(each.turn.answer.phase == "done" for each in self._comparison.contenders):
            symbol, style = "●", "$text-success"
        state = f"{'compared' if over else 'comparing'}, {self._comparison.outcome}"
        self.query_one(StatusStrip).facts = StripFacts(
            state=state, symbol=symbol, style=style, memory=self._memory.memory()
        )

    @on(AnswerEvent)
    def _answer_event(self, event: AnswerEvent) -> None:
        turn, view = event.turn, self._views[event.turn]
        if turn.answer.running:
            before = turn.answer.phase
            view.write(turn.answer.apply(event.event))
            with reporting_errors(self.app):
                turn.conversation.save(turn)
            if turn.answer.phase != before or turn.answer.phase == "prefill":
                view.show()

    @on(AnswerEnded)
    async def _answer_ended(self, event: AnswerEnded) -> None:
        turn = event.turn
        if not self._tasks.ended(turn):
            return
        if self._comparison.ended(turn, event.error):
            with reporting_errors(self.app):
                turn.conversation.save(turn)
            await self._views[turn].finish()
        self._ask_due()
        self._over()

    def _over(self) -> None:
        """With the last answer the choice counts; hidden names are looked at before the chat is there again."""
        self.refresh_bindings()
        comparison = self._comparison
        if comparison.over and comparison.kept and not comparison.entry.blind:
            self.action_leave()

    # ---- what the keys do

    def action_stop(self) -> None:
        """End all answers; those that have not begun are not asked."""
        self._end(but=None)

    def _end(self, but: ContenderView | None) -> None:
        for each in self._comparison.stop_waiting():
            with reporting_errors(self.app):
                each.turn.conversation.save(each.turn)
        for turn, view in self._views.items():
            if view is not but:
                self._tasks.stop(turn)
        self._show()
        self._over()

    def action_step(self, step: int) -> None:
        """Give the keys for scrolling to the next answer, or the one before it."""
        if step > 0:
            self.focus_next("VerticalScroll")
        else:
            self.focus_previous("VerticalScroll")

    def action_keep(self, number: int) -> None:
        """Keep one; it is written to its end, and the others are not."""
        view = list(self._views.values())[number - 1]
        answer = view.contender.turn.answer
        if not answer.text:
            self.notify(f"This one has no answer {'yet' if answer.running else 'to keep'}.", markup=False)
            return
        with reporting_errors(self.app):
            self._comparison.keep(view.contender)
        self._end(but=view)

    async def action_copy(self) -> None:
        """The answer that has the focus."""
        view = next((each for each in self._views.values() if each.has_focus_within), None)
        if view and (text := view.contender.turn.answer.text):
            await clipboard.put(clean(text), self.app.copy_to_clipboard)
            self.notify(f"Copied {len(text)} characters.", markup=False)

    def action_leave(self) -> None:
        with reporting_errors(self.app):
            self._comparison.close()
        self.dismiss()
