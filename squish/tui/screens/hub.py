"""The hub: find a model, see whether it fits and why, download it with one key.

How models are searched is in tui/hub. State changes only in the handlers.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import DataTable, Input, Static

from squish import figures
from squish.hub.search import Found
from squish.memory import fit
from squish.sessions.backend import Backend
from squish.text import clean
from squish.tui import actions, download_words, status_facts, theme
from squish.tui.downloads import Downloads
from squish.tui.fitted_screen import FittedScreen
from squish.tui.hub import filters, gguf_variants, local_model
from squish.tui.hub.filters import FIRST_RUN, Filters
from squish.tui.hub.model_search import ModelSearch
from squish.tui.key_hints import key
from squish.tui.memory_readings import MemoryReadings
from squish.tui.messages import DownloadModel, HubAnswered, MachineRead, UseModel
from squish.tui.scheduling import after_refresh
from squish.tui.widgets.hub_row import COLUMNS, HubRows, filter_line, nothing_found
from squish.tui.widgets.keys import Keys
from squish.tui.widgets.model_card import ModelCard
from squish.tui.widgets.places import Places
from squish.tui.widgets.shown_text import show_text
from squish.tui.widgets.status import StatusStrip
from squish.tui.widgets.table import Table
from squish.tui.windows.confirm import ConfirmScreen


class HubScreen(FittedScreen[None]):
    """A search, a table and the card of the marked row."""

    CSS_PATH: ClassVar = ["panels.tcss", "hub.tcss"]
    BINDINGS = actions.bindings("hub")
    AUTO_FOCUS = "Table"

    def __init__(self, runtime: Backend, machine: MemoryReadings, downloads: Downloads) -> None:
        super().__init__()
        self._runtime, self._memory = runtime, machine
        self._search = ModelSearch(runtime, self)
        self._machine: fit.Machine | None = None
        self.VERTICAL_BREAKPOINTS = [(0, "-low"), (23, "-tall")]
        self._downloads = downloads
        self._choice = Filters()
        self._found: dict[str, Found] = {}
        self._rows = HubRows()
        self._first_run = False
        self._installed = dict[str, str]()  # as of the last look: a mark that moves does not read the disk
        self._can = ("", False)
        self._nothing = ""

    def compose(self) -> ComposeResult:
        yield StatusStrip()
        yield Places("hub")
        yield Static(id="first", markup=False)
        yield Input(placeholder="Search models, or name one: org/repo, ./model.gguf", compact=True, id="search")
        yield Static(id="filters", markup=False)
        yield Table(COLUMNS, id="finds")
        yield ModelCard()
        yield Keys()

    def on_mount(self) -> None:
        self._installed = self._search.installed()
        self._first_run = not self._installed
        if self._first_run:
            self._choice = FIRST_RUN
        self.app.theme_changed_signal.subscribe(self, lambda _: self._tick())
        self._search.begin("")
        self._show()
        after_refresh(self, self._ask_hub)  # for which more is imported than for the screen

    def on_screen_resume(self) -> None:
        self._search.weigh_again()
        read: Any = self._read_machine  # Textual resumes a screen that opens twice
        self.run_worker(read, group="machine", exclusive=True, exit_on_error=False)

    # ---- what background work says

    @on(Input.Changed)
    def _look(self) -> None:
        """Show what is known here at once, and ask the Hub when nothing is written for a moment.

        What is still asked for the words before is given up, with its connection.
        """
        self._search.begin(self.query_one(Input).value)
        self._ask_hub()
        self._show()

    def _ask_hub(self) -> None:
        ask: Any = self._search.ask_hub  # a coroutine that is replaced before it starts is never awaited
        self.run_worker(ask, group="search", exclusive=True, exit_on_error=False)

    @on(HubAnswered)
    def _hub_answered(self, event: HubAnswered) -> None:
        if self._search.take(event):
            self._show()

    async def _read_machine(self) -> None:
        self.post_message(MachineRead(await asyncio.to_thread(self._memory.for_models)))

    @on(MachineRead)
    def _machine_read(self, event: MachineRead) -> None:
        self._machine = event.machine
        self._show()

    # ---- what the keys do

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "search":
                # Textual keeps letters from the keys while one writes, but does not know that the slash is one.
                return not isinstance(self.focused, Input)
            case "download" | "import_model" | "resume" | "use":
                return action == self._offered
            case "card":
                return self._has_card
        return True

    @property
    def _offered(self) -> str:
        """What can be done with the marked model; empty while it is on its way."""
        find = self._marked
        if find is None:
            return ""
        if find.name in self._installed:
            return "use"
        transfer = self._downloads.find(find.name)
        if transfer is None or transfer.state == "done":
            return "import_model" if local_model.is_local(find) else "download"
        return "" if transfer.active else "resume"

    def action_search(self) -> None:
        self.set_focus(self.query_one(Input))

    def action_search_for(self, words: str) -> None:
        self.query_one(Input).value = words

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.set_focus(self.query_one(Table))

    def key_down(self) -> None:
        if self.query_one(Input).has_focus:
            self.set_focus(self.query_one(Table))

    def key_escape(self) -> None:
        search_box = self.query_one(Input)
        if search_box.has_focus:
            self.set_focus(self.query_one(Table))
        else:
            search_box.value = ""

    def action_cycle(self, what: str) -> None:
        self._choice = self._choice.next(what)
        self._show()

    def action_context(self, steps: int) -> None:
        self._choice = self._choice.moved_context(steps)
        self._show()

    def action_download(self) -> None:
        """Download the marked model; what does not fit is asked about."""
        find = self._marked
        if find is None or self._machine is None:
            return
        if filters.verdict(find, self._choice.context, self._machine) == "no":
            text = f"{clean(find.name)} does not fit into this machine's memory. Download {figures.size(find.size)}?"
            self.app.push_screen(ConfirmScreen("It does not fit", text, "Download"), self._confirmed)
        else:
            self._begin(find)

    def action_import_model(self) -> None:
        self.action_download()

    def action_resume(self) -> None:
        if self._marked:
            self._download(self._marked.name)

    def action_use(self) -> None:
        if self._marked and (id := self._installed.get(self._marked.name)):
            self.post_message(UseModel(id))

    def _confirmed(self, yes: bool | None) -> None:
        if yes and self._marked:
            self._begin(self._marked)

    def _begin(self, find: Found) -> None:
        """Download a model; of a repository with several GGUF files one is chosen first."""
        if gguf_variants.may_differ(find):
            self._open_card(find, choosing=True)
        else:
            self._download(find.name)

    @property
    def _has_card(self) -> bool:
        """Whether there is a repository behind the marked model."""
        return self._marked is not None and not local_model.is_local(self._marked)

    def action_card(self) -> None:
        if self._marked:
            self._open_card(self._marked, choosing=False)

    def _open_card(self, find: Found, choosing: bool) -> None:
        if self._machine:
            from squish.tui.windows.model_card import ModelCardScreen

            settings, context = self._runtime.settings, self._choice.context
            self.app.push_screen(
                ModelCardScreen(find, context, self._machine, settings, choosing, frozenset(self._installed)),
                self._download,
            )

    def _download(self, name: str | None) -> None:
        if name and (id := self._search.installed().get(name)):
            self.post_message(UseModel(id))
        elif name:
            self.post_message(DownloadModel(name))
            self._show()

    # ---- what is shown

    @property
    def _marked(self) -> Found | None:
        return self._found.get(self.query_one(Table).marked or "")

    def show_downloads(self) -> None:
        """Show how all is now, which goes on with the downloads: their figures are read twice a second."""
        if self.query(ModelCard):
            self._tick()

    def _tick(self) -> None:
        if self.is_current:
            self._show()

    def _show(self) -> None:
        statuses = self._runtime.sessions.status()
        self.query_one(StatusStrip).facts = status_facts.of_models(statuses, self._memory)
        if self._machine is None:
            self._show_first_run()
            return
        self._installed = self._search.installed()
        self._show_first_run()
        everything, context = self._search.everything(), self._choice.context
        if self._first_run and not self._search.query:  # the first model is to be chatted with
            everything = [each for each in everything if each.kind != "embedding"]
        shown = filters.chosen(everything, self._choice, self._machine)
        shown.sort(key=lambda each: each.name != self._search.query)  # what is named in full comes first
        self._found = {each.name: each for each in shown}
        colors = theme.opaque(self.app.theme_variables)
        self.query_one(Table).fill(
            [(each.name, self._rows.row(each, self._sign(each.name), context, self._machine, colors)) for each in shown]
        )
        line = filter_line(
            self._choice, len(shown), len(everything), self._search.waited, self._search.error, partial(key, self.app)
        )
        show_text(self.query_one("#filters", Static), line)
        if not shown:
            hiding = filters.hiding(everything, self._choice, self._machine)
            self._nothing = nothing_found(
                hiding, len(everything), partial(key, self.app), self._search.path, searching=self._search.searching
            )
        self._show_card()

    @on(DataTable.RowHighlighted)
    def _show_card(self) -> None:
        card, find, offered = self.query_one(ModelCard), self._marked, (self._offered, self._has_card)
        if offered != self._can:
            self._can = offered
            self.refresh_bindings()
        if find and self._machine:
            state = self._transfer(find.name) or ("✓ installed" if find.name in self._installed else "")
            card.show(find, self._choice.context, self._machine, state)
        else:
            card.show_nothing(self._nothing)

    def _transfer(self, name: str) -> str:
        """How its download is, or that of one of its files: `⇣ downloading 40 %`, `⇣ Q4_K_M downloading 40 %`."""
        transfer = self._downloads.find(name) or self._downloads.find_file(name)
        if transfer and transfer.state != "done":
            symbol, word = download_words.look(transfer)
            file = clean(transfer.name.removeprefix(f"{name}:")) if transfer.name.startswith(f"{name}:") else ""
            return " ".join(filter(None, (symbol, file, word, download_words.how_far(transfer))))
        return ""

    def _sign(self, name: str) -> str:
        return "✓" if name in self._installed else self._transfer(name)[:1]

    def _show_first_run(self) -> None:
        """Somebody without a model reads what to do."""
        banner = self.query_one("#first", Static)
        active = self._downloads.active
        banner.display = self._first_run and not self._installed
        paused = [each for each in self._downloads.transfers if each.state == "paused"]
        shows, opens = key(self.app, "app.downloads"), "The chat opens when it is complete."
        if active:
            name = clean(active[0].id)
            show_text(banner, f"{name} is being installed. {opens} {shows} shows the progress.")
        elif paused:
            resumes = f"{shows} {key(self.app, 'downloads.resume')} resumes it."
            show_text(banner, f"The download of {clean(paused[0].id)} is paused. {resumes} {opens}")
        else:
            show_text(
                banner,
                Content.assemble(
                    ("Welcome. ", "bold"),
                    "These models fit this machine, smallest first: ",
                    (key(self.app, "hub.download"), "bold $text-accent"),
                    " downloads the marked one and opens the chat.",
                ),
            )
