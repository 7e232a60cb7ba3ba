"""One of the answers that are compared: whose it is, its text as it grows, and its figures."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from squish.text import clean
from squish.tui.chat.comparison import Comparison, Contender
from squish.tui.scheduling import after_refresh
from squish.tui.widgets.chat.turns import said, thought
from squish.tui.widgets.facts import FactLines
from squish.tui.widgets.markdown.live import LiveMarkdown


class ContenderView(Vertical):
    """Scrolls by itself, and follows what is written unless it was scrolled away from it."""

    def __init__(self, comparison: Comparison, contender: Contender) -> None:
        super().__init__(classes="contender")
        self._comparison, self.contender = comparison, contender
        self._thought = Static(classes="thought", markup=False)
        self._text = LiveMarkdown(lambda: True)
        self._note = FactLines(classes="note")

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield self._thought
            yield self._text
        yield self._note

    def on_mount(self) -> None:
        self.show()

    def write(self, text: str) -> None:
        self._text.write(text)

    def on_resize(self) -> None:
        after_refresh(self, self._follow)

    def _follow(self) -> None:
        """Stay with the newest text where there is more than fits. Less begins at the top: anchored, it would end at
        the bottom, also in a terminal that has become larger."""
        scroll = self.query_one(VerticalScroll)
        if scroll.max_scroll_y == 0:
            self._to_top()
        elif self.contender.turn.answer.running and not scroll.is_anchored:
            scroll.anchor()

    def _to_top(self) -> None:
        scroll = self.query_one(VerticalScroll)
        if scroll.is_anchored:
            scroll.anchor(False)
            scroll.scroll_to(y=0, animate=False, force=True, immediate=True)

    async def finish(self) -> None:
        """Show the last of the text, and unless the user has scrolled, its beginning: now it is read."""
        if self.query_one(VerticalScroll).is_vertical_scroll_end:
            self._to_top()
        await self._text.finish()
        self.show()

    def show(self) -> None:
        """Say whose it is and how far it is now."""
        contender, answer = self.contender, self.contender.turn.answer
        kept = self._comparison.kept is contender
        self.border_title = Content(f"{contender.number}  {clean(self._comparison.name(contender))}")
        self.border_subtitle = "★ kept" if kept else ""
        self.set_class(kept, "-kept")
        self.set_class(answer.phase == "failed", "-failed")
        self._thought.display = bool(answer.reasoning)
        if answer.reasoning:
            self._thought.update(thought(answer, False))
        self._note.say(self._said())
        after_refresh(self, self._follow)  # by then what was written has its height

    def _said(self) -> Content:
        comparison, answer = self._comparison, self.contender.turn.answer
        if comparison.waits(self.contender):
            why = "no memory to load it beside the others" if self.contender.alone else "one after the other"
            return Content(f"◌ waiting: {why}")
        if comparison.hidden and answer.error:  # it may name the model
            return Content("✕ failed; the reason is shown with the names")
        if answer.phase == "stopped" and not answer.text:
            return Content("■ stopped before the first word")
        return said(
            answer, "the model" if comparison.hidden else self.contender.candidate.model, self.app, "compare.stop"
        )
