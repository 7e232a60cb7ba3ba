"""The list of downloads, as the drawer and the models screen show it, and one line of it for the status strip."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from textual import on
from textual.app import App
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from squish import figures
from squish.pull.events import IN_STEPS, amount
from squish.text import clean
from squish.tui import actions
from squish.tui.advice import hint
from squish.tui.background import Background
from squish.tui.downloads import Downloads, State, Transfer
from squish.tui.messages import CancelDownload, DownloadModel, UseModel
from squish.tui.scheduling import after_refresh
from squish.tui.widgets.row_list import RowList

_BARS = (16, 8)

_LOOKS: dict[State, tuple[str, str, str]] = {
    "waiting": ("◌", "queued", "$text-warning"),
    "running": ("⇣", "", "$text-primary"),
    "paused": ("‖", "paused", "$text-warning"),
    "failed": ("✕", "failed", "$text-error"),
    "done": ("✓", "installed", "$text-success"),
}
_PHASES = {
    "resolve": "asking the Hub",
    "download": "downloading",
    "score": "choosing bits",
    "compress": "compressing",
    "import": "importing",
    "measure": "measuring",
    "verify": "verifying",
}


_READING = "reading"


def look(transfer: Transfer) -> tuple[str, str]:
    """Symbol and word of what it does."""
    symbol, word, _ = _LOOKS[transfer.state]
    if transfer.phase == "resolve" and transfer.is_import:  # a model on this machine: nobody is asked for it
        return symbol, word or _READING
    return symbol, word or _PHASES[transfer.phase]


def how_far(transfer: Transfer) -> str:
    """`63 %`, and the seconds of its phase as long as nobody can say when it ends: `12 s`, `100 % · 3 s`."""
    share = figures.percent(transfer.fraction) if transfer.fraction and transfer.done else ""
    return " · ".join(filter(None, (share, _waited(transfer) if transfer.eta is None else "")))


def _waited(transfer: Transfer) -> str:
    return figures.waited(transfer.in_phase) if transfer.in_phase >= 1 else ""


def one_line(transfers: Sequence[Transfer]) -> Background:
    """What runs, all of it together: `⇣2 63 % 41 MB/s 1 min 12 s left`, or `⇣1 importing 63 % 12 s`, that have gone by.

    What is paused or failed when nothing runs.
    """
    running = [each for each in transfers if each.active]
    if not running:
        failed, paused = (sum(each.state == state for each in transfers) for state in ("failed", "paused"))
        return Background(f"⇣{failed} failed" if failed else f"⇣{paused} paused" if paused else "")
    pieces = list[str]()
    known = [each for each in running if each.total and (each.phase not in IN_STEPS or len(running) == 1)]
    done, total = sum(each.done for each in known), sum(each.total for each in known)
    if not done or (len(running) == 1 and running[0].phase != "download"):
        pieces.append(look(running[0])[1])
    if done:
        pieces.append(figures.percent(done / total))
    if speed := sum(each.speed or 0 for each in running):
        pieces.append(f"{figures.size(int(speed))}/s")
    if times := [each.eta for each in running if each.eta is not None]:
        pieces.append(f"{figures.waited(max(times))} left")
    else:
        pieces += filter(None, [_waited(max(running, key=lambda each: each.in_phase))])
    return Background(f"⇣{len(running)}", " ".join(pieces))


def row(transfer: Transfer, width: int, app: App[Any]) -> Content:
    """Two lines: the name and what happens; how far it is, or why it failed."""
    (symbol, word), style = look(transfer), _LOOKS[transfer.state][2]
    state = Content.styled(word, style)
    name = Content(clean(transfer.id)).truncate(max(width - state.cell_length - 4, 8), ellipsis=True, pad=True)
    first = Content.assemble((f"{symbol} ", style), name.stylize("bold"), "  ", state)
    if transfer.error:
        why = f"{clean(transfer.error.message)} {hint(transfer.error, app)}".strip()
        return Content.assemble(first, (_indented(why, width), "$foreground-muted"))
    second = Content.assemble("\n  ", (_figures(transfer, width), "$foreground-muted"))
    notice = _indented(clean(transfer.notice), width) if transfer.notice else ""
    return Content.assemble(first, second, (notice, "$foreground-muted"))


def _indented(text: str, width: int) -> str:
    """Lines of a text below the name that they are about."""
    return "".join(f"\n  {line}" for line in wrap(text, width - 2))


def _figures(transfer: Transfer, width: int) -> str:
    if transfer.state == "done":
        return figures.size(transfer.total)
    fraction, waited = transfer.fraction, _waited(transfer)
    if fraction is None or not transfer.done:  # nothing to measure by: only the seconds move
        whole = figures.size(transfer.total) if transfer.total and transfer.phase not in IN_STEPS else "…"
        so_far = f"{figures.size(transfer.done)} so far" if transfer.done else whole
        return " · ".join(filter(None, (so_far, waited)))
    pieces = [figures.percent(fraction), amount(transfer.phase, transfer.done, transfer.total)]
    if transfer.speed:
        pieces.append(f"{figures.size(int(transfer.speed))}/s")
    if transfer.eta is not None:
        pieces.append(f"{figures.waited(transfer.eta)} left")
    elif waited:
        pieces.append(waited)
    told = " · ".join(pieces)
    bar = next((each for each in _BARS if each + 1 + len(told) <= width - 2), 0)
    return f"{figures.bar(fraction, bar)} {told}".lstrip()


class TransferList(RowList):
    """The downloads, the oldest first; keys act on the marked one. It is filled when its screen shows downloads."""

    BINDINGS = actions.bindings("downloads")

    def __init__(self, downloads: Downloads) -> None:
        super().__init__(id="transfers", markup=False, compact=True)
        self._downloads = downloads
        self._shown: tuple[Transfer, ...] = ()
        self._rows: list[Content] = []
        self._can: tuple[bool, ...] = ()

    def on_mount(self) -> None:
        after_refresh(self, self.refill)

    @property
    def marked(self) -> Transfer | None:
        return self._shown[self.highlighted] if self.highlighted is not None and self._shown else None

    def refill(self) -> None:
        """Show how things are now; the mark stays where it is."""
        transfers, width = self._downloads.transfers, max(self.content_size.width - 2, 20)
        rows = [row(each, width, self.app) for each in transfers]
        if transfers != self._shown:
            marked = self.marked
            self._shown, self._rows = transfers, rows
            self.set_options([Option(each) for each in rows])
            if transfers:
                self.highlighted = transfers.index(marked) if marked in transfers else 0
            # Textual forgets a layout that is asked for while an earlier one is due: ask again when that is done.
            after_refresh(self, self.refresh, layout=True)
        for at, (old, new) in enumerate(zip(self._rows, rows, strict=True)):
            if not old.is_same(new):
                self.replace_option_prompt_at_index(at, new)
        self._rows = rows
        can = tuple(bool(self.check_action(name, ())) for name in ("pause", "resume", "cancel", "use"))
        if can != self._can:
            self._can = can
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        transfer = self.marked
        match action:
            case "pause":
                return transfer is not None and transfer.active
            case "resume":
                return transfer is not None and transfer.state in ("paused", "failed")
            case "cancel":
                return transfer is not None
            case "use":
                return transfer is not None and transfer.state == "done"
        return True

    async def action_pause(self) -> None:
        if self.marked:
            await self._downloads.pause(self.marked)
            self.refill()

    def action_resume(self) -> None:
        if self.marked:
            self.post_message(DownloadModel(self.marked.name))

    def action_cancel(self) -> None:
        if self.marked:
            self.post_message(CancelDownload(self.marked))

    def action_use(self) -> None:
        if self.marked:
            self.post_message(UseModel(self.marked.id))

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if self.check_action("use", ()):
            self.action_use()
        elif self.check_action("resume", ()):
            self.action_resume()
