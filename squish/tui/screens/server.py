"""The server: the API on this app's own session manager, who asks it for what, and the end of its log.

No text of a request is kept or shown unless the user switches that on. State changes only in the handlers.
"""

from __future__ import annotations

import time
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.content import Content
from textual.events import Key
from textual.widgets import RichLog, Static

from squish import figures
from squish.generation import is_title
from squish.sessions.activity import RequestStatus, Totals
from squish.sessions.backend import Backend, KeepsTexts
from squish.sessions.request_texts import RequestTexts
from squish.text import clean
from squish.tui import actions, status_facts, theme
from squish.tui.advice import hint
from squish.tui.fitted_screen import FittedScreen
from squish.tui.key_hints import key
from squish.tui.memory_readings import MemoryReadings
from squish.tui.server.api_server import ShownServer
from squish.tui.server.load_history import LoadHistory
from squish.tui.server.request_state import STATES
from squish.tui.short_names import short
from squish.tui.terminal import clipboard
from squish.tui.widgets.facts import FactLines
from squish.tui.widgets.keys import Keys
from squish.tui.widgets.places import Places
from squish.tui.widgets.status import StatusStrip
from squish.tui.widgets.table import Column, Table
from squish.tui.windows.request_details import RequestScreen

TICK = 0.5
_TALL = 22  # lines, from which the charts have room
_TIME_FROM = 84  # columns of the screen

_COLUMNS = (
    Column("From", 0),
    Column("Model", 16, from_width=76),
    Column("In → out", 12, right=True),
    Column("TTFT", 7, right=True, from_width=68),
    Column("tok/s", 5, right=True, from_width=100),
    Column("Time", 10, right=True, from_width=_TIME_FROM),
    Column("State", 15),
)


class ServerScreen(FittedScreen[None]):
    """What the server is, its requests, its log."""

    CSS_PATH: ClassVar = ["panels.tcss", "server.tcss"]
    BINDINGS = actions.bindings("server")
    AUTO_FOCUS = "Table"

    def __init__(self, runtime: Backend, machine: MemoryReadings, server: ShownServer, history: LoadHistory) -> None:
        super().__init__()
        self._runtime, self._machine, self._server, self._history = runtime, machine, server, history
        self._lines = 0
        self._can: tuple[bool, ...] = ()
        self._state_since = server.state, time.monotonic()

    def compose(self) -> ComposeResult:
        yield StatusStrip()
        yield Places("server")
        yield FactLines(id="state")
        yield Table(_COLUMNS, id="requests")
        yield Static("No requests yet. The chat's own are shown here, too.", id="nothing", markup=False)
        yield RichLog(id="log", max_lines=200, markup=False, highlight=False, wrap=True, min_width=20, auto_scroll=True)
        yield Keys()

    def on_mount(self) -> None:
        log = self.query_one(RichLog)
        log.border_title = "Log"
        log.can_focus = False
        self.set_interval(TICK, self._tick)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._tick())

    def on_screen_resume(self) -> None:
        self._show()

    # ---- what the keys do

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "start_or_stop":
                return self._server.ours
            case "next_port":
                return self._server.ours and self._server.state in ("off", "failed")
            case "copy_address":
                return self._server.state in ("on", "connected")
            case "details":
                return self._marked is not None
            case "texts":
                return isinstance(self._runtime.sessions, KeepsTexts)
            case "cancel":
                return (marked := self._marked) is not None and marked.running
        return True

    def action_start_or_stop(self) -> None:
        if self._server.state in ("on", "starting"):
            self._server.stop()
        else:
            self._server.start()
        self._show()

    def action_next_port(self) -> None:
        self._server.next_port()
        self._show()

    def action_cancel(self) -> None:
        if self._marked:
            self._runtime.sessions.cancel(self._marked.id)
            self._show()

    def on_key(self, event: Key) -> None:
        """The key that cancels a request says so of one that has ended."""
        cancels = any(each.id == "server.cancel" for each in self._bindings.key_to_bindings.get(event.key, ()))
        if cancels and (marked := self._marked) and not marked.running:
            others = any(each.running for each in self._runtime.sessions.activity())
            self.app.notify(f"The marked request has ended.{' ↑ and ↓ mark another.' * others}", markup=False)

    def action_details(self) -> None:
        if request := self._marked:
            self.app.push_screen(
                RequestScreen(request, partial(self._request, str(request.id)), partial(self._texts, request.id))
            )

    def _texts(self, request: int) -> RequestTexts | None:
        sessions = self._runtime.sessions
        return sessions.texts(request) if isinstance(sessions, KeepsTexts) else None

    def action_texts(self) -> None:
        """Keep the texts of requests in memory from now on, or forget them."""
        if isinstance(self._runtime.sessions, KeepsTexts):
            self._runtime.sessions.keep_texts(not self._runtime.sessions.keeps_texts)
            self._show()

    async def action_copy_address(self) -> None:
        text = f"{self._server.url}/v1"
        await clipboard.put(text, self.app.copy_to_clipboard)
        self.app.notify(f"Copied {text}", markup=False)

    # ---- what is shown

    @property
    def _marked(self) -> RequestStatus | None:
        tables = self.query(Table)
        return self._request(tables.first().marked) if tables else None

    def _request(self, id: str | None) -> RequestStatus | None:
        return next((each for each in self._runtime.sessions.activity() if str(each.id) == id), None)

    def _tick(self) -> None:
        if self.is_current:
            self._show()

    def _show(self) -> None:
        requests = self._runtime.sessions.activity()
        self.query_one(StatusStrip).facts = status_facts.of_models(self._runtime.sessions.status(), self._machine)
        first = _state(self._server, self.app, self._changing_for())
        state = Content("\n").join([first, _counts(requests, self._runtime.sessions.totals())])
        if isinstance(self._runtime.sessions, KeepsTexts) and self._runtime.sessions.keeps_texts:
            state = Content("\n").join([state, Content.styled(self._texts_kept(), "$text-warning")])
        if self.size.height >= _TALL and len(self._history.points) > 1:
            state = Content("\n").join([state, _charts(self._history, self.size.width)])
        self.query_one("#state", FactLines).say(state)
        table = self.query_one(Table)
        table.fill([(str(each.id), self._row(each)) for each in reversed(requests)])
        table.display = bool(requests)
        self.query_one("#nothing").display = not requests
        self._show_log()
        can = tuple(bool(self.check_action(each, ())) for each in ("next_port", "copy_address", "details", "cancel"))
        if can != self._can:
            self._can = can
            self.refresh_bindings()

    def _texts_kept(self) -> str:
        off = key(self.app, "server.texts")
        return f"⚠ prompts and answers of new requests are kept in memory · {off} forgets them"

    def _show_log(self) -> None:
        log, new = self.query_one(RichLog), self._server.lines_seen - self._lines
        log.display = bool(self._server.lines_seen) and self.size.height >= 16
        if new and log.display:
            for line in list(self._server.log)[-new:]:
                log.write(Text(line), expand=True)
            self._lines = self._server.lines_seen

    def _row(self, request: RequestStatus) -> tuple[Text, ...]:
        color = STATES[request.state][1]
        rows = f" ×{request.rows}" if request.rows > 1 else ""
        colors = theme.opaque(self.app.theme_variables)
        ours = is_title(request.client)  # nobody asked for it: it steps back behind what somebody did
        muted = colors.get("foreground-muted", "") if ours else ""
        asked = figures.count(request.prompt_tokens) if request.prompt_tokens else "–"  # not known yet, or never
        cells = (
            "↳ chat title" if ours else clean(request.client.removeprefix("/v1/") or "this chat") + rows,
            short(request.model),
            f"{asked} → {figures.count(request.completion_tokens)}",
            figures.seconds(request.ttft) if request.ttft is not None else "–",
            f"{request.tps:.0f}" if request.tps else "–",
            figures.seconds(request.seconds),
        )
        return (*(Text(each, muted) for each in cells), Text(self._word(request), muted or colors.get(color, "")))

    def _word(self, request: RequestStatus) -> str:
        """Its state, with seconds where the column of the time has no room: what runs must be seen to go on."""
        word = STATES[request.state][0]
        narrow = request.running and self.size.width < _TIME_FROM
        if not narrow:
            return word
        said = word if request.seconds < 60 else word[0]  # what the column holds
        return f"{said} {figures.waited(request.seconds)}"

    def _changing_for(self) -> float:
        """Seconds that the server has been in its state."""
        if self._server.state != self._state_since[0]:
            self._state_since = self._server.state, time.monotonic()
        return time.monotonic() - self._state_since[1]


def _state(server: ShownServer, app: App[None], seconds: float) -> Content:
    """What the server is, and where. seconds: how long it has been so."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    match server.state:
        case "on":
            return _address("● on  ", f"{server.url}/v1", server.about)
        case "connected":
            return _address("● connected  ", server.url, server.about)
        case "failed" | "lost" if server.error:
            advised = f" {hint(server.error, app)}".rstrip()
            return Content.assemble(
                ("✕ ", "bold $text-error"), clean(server.error.message), (advised, "$foreground-muted")
            )
        case "starting" | "stopping":
            return Content.styled(f"◌ {server.state} … {figures.waited(seconds)}", "$text-warning")
        case _:
            return Content.assemble(
                ("○ off  ", "bold $foreground-muted"),
                (key(app, "server.toggle"), "bold $text-accent"),
                f" serves your models to other programs at http://{host}:{server.port}/v1",
            )


def _address(state: str, url: str, about: str) -> Content:
    return Content.assemble(
        (state, "bold $text-success"), (clean(url), "bold"), (f"  {clean(about)}", "$foreground-muted")
    )


def _counts(requests: list[RequestStatus], totals: Totals) -> Content:
    """How many requests are where now, and what became of all others."""
    running = sum(each.state in ("loading", "prefill", "writing") for each in requests)
    queued = sum(each.state == "queued" for each in requests)
    pieces = [f"{running} running", f"{queued} queued"]
    pieces += [f"{totals.done} done", f"{totals.stopped} stopped", f"{totals.failed} failed"]
    if now := sum(each.tps for each in requests if each.running):
        pieces.append(figures.speed(now))
    return Content.styled(" · ".join(pieces), "$foreground-muted")


def _charts(history: LoadHistory, width: int) -> Content:
    """Tokens per second, requests in line and the machine's memory over the last minutes, as far as they have room."""
    points = list(history.points)[-max((width - 52) // 3, 4) :]
    last = points[-1]
    charts = [
        (figures.sparkline([each.speed for each in points]), figures.speed(last.speed)),
        (figures.sparkline([each.queue for each in points]), f"{last.queue} queued"),
    ]
    if last.memory is not None:
        used = [each.memory.used if each.memory else 0 for each in points]
        memory = figures.sparkline(used, full=last.memory.total)
        charts.append((memory, f"memory {figures.of_total(last.memory.used, last.memory.total)}"))
    pieces = [
        Content.assemble((columns, "$text-primary"), (f" {says}", "$foreground-muted")) for columns, says in charts
    ]
    return Content("  ").join(pieces)
