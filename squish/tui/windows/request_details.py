"""The window of one request: where its time goes, its tokens, what it asked for and who asks. It follows one that runs.

The text of its prompt and its answer is shown where the user has switched that on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Static

from squish import figures
from squish.generation import CUT, REASONS, FinishReason
from squish.sessions.activity import RequestStatus
from squish.sessions.request_texts import RequestTexts
from squish.text import clean
from squish.tui import theme
from squish.tui.server.request_state import STATES
from squish.tui.windows.window import Window

_TICK = 0.5
_SHOWN: tuple[FinishReason, ...] = (*CUT, "tool_calls")  # the state beside it says the others

Section = tuple[str, list[tuple[str, str]]]


class RequestScreen(Window[None]):
    """read: the request as it is now, or None once it was dropped: then the last figures stay.

    texts: what it asked and was answered, where that is kept.
    """

    CSS_PATH = "request_details.tcss"
    BINDINGS: ClassVar = [Binding("escape,enter,q", "dismiss", "Close", id="request.close", priority=True)]

    def __init__(
        self,
        request: RequestStatus,
        read: Callable[[], RequestStatus | None],
        texts: Callable[[], RequestTexts | None],
    ) -> None:
        super().__init__()
        self._request, self._read, self._texts = request, read, texts

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="request") as box:
            box.border_title = f"Request {self._request.id}"
            box.border_subtitle = "↑↓ scroll · esc close"
            yield Static(id="rows")

    def on_mount(self) -> None:
        self._show()
        self.set_interval(_TICK, self._tick)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._show())

    def _tick(self) -> None:
        if self._request.running:
            self._request = self._read() or self._request
            self._show()

    def _show(self) -> None:
        colors = theme.opaque(self.app.theme_variables)
        word, color = STATES[self._request.state]
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=10)
        table.add_column(overflow="fold")
        reasons = ", ".join(REASONS[each] for each in self._request.details.reasons if each in _SHOWN)
        state = Text.assemble((word, colors.get(color, "")), f" · {reasons}" if reasons else "")
        table.add_row("State", state)
        for title, rows in sections(self._request):
            if title:
                table.add_row("", "")
                table.add_row(Text(title, f"bold {colors.get('text-primary', '')}"), "")
            for name, value in rows:
                table.add_row(Text(name), Text(value))
        self.query_one("#rows", Static).update(Group(table, *_kept(self._texts(), colors.get("text-primary", ""))))


def _kept(texts: RequestTexts | None, color: str) -> Iterator[Text]:
    """What was asked and answered, clean, as far as it was kept."""
    if texts:
        for title, text in (("Asked", texts.asked), ("Answered", texts.answered)):
            yield Text(f"\n{title}", f"bold {color}")
            yield Text(clean(text) or "–")


def sections(request: RequestStatus) -> Iterator[Section]:
    """What the window says, as titles with rows of a name and a value; clean, so that it can be shown."""
    details = request.details
    asker = [("Model", clean(request.model)), ("Client", clean(request.client) or "this chat")]
    if details.key:
        asker.append(("Key", clean(details.key)))
    if details.background:
        asker.append(("Priority", "background: runs after all others"))
    if request.error:
        asker.append(("Error", clean(request.error)))
    yield "", asker
    yield "Time", _times(request)
    yield "Tokens", _tokens(request)
    if details.parameters:
        yield "Parameters", [(clean(each.name), clean(each.value)) for each in details.parameters]


def _times(request: RequestStatus) -> list[tuple[str, str]]:
    details = request.details
    decode = "–" if details.decode is None else figures.seconds(details.decode)
    speed = f" · {figures.speed(request.tps)}" if request.tps else ""
    counted = "counted in TTFT" if details.with_queue else ""  # by a server that says nothing of it
    return [
        ("Queue", counted or figures.seconds(details.queued)),
        ("Load", figures.seconds(details.loading) if details.loading or not counted else counted),
        ("TTFT", "–" if request.ttft is None else figures.seconds(request.ttft)),
        ("Decode", decode + speed),
        ("Total", figures.seconds(request.seconds)),
    ]


def _tokens(request: RequestStatus) -> list[tuple[str, str]]:
    details = request.details
    thought = f", {details.reasoning_tokens:,} of them thinking" if details.reasoning_tokens else ""
    # The engine says what was cached and guessed with the last event of a row; another server may not say it.
    said = not request.running and (details.cached_tokens or not details.with_queue)
    cached = f", {details.cached_tokens:,} of them cached" if said else ""
    rows = [("Rows", str(request.rows))] if request.rows > 1 else []
    rows.append(("Prompt", f"{request.prompt_tokens:,}{cached}" if request.prompt_tokens else "–"))
    rows.append(("Completion", f"{request.completion_tokens:,}{thought}"))
    if details.guessed_tokens:
        rows.append(("Drafted", f"{details.guessed_tokens:,}, {details.accepted_tokens:,} of them accepted"))
    return rows
