"""The conversation on the screen: questions, answers and notices; the newest text is in view until the user scrolls."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from squish.errors import SquishError
from squish.text import clean
from squish.tui import actions, figures
from squish.tui.conversation import Answer, Turn
from squish.tui.messages import FollowingChanged
from squish.tui.widgets.markdown import LiveMarkdown, Palette, frozen

LIVE_ANSWERS = 8


def error_content(error: SquishError) -> Content:
    """An error for people: what happened, and what to do about it on a line of its own."""
    hint = f"\n{clean(error.hint)}" if error.hint else ""
    return Content.assemble(("✕ ", "bold"), clean(error.message), (hint, "$foreground-muted"))


class AnswerView(Vertical):
    """One answer: who gives it, its text, and a line that says how far it is and, at the end, what it took."""

    def __init__(self, turn: Turn, may_flush: Callable[[], bool]) -> None:
        super().__init__(classes="answer")
        self.turn = turn
        self._live: LiveMarkdown | None = LiveMarkdown(may_flush)
        self._note = Static(classes="note", markup=False)

    def compose(self) -> ComposeResult:
        yield Static(Content(clean(self.turn.model)), classes="who")
        if self._live:
            yield self._live
        yield self._note

    def on_mount(self) -> None:
        self.update_note()

    @property
    def live(self) -> LiveMarkdown | None:
        """The growing text, or None when it is frozen."""
        return self._live

    def write(self, text: str) -> None:
        if self._live:
            self._live.write(text)

    def update_note(self) -> None:
        """Say how far the answer is now."""
        answer = self.turn.answer
        self.set_class(answer.phase == "failed", "-failed")
        self._note.update(error_content(answer.error) if answer.error else _note(answer, self.turn.model))

    async def finish(self) -> None:
        """Show the last of the text and the final figures."""
        if self._live:
            await self._live.finish()
        self.update_note()

    async def freeze(self) -> None:
        """Trade the live widgets for one that costs nothing."""
        if self._live is None or self.turn.answer.running:
            return
        live, self._live = self._live, None
        palette = Palette.of(self.app.theme_variables, self.app.current_theme.dark)
        await self.mount(frozen(self.turn.answer.text, palette), after=live)
        await live.remove()


def _note(answer: Answer, model: str) -> Content:
    match answer.phase:
        case _ if answer.running and answer.stopping:
            return Content("■ stopping …")
        case "waiting":
            return Content("◌ …")
        case "queued":
            return Content(
                f"◌ waiting in line, {answer.position - 1} before this" if answer.position > 1 else "◌ next in line"
            )
        case "loading":
            return Content(f"◌ loading {clean(model)} … {answer.in_phase:.0f} s")
        case "prefill":
            return _prefill(answer)
        case "writing":
            speed = f" · {figures.speed(answer.speed)}" if answer.speed else ""
            return Content(f"▌ writing{speed} · esc stops")
        case _:
            return Content(_footer(answer))


def _prefill(answer: Answer) -> Content:
    fraction = answer.prefill_fraction
    counts = f"{figures.count(answer.prefilled)} of {figures.count(answer.prompt_tokens)} tok"
    return Content.assemble(
        "◐ reading the prompt ", (figures.bar(fraction, 12), "$secondary"), f" {figures.percent(fraction)} · {counts}"
    )


def _footer(answer: Answer) -> str:
    """`212 tok · 48 tok/s · TTFT 0.31 s`, with what is not known left out."""
    tokens, pieces = answer.usage.completion_tokens, list[str]()
    if answer.phase == "stopped":
        pieces.append("■ stopped" if answer.text else "■ stopped before the first word · ↑ brings your message back")
    if tokens:
        pieces.append(f"{figures.count(tokens)} tok")
        pieces += [figures.speed(answer.speed)] if answer.speed else []
        pieces.append(f"TTFT {figures.seconds(answer.timings.ttft)}")
    elif answer.phase == "done":
        pieces.append("the model had nothing to say")
    if answer.reason == "length":
        pieces.append("cut at its limit")
    return " · ".join(pieces)


class Transcript(VerticalScroll, can_focus=True):
    """Grows downwards. Only the latest answers are live widgets."""

    BINDINGS = actions.bindings("transcript")

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self._answers: list[AnswerView] = []
        self._released = False
        self._reported = True

    def on_mount(self) -> None:
        self.anchor()

    @property
    def following(self) -> bool:
        """Whether the newest text is in view and stays there."""
        return not self._released

    def release_anchor(self) -> None:
        """Called before every scrolling by hand, also when that leads nowhere: then the newest text stays followed."""
        super().release_anchor()
        self._released = True
        self.call_after_refresh(self._settle)

    def _settle(self) -> None:
        if self._released and self.scroll_target_y >= self.max_scroll_y:
            self.follow()
        self._report()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._released and new_value >= self.max_scroll_y:
            self._released = False
        self._report()

    def follow(self) -> None:
        """Go to the newest text and stay with it."""
        self._released = False
        self.anchor()
        self._report()

    async def add_turn(self, turn: Turn) -> None:
        """Show a question and begin its answer."""
        view = AnswerView(turn, lambda: self.following)
        question = Static(Content(clean(turn.question)), classes="question")
        question.border_title = "you"
        await self.mount(question, view)
        self._answers.append(view)
        for old in self._answers[:-LIVE_ANSWERS]:
            await old.freeze()
        self.follow()

    async def add_notice(self, content: Content, kind: str = "plain") -> None:
        """A line that is no part of the chat. kind: plain or error."""
        await self.mount(Static(content, classes=f"notice -{kind}"))
        self.follow()

    async def empty(self) -> None:
        self._answers.clear()
        await self.remove_children()
        self.follow()

    def view_of(self, turn: Turn) -> AnswerView | None:
        """The view of a turn, or None when it is not shown any more."""
        return next((view for view in reversed(self._answers) if view.turn is turn), None)

    def _report(self) -> None:
        if self.following != self._reported:
            self._reported = self.following
            self.post_message(FollowingChanged(self.following))
            if self.following and self._answers and (live := self._answers[-1].live):
                live.resume()
