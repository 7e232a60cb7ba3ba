"""What the hub knows: the catalog and what is installed at once, what the Hub answers while one writes, this machine.

How that is shown, and what the keys do with it, is in hub.py.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from textual import on
from textual.screen import Screen
from textual.widgets import Input

from squish.errors import SquishError
from squish.hub import search
from squish.hub.search import Found, Wanted
from squish.memory import fit
from squish.runtime import Runtime
from squish.tui import finds
from squish.tui.faults import fault
from squish.tui.machine import Machine
from squish.tui.messages import HubAnswered, MachineRead

DEBOUNCE = 0.3
LIMIT = 100


class HubSearch(Screen[None]):
    """A search whose later answers replace the earlier ones. State changes only in the handlers."""

    def __init__(self, runtime: Runtime, machine: Machine) -> None:
        super().__init__()
        self._runtime, self._reader = runtime, machine
        self._machine: fit.Machine | None = None
        self._number = 0
        self._hub: tuple[Found, ...] = ()
        self._searching = False
        self._error: SquishError | None = None

    @abstractmethod
    def _show(self) -> None:
        """Show what is known now."""

    def on_screen_resume(self) -> None:
        self.run_worker(self._read_machine(), group="machine", exit_on_error=False)

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
            found = await search.everywhere(wanted, self._runtime.settings)
        except SquishError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the search down
            failure = fault(error)
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

    def _everything(self) -> list[Found]:
        """All that the words mean, wherever it is known from."""
        known = search.offline(Wanted(self._query, limit=LIMIT * 10), self._runtime.settings)
        everything = finds.merged(known, self._hub)
        return everything + finds.exact(self._query, everything)

    def _installed(self) -> frozenset[str]:
        try:
            return frozenset(manifest.id for manifest in self._runtime.store.list())
        except SquishError:  # the models screen says why
            return frozenset()
