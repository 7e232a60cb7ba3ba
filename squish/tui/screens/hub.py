"""The hub: find a model, see whether it fits and why, download it with one key.

The catalog is there at once; what the Hub knows comes while one writes. State changes only in the handlers.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.widgets import DataTable, Input, Static

from squish import fit, search
from squish.errors import EngineError, HubUnreachable, Offline, SquishError
from squish.runtime import Runtime
from squish.search import Found, Wanted
from squish.text import clean
from squish.tui import actions, figures, finds, summary, variants
from squish.tui.downloads import Downloads
from squish.tui.finds import FIRST_RUN, Choice
from squish.tui.machine import Machine
from squish.tui.messages import DownloadModel, HubAnswered, MachineRead, UseModel
from squish.tui.screens.card import CardScreen
from squish.tui.screens.confirm import ConfirmScreen
from squish.tui.widgets import transfers
from squish.tui.widgets.card import FIT_LOOKS, ModelCard
from squish.tui.widgets.keys import Keys
from squish.tui.widgets.places import Places
from squish.tui.widgets.status import StatusStrip
from squish.tui.widgets.table import Column, Table

DEBOUNCE = 0.3
TICK = 0.5
LIMIT = 100

_COLUMNS = (
    Column("Model", 0),
    Column("Params", 6, right=True),
    Column("Bits", 4, right=True, from_width=72),
    Column("Disk", 7, right=True),
    Column("RAM", 7, right=True, from_width=84),
    Column("Fit", 7),
    Column("↓", 5, right=True, from_width=72),
)


class HubScreen(Screen[None]):
    """A search, a table and the card of the marked row."""

    CSS_PATH: ClassVar = ["panels.tcss", "hub.tcss"]
    BINDINGS = actions.bindings("hub")
    AUTO_FOCUS = "Table"

    def __init__(self, runtime: Runtime, machine: Machine, downloads: Downloads) -> None:
        super().__init__()
        self.VERTICAL_BREAKPOINTS = [(0, "-low"), (23, "-tall")]
        self._runtime, self._reader, self._downloads = runtime, machine, downloads
        self._machine: fit.Machine | None = None
        self._choice = Choice()
        self._number = 0
        self._found: dict[str, Found] = {}
        self._hub: tuple[Found, ...] = ()
        self._searching = False
        self._error: SquishError | None = None
        self._first_run = False

    def compose(self) -> ComposeResult:
        yield StatusStrip()
        yield Places("hub")
        yield Static(id="first", markup=False)
        yield Input(placeholder="Search models, or name one: org/repo", compact=True, id="search")
        yield Static(id="filters", markup=False)
        yield Table(_COLUMNS, id="finds")
        yield ModelCard()
        yield Keys()

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = self.app.animation_level != "none"
        self._first_run = not self._installed()
        if self._first_run:
            self._choice = FIRST_RUN
        self.set_interval(TICK, self._tick)
        self._search()

    def on_screen_resume(self) -> None:
        self.run_worker(self._read_machine(), group="machine", exit_on_error=False)

    # ---- searching

    @on(Input.Changed)
    def _search(self) -> None:
        """Show what is known here at once, and ask the Hub when nothing is written for a moment."""
        self._number += 1
        self._searching, self._error = True, None
        self.run_worker(self._ask_hub(self._number, self._query), group="search", exit_on_error=False)
        self._show()

    @property
    def _query(self) -> str:
        return " ".join(self.query_one(Input).value.split())

    async def _ask_hub(self, number: int, query: str) -> None:
        wanted = Wanted(query, limit=LIMIT)
        found: list[Found] = []
        failure: SquishError | None = None
        try:
            if number > 1 and not self._runtime.settings.offline:
                await asyncio.sleep(DEBOUNCE)
                if number != self._number:  # more was written
                    return
            found = await asyncio.to_thread(search.everywhere, wanted, self._runtime.settings)
        except SquishError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the search down
            failure = EngineError(f"Something went wrong inside Squish ({type(error).__name__}).")
        self.post_message(HubAnswered(number, tuple(found), failure))

    @on(HubAnswered)
    def _hub_answered(self, event: HubAnswered) -> None:
        if event.number == self._number:
            self._searching, self._error, self._hub = False, event.error, event.found
            self._show()

    async def _read_machine(self) -> None:
        self.post_message(MachineRead(await asyncio.to_thread(self._reader.for_models)))

    @on(MachineRead)
    def _machine_read(self, event: MachineRead) -> None:
        self._machine = event.machine
        self._show()

    # ---- what the keys do

    def action_search(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.query_one(Table).focus()

    def key_down(self) -> None:
        if self.query_one(Input).has_focus:
            self.query_one(Table).focus()

    def key_escape(self) -> None:
        search_box = self.query_one(Input)
        if search_box.has_focus:
            self.query_one(Table).focus()
        else:
            search_box.value = ""

    def action_cycle(self, what: str) -> None:
        self._choice = self._choice.next(what)
        self._show()

    def action_context(self, steps: int) -> None:
        self._choice = self._choice.moved_context(steps)
        self._show()

    def action_download(self) -> None:
        """Download the marked model; what does not fit is asked about, and what is installed is chatted with."""
        find = self._marked
        if find is None or self._machine is None:
            return
        if find.name in self._installed():
            self.post_message(UseModel(find.name))
        elif finds.verdict(find, self._choice.context, self._machine) == "no":
            text = f"{clean(find.name)} does not fit into this machine's memory. Download {figures.size(find.size)}?"
            self.app.push_screen(ConfirmScreen("It does not fit", text, "Download"), self._confirmed)
        else:
            self._begin(find)

    def _confirmed(self, yes: bool | None) -> None:
        if yes and self._marked:
            self._begin(self._marked)

    def _begin(self, find: Found) -> None:
        """Download a model; of a repository with several GGUF files one is chosen first."""
        if variants.may_differ(find):
            self._open_card(find, choosing=True)
        else:
            self._download(find.name)

    def action_card(self) -> None:
        if self._marked:
            self._open_card(self._marked, choosing=False)

    def _open_card(self, find: Found, choosing: bool) -> None:
        if self._machine:
            settings, context = self._runtime.settings, self._choice.context
            self.app.push_screen(CardScreen(find, context, self._machine, settings, choosing), self._download)

    def _download(self, name: str | None) -> None:
        if name and name in self._installed():
            self.post_message(UseModel(name))
        elif name:
            self.post_message(DownloadModel(name))
            self._show()

    # ---- what is shown

    @property
    def _marked(self) -> Found | None:
        return self._found.get(self.query_one(Table).marked or "")

    def _installed(self) -> frozenset[str]:
        try:
            return frozenset(manifest.id for manifest in self._runtime.store.list())
        except SquishError:  # the models screen says why
            return frozenset()

    def _tick(self) -> None:
        if self.is_current:
            self._show()

    def _show(self) -> None:
        statuses = self._runtime.sessions.status()
        self.query_one(StatusStrip).facts = summary.of_models(statuses, self._reader)
        self._show_first_run()
        if self._machine is None:
            return
        known = search.offline(Wanted(self._query, limit=LIMIT * 10), self._runtime.settings)
        everything = finds.merged(known, self._hub)
        everything += finds.exact(self._query, everything)
        shown = finds.chosen(everything, self._choice, self._machine)
        self._found = {each.name: each for each in shown}
        installed = self._installed()
        table = self.query_one(Table)
        table.fill([(each.name, self._row(each, each.name in installed, self._machine)) for each in shown])
        self.query_one("#filters", Static).update(self._filter_line(len(shown), len(everything)))
        self._show_card()

    @on(DataTable.RowHighlighted)
    def _show_card(self) -> None:
        card, find = self.query_one(ModelCard), self._marked
        if find and self._machine:
            card.show(find, self._choice.context, self._machine, self._state(find.name))
        else:
            card.show_nothing("Nothing is as large, as small or as named. Change the filters, or write less.")

    def _state(self, name: str) -> str:
        transfer = self._downloads.find(name)
        if transfer and transfer.state != "done":
            done = "" if transfer.fraction is None else f" {figures.percent(transfer.fraction)}"
            symbol, word = transfers.look(transfer)
            return f"{symbol} {word}{done}"
        return "✓ installed" if name in self._installed() else ""

    def _row(self, find: Found, installed: bool, machine: fit.Machine) -> tuple[Text, ...]:
        needs = finds.estimate(find, self._choice.context, machine)
        symbol, word, style = FIT_LOOKS[fit.verdict(needs, machine) if needs else None]
        state = self._state(find.name)[:1] if not installed else "✓"
        colors = self.app.theme_variables
        return (
            Text.assemble((f"{state or ' '} ", colors["success"]), clean(find.name)),
            Text(figures.parameters(find.parameters) if find.parameters else "?"),
            Text(f"{find.bits:.3g}" if find.bits else "?"),
            Text(figures.size(find.size) if find.size else "?"),
            Text(figures.size(needs.needed) if needs else "?"),
            Text(f"{symbol} {word}", colors[style.removeprefix("$")]),
            Text(figures.amount(find.downloads) if find.downloads is not None else ""),
        )

    def _filter_line(self, shown: int, all_: int) -> Content:
        choice = self._choice
        values = (
            ("f", finds.FITS[choice.fit][0], choice.fit),
            ("p", f"size {finds.PARAMETERS[choice.parameters][0]}" if choice.parameters else "size", choice.parameters),
            ("b", f"bits {finds.BITS[choice.bits][0]}" if choice.bits else "bits", choice.bits),
            ("s", finds.ORDERS[choice.order], choice.order),
        )
        pieces: list[Content | str | tuple[str, str]] = []
        for key, value, changed in values:
            pieces += [(f"{key} ", "bold $accent"), (value, "bold" if changed else "$foreground-muted"), "   "]
        count = f"{shown} of {all_}" if choice.narrow else f"{shown} model{'' if shown == 1 else 's'}"
        pieces.append((count, "$foreground-muted"))
        if self._searching:
            pieces.append(("   asking the Hub …", "$secondary"))
        elif self._error:
            pieces.append((f"\n✕ {_why(self._error)}: only the catalog is shown", "$warning"))
        return Content.assemble(*pieces)

    def _show_first_run(self) -> None:
        """Somebody without a model reads what to do."""
        banner = self.query_one("#first", Static)
        active = self._downloads.active
        banner.display = self._first_run and not self._installed()
        if active:
            name = clean(active[0].id)
            banner.update(f"{name} is on its way. The chat opens when it is here. ctrl+t shows how far it is.")
        else:
            banner.update(
                Content.assemble(
                    ("Welcome. ", "bold"),
                    "These models fit this machine, small ones first: ",
                    ("enter", "bold $accent"),
                    " downloads the marked one and opens the chat.",
                )
            )


def _why(error: SquishError) -> str:
    """An error of the Hub, short enough for a row."""
    if isinstance(error, Offline):
        return "offline"
    return "the Hub cannot be reached" if isinstance(error, HubUnreachable) else clean(error.message)
