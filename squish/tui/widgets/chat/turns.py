"""One turn on the screen: the question, and the answer with its thoughts, its text and a line of figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from squish import figures
from squish.errors import SquishError
from squish.generation import CUT, REASONS, Timings
from squish.text import clean
from squish.tui.advice import hint
from squish.tui.chat.answer_state import AnswerState
from squish.tui.chat.conversation import Turn
from squish.tui.key_hints import key
from squish.tui.short_names import short
from squish.tui.widgets.chat.calls import StepView
from squish.tui.widgets.facts import FactLines
from squish.tui.widgets.markdown.growing import WHOLE
from squish.tui.widgets.markdown.live import LiveMarkdown, frozen
from squish.tui.widgets.markdown.searchable import Searchable

_TAIL = 160

Part = Literal["question", "answer"]


def error_content(error: SquishError, app: App[Any]) -> Content:
    """An error for people: what happened, and what to do about it on a line of its own."""
    advised = hint(error, app)
    return Content.assemble(
        ("✕ ", "bold"), clean(error.message), (f"\n{advised}" if advised else "", "$foreground-muted")
    )


class QuestionView(Searchable):
    """What the user asked, with the files that went along."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(_question(turn), classes="question", markup=False)
        self.turn = turn


class AnswerView(Vertical):
    """One answer: who gives it, what was thought before it, its text, and a line that says how far it is.

    An answer that is complete already is one plain widget; one that grows is a live one.
    """

    def __init__(self, turn: Turn, may_flush: Callable[[], bool]) -> None:
        super().__init__(classes="answer")
        self.turn = turn
        self.unfolded = False
        answer = turn.answer  # what it has now goes in here: what arrives before it is on the screen comes after that
        # What still comes after it was stopped is drawn with its end, which is seen earlier so.
        self._may_flush = lambda: may_flush() and not answer.stopping
        self._live: LiveMarkdown | None = None
        if answer.running:
            self._live = LiveMarkdown(self._may_flush, answer.text)
        elif len(answer.text) > WHOLE:  # drawn piece by piece: as a whole, no key would be heard meanwhile
            self._live = LiveMarkdown(lambda: True, answer.text, is_complete=True)
        # With their text from the start: one that changes as soon as it is mounted would cost a second layout.
        self._thought = Static(thought(answer, False), classes="thought", markup=False)
        self._thought.display = bool(answer.reasoning)
        self._steps = [StepView(step) for step in answer.steps]
        self._note = FactLines(self._said(), classes="note")
        self.set_class(answer.phase == "failed", "-failed")

    def compose(self) -> ComposeResult:
        label = self.turn.answers.label
        yield Static(
            Content.assemble(short(self.turn.model), (f"  {label}" if label else "", "$text-accent")), classes="who"
        )
        yield self._thought
        yield from self._steps
        if self._live:
            yield self._live
        elif self.turn.answer.text:
            yield self._frozen()
        yield self._note

    @property
    def live(self) -> LiveMarkdown | None:
        """The growing text, or None when it is frozen."""
        return self._live

    def write(self, text: str) -> None:
        if self._live:
            self._live.write(text)

    def show_steps(self) -> None:
        """Show the calls as they stand. What was written before new ones belongs to them."""
        steps = self.turn.answer.steps
        for view, step in zip(self._steps, steps, strict=False):
            view.show(step)
        if len(steps) > len(self._steps):
            added = [StepView(step) for step in steps[len(self._steps) :]]
            self._steps += added
            self.mount_all(added, before=self._live or self._note)
            if self._live:
                old, self._live = self._live, LiveMarkdown(self._may_flush)
                self.mount(self._live, after=old)
                old.remove()

    def update_note(self) -> None:
        """Say how far the answer is now."""
        answer = self.turn.answer
        self.set_class(answer.phase == "failed", "-failed")
        self._note.say(self._said())
        if answer.reasoning:
            self._thought.display = True
            self._thought.update(thought(answer, self.unfolded))

    def _said(self) -> Content:
        return said(self.turn.answer, self.turn.model, self.app)

    def fold(self) -> None:
        """Show the thoughts and what calls gave, or hide them."""
        self.unfolded = not self.unfolded
        for view in self._steps:
            view.fold(self.unfolded)
        self.update_note()

    def on_click(self, event: object) -> None:
        if self._thought.display and self._thought.is_mouse_over:
            self.fold()

    async def finish(self) -> None:
        """Show the last of the text and the final figures."""
        if self._live:
            await self._live.finish()
        self.update_note()

    async def freeze(self) -> None:
        """Trade the live widgets for one that costs nothing."""
        if self._live is None or self.turn.answer.running or len(self.turn.answer.text) > WHOLE:
            return
        live, self._live = self._live, None
        await self.mount(self._frozen(), after=live)
        await live.remove()

    def _frozen(self) -> Searchable:
        return frozen(self.app, self.turn.answer.text)


def _question(turn: Turn) -> Content:
    lines = list[Content | str | tuple[str, str]]()
    if turn.questions.label:
        lines += [(f"you {turn.questions.label}", "bold $text-accent"), "\n"]
    lines.append(clean(turn.question))
    for file in turn.attachments:
        size = figures.size(len(file.text.encode()))
        lines.append((f"\n⎘ {clean(file.name)} · {size}", "$foreground-muted"))
    return Content.assemble(*lines)


def thought(answer: AnswerState, unfolded: bool) -> Content:
    """What is shown of what the model thought, and for how long it did."""
    seconds = figures.seconds(answer.thinking_time)
    if answer.phase == "thinking":
        head = f"{'▾' if unfolded else '▸'} thinking {seconds}"
    else:
        tokens = answer.usage.reasoning_tokens
        head = f"{'▾' if unfolded else '▸'} thought {seconds}"
        head += f" · {figures.count(tokens)} tok" if tokens else ""
    if unfolded:
        return Content.assemble((head, "bold"), "\n", clean(answer.reasoning).strip())
    if answer.phase == "thinking":
        tail = " ".join(clean(answer.reasoning[-_TAIL:]).split())  # not all of it, each time
        return Content.assemble((head, "bold"), "\n", f"… {tail}" if len(answer.reasoning) > _TAIL else tail)
    return Content.styled(head, "bold")


def said(answer: AnswerState, model: str, app: App[Any], stop: str = "chat.stop") -> Content:
    """How far an answer is, its figures, or why it has no end.

    model: its name, as the user may see it. stop: the action that stops it.
    """
    stops = f"{key(app, stop)} stops"
    if answer.error:
        return error_content(answer.error, app)
    match answer.phase:
        case _ if answer.running and answer.stopping:
            return Content(
                f"■ stopping … {figures.waited(answer.since_stop)}" if answer.since_stop >= 1 else "■ stopping …"
            )
        case "reaching":
            return Content(f"◌ connecting to {clean(answer.progress)} … {figures.waited(answer.in_phase)}")
        case "asking" if answer.doing:
            return Content(f"⚙ may {clean(answer.doing.name)} be called? · {stops}")
        case "calling" if answer.doing:
            said = f" · {clean(answer.progress)}" if answer.progress else ""
            return Content(f"⚙ {clean(answer.doing.name)} … {figures.waited(answer.in_phase)}{said} · {stops}")
        case "waiting" if answer.is_asked_about:
            return Content("◌ waiting for you")
        case _ if answer.is_loading:
            doing = "compiling the engine (once)" if answer.compiling else f"loading {short(model)}"
            return Content(f"◌ {doing} … {figures.waited(answer.in_phase)}")
        case "waiting":
            return Content(f"◌ waiting … {figures.waited(answer.in_phase)}" if answer.in_phase >= 1 else "◌ …")
        case "queued":
            ahead = f"{answer.position - 1} ahead" if answer.position > 1 else "next"
            return Content(f"◌ queued, {ahead} · {figures.waited(answer.in_phase)}")
        case "preparing":
            doing = "compiling the grammar" if answer.grammar else "tokenizing"
            return Content(f"◐ {doing} … {figures.waited(answer.in_phase)}" if answer.in_phase >= 1 else "◐ …")
        case "prefill":
            return _prefill(answer)
        case "thinking" | "writing":
            speed = f" · {figures.speed(answer.speed)}" if answer.speed else ""
            return Content(f"▌ {answer.phase}{speed} · {stops}")
        case _:
            problems = "".join(f"⚠ {clean(each)}\n" for each in dict.fromkeys(answer.problems))
            return Content(problems + _footer(answer))


def _prefill(answer: AnswerState) -> Content:
    fraction = answer.prefill_fraction
    counts = f"{figures.count(answer.prefilled)} of {figures.count(answer.to_prefill)} tok"
    return Content.assemble(
        "◐ prefill ",
        (figures.bar(fraction, 12), "$text-secondary"),
        f" {figures.percent(fraction)} · {counts} · {figures.waited(answer.in_phase)}",
    )


def _drafts(timings: Timings) -> str:
    known = f"/{timings.draft_tokens}" if timings.draft_tokens else ""
    return f"{timings.accepted_tokens}{known} drafts accepted"


def _footer(answer: AnswerState) -> str:
    """`212 tok · 48 tok/s · TTFT 0.31 s · 40/52 drafts accepted`, with what is not known left out."""
    tokens, pieces = answer.usage.completion_tokens, list[str]()
    if answer.phase == "stopped":
        pieces.append(
            "■ stopped"
            if answer.text or answer.steps
            else "■ stopped before the first word · ↑ brings your message back"
        )
    if tokens:
        pieces.append(f"{figures.count(tokens)} tok")
        pieces += [figures.speed(answer.speed)] if answer.speed else []
        pieces.append(f"TTFT {figures.seconds(answer.timings.ttft)}{answer.timings.counts}")
        if answer.timings.accepted_tokens:
            pieces.append(_drafts(answer.timings))
    elif answer.phase == "done":
        pieces.append("empty answer")
    if answer.reason in CUT:
        pieces.append(REASONS[answer.reason])
    return " · ".join(pieces)
