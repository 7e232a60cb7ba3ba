"""Calls of tools on the screen: those that an answer made, and the question whether one may be made."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from squish import figures
from squish.chats.messages import CalledTool, Outcome, ToolStep
from squish.text import clean, visible
from squish.tui.chat.answer_tasks import Decision
from squish.tui.key_hints import key
from squish.tui.messages import CallDecided
from squish.tui.widgets.chat.typed_elsewhere import TypedElsewhere
from squish.tui.widgets.facts import FactLines
from squish.tui.widgets.row_list import RowList

_ARGUMENTS = 60  # characters of them in a folded call
_REASON = 80  # and of why it failed
_UNFOLDED = 4_000  # characters of a result in an unfolded one
_SIGNS: dict[Outcome, str] = {
    "waiting": "◌ waiting",
    "running": "◐ running",
    "done": "✓",
    "failed": "✕ failed",
    "refused": "⊘ refused",
    "stopped": "■ stopped",
}
_DECISIONS: tuple[tuple[Decision, str], ...] = (
    ("once", "Allow once"),
    ("chat", "Allow in this chat"),
    ("always", "Always allow this tool"),
    ("refuse", "Refuse; the model continues without it"),
)


class StepView(Vertical):
    """What was said before calls, and the calls, each on a line; unfolded with all they were given and gave."""

    def __init__(self, step: ToolStep) -> None:
        super().__init__(classes="step")
        self._step, self._unfolded = step, False
        self._calls = FactLines(_calls(step, False), classes="calls")

    def compose(self) -> ComposeResult:
        if text := clean(self._step.text).strip():
            from squish.tui.widgets.markdown.live import frozen

            yield frozen(self.app, text)
        yield self._calls

    def show(self, step: ToolStep) -> None:
        """The calls as they stand now."""
        if step is not self._step:
            self._step = step
            self._calls.say(_calls(step, self._unfolded))

    def fold(self, unfolded: bool) -> None:
        self._unfolded = unfolded
        self._calls.say(_calls(self._step, unfolded))

    def on_click(self, event: object) -> None:
        if self._calls.is_mouse_over:
            self.fold(not self._unfolded)


class CallQuestion(Vertical, TypedElsewhere):
    """Asks about one call at a time; hidden where there is none. Posts CallDecided, and Typed for the prompt."""

    def __init__(self) -> None:
        super().__init__(id="call")
        self.call: CalledTool | None = None
        self.display = False
        self._arguments = Static(markup=False)
        self._reading = VerticalScroll(self._arguments, can_focus=False)
        self._decisions = RowList(*(Option(label) for _, label in _DECISIONS), markup=False, compact=True)

    def show(self, call: CalledTool | None) -> None:
        """Ask about this call, or about none."""
        if call is self.call:
            return
        self.call, self.display = call, call is not None
        if call is not None:
            self.border_title = Content(f"⚙ May {clean(call.tool)} be called?")
            here, on, stop = (key(self.app, f"chat.{each}") for each in ("answer_call", "page_down", "stop"))
            self.border_subtitle = Content(f"{here} here · {on} more · enter choose · {stop} stop")
            if not self.children:  # made when they are first wanted: most chats use no tools
                self.mount(self._reading, self._decisions)
            self._arguments.update(_readable(call.arguments))
            self._decisions.highlighted = 0

    def page(self, step: int) -> None:
        """Show more of the arguments."""
        scroll = self._reading.scroll_page_down if step > 0 else self._reading.scroll_page_up
        scroll(animate=False)

    def focus_list(self) -> None:
        self.screen.set_focus(self._decisions)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(CallDecided(_DECISIONS[event.option_index][0]))


def _calls(step: ToolStep, unfolded: bool) -> Content:
    lines: list[Content] = []
    for call in step.calls:
        sign = "▾" if unfolded else "▸"
        head = f"{sign} ⚙ {clean(call.tool or call.name)}"
        if unfolded:
            lines.append(Content.assemble((f"{head} {_SIGNS[call.outcome]}", "bold")))
            lines.append(Content(_indented(_readable(call.arguments))))
            lines.append(Content.styled(_indented(_cut(call.result)), "$foreground-muted"))
        else:
            lines.append(
                Content.assemble(
                    (head, "bold"), f" {_cut_to(call.arguments, _ARGUMENTS)} · ", (_said(call), _color(call))
                )
            )
    return Content("\n").join(lines)


def _said(call: CalledTool) -> str:
    """How a call stands: `✓ 3 lines · 120 B`."""
    if call.outcome == "failed":
        return f"{_SIGNS['failed']}: {_cut_to(call.result, _REASON)}" if call.result else _SIGNS["failed"]
    if call.outcome != "done":
        return _SIGNS[call.outcome]
    lines = call.result.count("\n") + 1
    size = figures.size(len(call.result.encode()))
    return f"{_SIGNS['done']} {size}" if lines == 1 else f"{_SIGNS['done']} {lines} lines · {size}"


def _color(call: CalledTool) -> str:
    return "$text-error" if call.outcome == "failed" else "$foreground-muted"


def _cut_to(text: str, most: int) -> str:
    line = " ".join(visible(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _readable(arguments: str) -> str:
    """All of them: what is agreed to has to be seen."""
    from squish.mcp.tools import readable

    return readable(arguments)


def _cut(result: str) -> str:
    text = clean(result)
    return text if len(text) <= _UNFOLDED else f"{text[:_UNFOLDED]}\n… {len(text) - _UNFOLDED:,} characters more"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
