"""The list of downloads, as the drawer and the models screen show it."""

from __future__ import annotations

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
from squish.tui.download_words import LOOKS, look, seconds
from squish.tui.downloads import Downloads, Transfer
from squish.tui.messages import CancelDownload, DownloadModel, UseModel
from squish.tui.scheduling import after_refresh
from squish.tui.widgets.row_list import RowList

_BARS = (16, 8)


def row(transfer: Transfer, width: int, app: App[Any]) -> Content:
    """Two lines: the name and what happens; how far it is, or why it failed."""
    (symbol, word), style = look(transfer), LOOKS[transfer.state][2]
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
    fraction, waited = transfer.fraction, seconds(transfer)
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
