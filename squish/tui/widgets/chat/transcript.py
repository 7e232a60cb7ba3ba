"""The conversation on the screen: the newest text is in view until the user scrolls; one message can be marked.

Of a long chat only the turns around what is in view are on the screen, and more come as the user scrolls there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from squish.text import clean, whole
from squish.tui import actions
from squish.tui.chat.conversation import ONLY, Turn, Versions
from squish.tui.messages import FollowingChanged, Typed
from squish.tui.scheduling import after_refresh
from squish.tui.terminal import clipboard
from squish.tui.widgets.chat.typed_elsewhere import TypedElsewhere

if TYPE_CHECKING:
    from squish.tui.widgets.chat.turns import AnswerView, Part, QuestionView
    from squish.tui.widgets.markdown.searchable import Place

    Pair = tuple[QuestionView, AnswerView]

LIVE_ANSWERS = 8
WINDOW = 8
MOST = 6 * WINDOW  # turns that are mounted at once: with more, each that comes costs more


class Transcript(VerticalScroll, TypedElsewhere, can_focus=True):
    """Grows downwards. Only the latest answers are live widgets."""

    FOCUS_ON_CLICK = False  # a user who clicks into an answer and types means the prompt

    BINDINGS = [  # noqa: RUF012
        *actions.bindings("transcript"),
        *(
            Binding(str(n), f"copy_code('{n}')", f"Copy block {n}", show=False, id=f"transcript.code{n}")
            for n in range(1, 10)
        ),
    ]

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self._turns: Sequence[Turn] = ()  # the whole branch, of which [first, first + len(views)) is mounted
        self._first = 0
        self._views: list[Pair] = []
        self._marked: tuple[Turn, Part] | None = None
        self._released = False
        self._reported = True
        self._loading = False

    def on_mount(self) -> None:
        self.anchor()

    # ---- following

    @property
    def following(self) -> bool:
        """Whether the newest text is in view and stays there."""
        return not self._released

    @property
    def shows_end(self) -> bool:
        """What FollowingChanged said last: letting go for a moment, until a scroll is through, is left out."""
        return self._reported

    @property
    def _at_end(self) -> bool:
        return self._first + len(self._views) >= len(self._turns)

    def release_anchor(self) -> None:
        """Called before every scrolling by hand, also when that leads nowhere: then the newest text stays followed."""
        super().release_anchor()
        self._released = True
        after_refresh(self, self._settle)

    def _settle(self) -> None:
        if self._released and self.scroll_target_y >= self.max_scroll_y and self._at_end:
            self.follow()
        self._report()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._released and new_value >= self.max_scroll_y and self._at_end:
            self._released = False
        if self._released and not self._loading:
            if new_value <= 0 and self._first:
                self._loading = True
                self.call_later(self._load_older)
            elif new_value >= self.max_scroll_y and not self._at_end:
                self._loading = True
                self.call_later(self._load_newer)
        self._report()

    def follow(self) -> None:
        """Go to the newest text and stay with it."""
        self._released = False
        if self._at_end:
            self.anchor()
        else:
            self.call_later(self.show, self._turns)
        self._report()

    # ---- what is shown

    async def show(self, turns: Sequence[Turn], around: Turn | None = None, part: Part = "answer") -> None:
        """Show a branch at its end, or with one of its messages marked."""
        self._turns = list(turns)
        at = self._turns.index(around) if around else len(self._turns) - 1
        self._first = max(min(at - WINDOW // 2, len(self._turns) - WINDOW), 0)
        shown = self._turns[self._first : self._first + WINDOW]
        self._marked = None
        self._views = [self._view(turn) for turn in shown]
        with self.app.batch_update():
            await self.remove_children()
            await self.mount_all([widget for pair in self._views for widget in pair])
        if around:
            self.mark(around, part)
        else:
            self.follow()

    async def add_turn(self, turn: Turn) -> None:
        """Show a question and begin its answer."""
        if not self._at_end:
            await self.show(self._turns)
        pair = self._view(turn)
        self._turns = [*self._turns, turn]
        self._views.append(pair)
        await self.mount(*pair)
        for _, old in self._views[:-LIVE_ANSWERS]:
            await old.freeze()
        self.follow()

    async def add_notice(self, content: Content, kind: str = "plain") -> None:
        """A line that is not part of the chat. kind: plain, error, or parameters, which replaces one right above."""
        last = self.children[-1] if kind == "parameters" and self.children else None
        if isinstance(last, Static) and last.has_class("-parameters"):
            last.update(content)
        else:
            await self.mount(Static(content, classes=f"notice -{kind}"))
        self.follow()

    def view_of(self, turn: Turn) -> AnswerView | None:
        """The view of a turn, or None when it is not shown now."""
        return next((answer for _, answer in reversed(self._views) if answer.turn is turn), None)

    # ---- the marked message

    @property
    def current(self) -> tuple[Turn, Part] | None:
        """The message that a command acts on: the marked one, or the last answer."""
        return self._marked or ((self._turns[-1], "answer") if self._turns else None)

    @property
    def versions(self) -> Versions:
        """Those of the message that a command acts on."""
        if self.current is None:
            return ONLY
        turn, part = self.current
        return turn.questions if part == "question" else turn.answers

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Letters are for a message that was marked on purpose; all others are meant for the prompt."""
        if action in ("copy", "copy_code", "fold", "on_marked", "version"):
            return self._marked is not None and (action != "version" or len(self.versions.ids) > 1)
        return True

    async def action_on_marked(self, action: str) -> None:
        """Let the screen do something with the marked message."""
        await self.run_action(f"screen.{action}")

    async def action_version(self, step: int) -> None:
        await self.run_action(f"screen.version({step})")

    def is_command(self, key: str) -> bool:
        return self._marked is not None and key in self._bindings.key_to_bindings

    def on_click(self) -> None:
        """Who clicks into an answer and types means the prompt, also if a message was marked before, or found."""
        if self._marked is not None:
            self.unmark()
            self.post_message(Typed(""))

    def mark(self, turn: Turn, part: Part) -> None:
        """Mark a message and bring it into view."""
        self._marked = (turn, part)
        for question, answer in self._views:
            for widget, kind in ((question, "question"), (answer, "answer")):
                is_marked = question.turn is turn and kind == part
                widget.set_class(is_marked, "-marked")
                if is_marked:
                    self.release_anchor()
                    after_refresh(self, self.scroll_to_widget, widget, animate=False, top=widget.size.height == 0)
        self.screen.set_focus(self)
        self.refresh_bindings()

    def unmark(self) -> None:
        self._marked = None
        self.refresh_bindings()
        for widget in self.query(".-marked"):
            widget.remove_class("-marked")
        if self._views:
            from squish.tui.widgets.markdown.searchable import Searchable

            for text in self.query(Searchable):
                text.forget()

    # ---- copying and folding

    async def action_copy(self) -> None:
        """The marked message; the last answer that has text when none is marked."""
        turn, part = self._marked or (None, "answer")
        text = (turn.question if part == "question" else turn.answer.text) if turn else ""
        last = next((each.answer.text for each in reversed(self._turns) if each.answer.text), "")
        await self._copy(text or last, "No answer to copy yet.")

    async def action_copy_code(self, number: str = "") -> None:
        """A block of code by its number; without one the last."""
        from squish.tui.widgets.markdown.parsing import code_blocks

        blocks = code_blocks(self.current[0].answer.text) if self.current else []
        asked = whole(number)
        if asked is None:
            await self._copy(blocks[-1] if blocks else "", "This answer has no code block.")
            return
        at = asked - 1
        await self._copy(blocks[at] if 0 <= at < len(blocks) else "", f"This answer has no code block [{number}].")

    async def _copy(self, text: str, otherwise: str) -> None:
        if text:
            await clipboard.put(clean(text), self.app.copy_to_clipboard)
        self.app.notify(f"Copied {len(text)} characters." if text else otherwise, markup=False)

    def action_fold(self) -> None:
        if self.current and (view := self.view_of(self.current[0])):
            view.fold()

    def show_place(self, place: Place) -> None:
        """Let words stand out in the marked message, and bring the one that was searched for into view."""
        after_refresh(self, self._scroll_to_place, place)

    def _scroll_to_place(self, place: Place) -> None:
        from squish.tui.widgets.markdown.searchable import Searchable

        texts = self.query(".-marked, .-marked Searchable").results(Searchable)
        found = [(text, line) for text in texts for line in text.find(place.pattern)]
        if found:
            text, line = found[min(place.occurrence, len(found) - 1)]
            top = text.content_region.y - self.content_region.y + self.scroll_offset.y
            self.scroll_to(y=max(top + line - self.size.height // 3, 0), animate=False)

    def move_mark(self, step: int) -> None:
        """Mark the message before (-1) or after (1) the marked one."""
        parts: list[tuple[Turn, Part]] = [
            (question.turn, part) for question, _ in self._views for part in ("question", "answer")
        ]
        if not parts:
            return
        at = parts.index(self._marked) + step if self._marked in parts else len(parts) - 1
        if at < 0 and self._first and not self._loading:
            self._loading = True
            self.call_later(self._load_older)
        self.mark(*parts[min(max(at, 0), len(parts) - 1)])

    # ---- loading

    async def _load_older(self) -> None:
        first = max(self._first - WINDOW, 0)
        pairs = [self._view(turn) for turn in self._turns[first : self._first]]
        anchor = self.children[0] if self.children else None
        gone, before = self._views[MOST - len(pairs) :], self.virtual_size.height
        self._first, self._views = first, [*pairs, *self._views[: MOST - len(pairs)]]
        await self.mount_all([widget for pair in pairs for widget in pair], before=anchor)
        after_refresh(self, self._keep_place, before, gone)

    async def _keep_place(self, before: int, gone: Sequence[Pair]) -> None:
        """Show the same lines as before something came or went above them; what is below them may go then.

        before: how high all of it was.
        """
        super().release_anchor()
        self.scroll_to(y=self.scroll_y + self.virtual_size.height - before, animate=False, immediate=True)
        await self._unmount(gone)
        self._loading = False

    async def _load_newer(self) -> None:
        start = self._first + len(self._views)
        pairs = [self._view(turn) for turn in self._turns[start : start + WINDOW]]
        after: Widget | None = self._views[-1][1] if self._views else None
        self._views += pairs
        await self.mount_all([widget for pair in pairs for widget in pair], after=after)
        after_refresh(self, self._let_older_go)

    async def _let_older_go(self) -> None:
        gone, before = self._views[:-MOST], self.virtual_size.height
        if not gone:
            self._loading = False
            return
        self._first, self._views = self._first + len(gone), self._views[-MOST:]
        await self._unmount(gone)
        after_refresh(self, self._keep_place, before, ())

    async def _unmount(self, views: Sequence[Pair]) -> None:
        """What another chat has taken the place of has gone already."""
        await self.remove_children([widget for pair in views for widget in pair if widget.parent is self])

    def _view(self, turn: Turn) -> Pair:
        from squish.tui.widgets.chat.turns import AnswerView, QuestionView  # with Markdown, without which a chat begins

        return QuestionView(turn), AnswerView(turn, lambda: self.following)

    def _report(self) -> None:
        if self.following != self._reported:
            self._reported = self.following
            self.post_message(FollowingChanged(self.following))
        # Also where nothing changed since the last report: text may have come while it was let go for a moment.
        if self.following and self._views and (live := self._views[-1][1].live):
            live.resume()
