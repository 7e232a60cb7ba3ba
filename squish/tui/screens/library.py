"""Installed models: what they are, whether they are in memory, and what is on its way.

State changes only in the handlers.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import DataTable, Static

from squish import figures
from squish.errors import SquishError
from squish.generation import is_title
from squish.models import drafts, speeds
from squish.models.store import Manifest
from squish.sessions.backend import Backend
from squish.sessions.model_status import ModelStatus
from squish.text import clean
from squish.tui import actions, loading, preferences, status_facts, theme
from squish.tui.advice import hint
from squish.tui.downloads import Downloads
from squish.tui.faults import fault
from squish.tui.fitted_screen import FittedScreen
from squish.tui.key_hints import key
from squish.tui.memory_readings import MemoryReadings
from squish.tui.messages import UseModel
from squish.tui.server.load_history import LoadHistory
from squish.tui.widgets.facts import FactLines
from squish.tui.widgets.keys import Keys
from squish.tui.widgets.model_row import COLUMNS, SeenSpeed, details_of, row
from squish.tui.widgets.places import Places
from squish.tui.widgets.shown_text import show_text
from squish.tui.widgets.status import StatusStrip
from squish.tui.widgets.table import Table
from squish.tui.widgets.transfer_list import TransferList
from squish.tui.windows.confirm import ConfirmScreen

TICK = 0.5


class LibraryScreen(FittedScreen[None]):
    """The models of the store above, the downloads below."""

    CSS_PATH: ClassVar = ["panels.tcss", "library.tcss"]
    BINDINGS = actions.bindings("library")
    AUTO_FOCUS = "Table"

    def __init__(self, runtime: Backend, machine: MemoryReadings, downloads: Downloads, history: LoadHistory) -> None:
        super().__init__()
        self._runtime, self._machine, self._downloads, self._history = runtime, machine, downloads, history
        self._manifests: dict[str, Manifest] = {}
        self._remembered = frozenset[str]() if runtime.offers.where else preferences.pinned(runtime.settings)
        self._speeds: dict[str, SeenSpeed] = {}
        self._can: tuple[bool, ...] = ()

    def compose(self) -> ComposeResult:
        yield StatusStrip()
        yield Places("library")
        yield Table(COLUMNS, id="models")
        yield Static(id="nothing", markup=False)
        yield FactLines(id="details")
        yield TransferList(self._downloads)
        yield Keys()

    def on_mount(self) -> None:
        self.query_one(TransferList).border_title = "Downloads"
        self.set_interval(TICK, self._tick)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._tick())

    def on_screen_resume(self) -> None:
        self._speeds = self._remembered_speeds()
        self._show()

    def _remembered_speeds(self) -> dict[str, SeenSpeed]:
        """What the last answer of each model had, and better what a benchmark measured, which is of this machine."""
        where = self._runtime.offers.where
        benched = {
            id: SeenSpeed(each.decode_tps, f"measured by squish bench on {each.measured_at:%Y-%m-%d}")
            for id, each in ({} if where else speeds.speeds(self._runtime.settings.home)).items()
        }
        try:
            seen = self._runtime.chats.speeds(where)
        except SquishError:  # the chat says why
            return benched
        return {id: SeenSpeed(each, "in its last answer in a chat") for id, each in seen.items()} | benched

    def _speeds_now(self) -> dict[str, SeenSpeed]:
        """The same, and before them what requests of this run have, the latest of each model."""
        requests = [each for each in self._runtime.sessions.activity() if each.tps and not is_title(each.client)]
        return self._speeds | {
            each.model: SeenSpeed(each.tps, "now" if each.running else "in its last request") for each in requests
        }

    # ---- what the keys do

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        offers = self._runtime.offers
        offered = {"use": True, "load": offers.load, "pin": offers.pin, "delete": offers.delete}
        return offered[action] and self._marked is not None if action in offered else True

    def action_use(self) -> None:
        if self._marked:
            self.post_message(UseModel(self._marked.id))

    def action_load(self) -> None:
        """Into memory or out of it; a model that answers is asked about."""
        manifest = self._marked
        if manifest is None:
            return
        status = self._status(manifest.id)
        if status is None or status.state == "failed":
            self._do("load", manifest.id)
        elif status.running + status.waiting == 0:
            self._do("unload", manifest.id)
        else:
            requests = status.running + status.waiting
            text = f"{clean(manifest.id)} is answering {requests} request{'s' * (requests > 1)}, which would fail."
            self._ask("Model is in use", text, "Unload", "unload", manifest.id)

    def action_pin(self) -> None:
        if self._marked:
            self._do("unpin" if self._marked.id in self._pinned else "pin", self._marked.id)

    def action_delete(self) -> None:
        if self._marked:
            manifest = self._marked
            text = f"Delete {clean(manifest.id)} from the disk? This frees {figures.size(manifest.size)}."
            self._ask("Delete model", text, "Delete", "delete", manifest.id)

    def _ask(self, title: str, text: str, word: str, what: Literal["unload", "delete"], id: str) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._do(what, id)

        self.app.push_screen(ConfirmScreen(title, text, word), answered)

    def _do(self, what: Literal["load", "unload", "pin", "unpin", "delete"], id: str) -> None:
        # It belongs to the app: a load that takes a while goes on while another screen is open.
        self.app.run_worker(self._done(what, id), group="models", exit_on_error=False)

    async def _done(self, what: Literal["load", "unload", "pin", "unpin", "delete"], id: str) -> None:
        failure: SquishError | None = None
        try:
            match what:
                case "load":
                    failure = await loading.load(self.app, self._runtime.sessions, id)
                case "unload":
                    await self._unload(id)
                case "pin" | "unpin":
                    self._pin(id, what == "pin")
                    if what == "pin":
                        failure = await loading.load(self.app, self._runtime.sessions, id)
                case "delete":
                    await self._delete(id)
        except SquishError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the app down
            failure = fault(error)
        if failure:
            advised = hint(failure, self.app)
            self.app.notify(f"{clean(failure.message)}\n{advised}".rstrip(), severity="error", markup=False)
        if self.is_mounted:
            self._show()

    async def _unload(self, id: str) -> None:
        await self._runtime.sessions.unload(id)
        if id in self._remembered:  # for the next time that it is loaded
            self._runtime.sessions.pin(id, True)

    def _pin(self, id: str, pinned: bool) -> None:
        self._runtime.sessions.pin(id, pinned)
        self._remember(id, pinned)

    async def _delete(self, id: str) -> None:
        freed = await self._runtime.remove(id)
        self.app.notify(f"{clean(id)} deleted, {figures.size(freed)} freed.", markup=False)
        self._remember(id, False)

    def _remember(self, id: str, pinned: bool) -> None:
        """For the next time; what is pinned at a server elsewhere, that server remembers."""
        if not self._runtime.offers.where:
            self._remembered = self._remembered | {id} if pinned else self._remembered - {id}
            preferences.remember_pin(self._runtime.settings, id, pinned)

    # ---- what is shown

    @property
    def _pinned(self) -> frozenset[str]:
        if not self._runtime.offers.where:
            return self._remembered
        return frozenset(each.name for each in self._runtime.sessions.status() if each.pinned)

    @property
    def _marked(self) -> Manifest | None:
        tables = self.query(Table)
        return self._manifests.get(tables.first().marked or "") if tables else None

    def _status(self, id: str) -> ModelStatus | None:
        return next((each for each in self._runtime.sessions.status() if each.serves(id)), None)

    def show_downloads(self) -> None:
        for each in self.query(TransferList):
            each.refill()

    def _tick(self) -> None:
        if self.is_current:
            self._show()

    def _show(self) -> None:
        statuses = {each.name: each for each in self._runtime.sessions.status()}
        self.query_one(StatusStrip).facts = status_facts.of_models(statuses.values(), self._machine)
        nothing, table = self.query_one("#nothing", Static), self.query_one(Table)
        try:
            installed = self._runtime.store.list()
        except SquishError as error:
            installed = []
            show_text(nothing, Content.styled(f"✕ {clean(error.message)}", "$text-error"))
        else:
            where = clean(self._runtime.offers.where)
            show_text(
                nothing,
                f"{where} lists no models."
                if where
                else f"No model is installed. {key(self.app, 'app.hub')} finds one.",
            )
        self._manifests = {each.id: each for each in installed}
        seen = self._speeds_now()
        serving = {each.id: statuses.get(each.base or each.id) for each in installed}
        table.fill([(each.id, self._row(each, serving[each.id], seen.get(each.id))) for each in installed])
        table.display, nothing.display = bool(installed), not installed
        transfers = self.query_one(TransferList)
        transfers.display = bool(self._downloads.transfers)
        if transfers.has_focus and not transfers.display:
            self.set_focus(table)
        elif transfers.display and not table.display:  # the keys that the row at the bottom shows are those of the list
            self.set_focus(transfers)
        self._show_details()

    @on(DataTable.RowHighlighted)
    def _show_details(self) -> None:
        details, manifest = self.query_one("#details", FactLines), self._marked
        details.display = manifest is not None
        if manifest:
            pinned = manifest.id in self._pinned
            status, speed = self._status(manifest.id), self._speeds_now().get(manifest.id)
            models, draft = len(self._manifests), self._unused_draft(manifest)
            details.say(details_of(manifest, status, pinned, speed, models, self._total, draft))
        can = (manifest is not None,)
        if can != self._can:
            self._can = can
            self.refresh_bindings()

    def _unused_draft(self, manifest: Manifest) -> str | None:
        """What the catalog knows to guess for a model, where it is here and not used."""
        if self._runtime.offers.where:
            return None
        try:
            return drafts.unused(manifest, self._manifests.values(), dict(self._runtime.settings.draft))
        except SquishError:  # a newer catalog that is wrong, as the search for models says
            return None

    @property
    def _total(self) -> int:
        return sum(each.size for each in self._manifests.values())

    def _row(self, manifest: Manifest, status: ModelStatus | None, speed: SeenSpeed | None) -> tuple[Text, ...]:
        memory = self._machine.of_model(status) if status else None
        waited = self._history.loading_for(status.name) if status else None
        return row(
            manifest, status, manifest.id in self._pinned, memory, speed, theme.opaque(self.app.theme_variables), waited
        )
