"""What the hub knows: the catalog and what is installed at once, what the Hub answers while one writes.

Plain object on the event loop. Knows no widget; `listener` gets a HubAnswered for every search that was not overtaken.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from textual.message_pump import MessagePump

from squish.config.model_defaults import kv_bits_by_name
from squish.errors import SquishError
from squish.hub import search
from squish.hub.search import Found, SearchQuery
from squish.models.manifest import Manifest
from squish.names import LocalPath, local_path
from squish.sessions.backend import Backend
from squish.tui.faults import fault
from squish.tui.hub import local_model
from squish.tui.messages import HubAnswered

if TYPE_CHECKING:
    from squish.pull.neighbors import Neighbor

DEBOUNCE = 0.3
LIMIT = 100


class ModelSearch:
    """A search whose later answers replace the earlier ones.

    searching: the Hub has not answered yet. path: what the query names on this machine, of which the Hub learns
    nothing.
    """

    def __init__(self, runtime: Backend, listener: MessagePump) -> None:
        self._runtime, self._listener = runtime, listener
        self.query = ""
        self.searching = False
        self.error: SquishError | None = None
        self.path: LocalPath | None = None
        self._here: list[Found] = []
        self._neighbor: Neighbor | None = None  # what is here, as another program's
        self._number, self._began = 0, 0.0
        self._hub: tuple[Found, ...] = ()
        self._manifests: tuple[Manifest, ...] = ()  # as `installed` saw it last
        self._known: tuple[str, tuple[Manifest, ...], list[Found]] | None = None

    def begin(self, query: str) -> None:
        """Look for other words from now on; `ask_hub` is to follow."""
        self.query, self.path = " ".join(query.split()), local_path(query)
        self._here = local_model.at(self.path) if self.path else []
        self._neighbor = local_model.of_another_program(self.path) if self.path and self._here else None
        self._number += 1
        self.searching, self.error, self._began = True, None, time.monotonic()

    @property
    def waited(self) -> float | None:
        """Seconds that the Hub has taken so far; None when it has answered."""
        return time.monotonic() - self._began if self.searching else None

    async def ask_hub(self) -> None:
        """Ask the Hub for the query when nothing is written for a moment. The next question may cancel it."""
        number, query = self._number, self.query
        if self.path:
            self._listener.post_message(HubAnswered(number, (), None))
            return
        found: list[Found] = []
        failure: SquishError | None = None
        try:
            if number > 1 and not self._runtime.settings.offline:
                await asyncio.sleep(DEBOUNCE)
                if number != self._number:  # more was written
                    return
            found = await search.everywhere(SearchQuery(query, limit=LIMIT), self._runtime.settings)
        except SquishError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the search down
            failure = fault(error)
        self._listener.post_message(HubAnswered(number, tuple(found), failure))

    def take(self, answer: HubAnswered) -> bool:
        """Take an answer in; False when it is one to earlier words."""
        if answer.number != self._number:
            return False
        self.searching, self.error, self._hub = False, answer.error, answer.found
        return True

    def weigh_again(self) -> None:
        """Take in what has been set for models since: the bits of a KV cache."""
        bits = kv_bits_by_name(self._runtime.settings)
        self._known = None
        self._hub = tuple(replace(each, kv_bits=bits(each.name)) for each in self._hub)

    def everything(self) -> list[Found]:
        """All that the words mean, wherever it is known from."""
        if self.path:
            return self._here
        hub = self._hub if not self.searching else [each for each in self._hub if self._may_match(each)]
        everything = search.merged(self._known_here(), hub)
        return everything + search.exact(self.query, everything)

    def _may_match(self, found: Found) -> bool:
        """Whether what the Hub answered to the words before may be an answer to these, too."""
        return all(word in found.name.lower() for word in self.query.lower().split())

    def _known_here(self) -> list[Found]:
        """The catalog and what is installed, read again only for other words or when `installed` saw a change."""
        if self._known is None or self._known[:2] != (self.query, self._manifests):
            known = search.offline(SearchQuery(self.query, limit=LIMIT * 10), self._runtime.settings)
            self._known = self.query, self._manifests, known
        return self._known[2]

    def installed(self) -> dict[str, str]:
        """The ids of what is installed, by the names it is found under: the ids, and the path of what was imported.

        Reads all of it on the disk.
        """
        self._manifests = self._read_manifests()
        found = {manifest.id: manifest.id for manifest in self._manifests}
        if self.path and (id := local_model.installed_as(self.path, self._manifests, self._neighbor)):
            found[str(self.path)] = id
        return found

    def _read_manifests(self) -> tuple[Manifest, ...]:
        try:
            return tuple(self._runtime.store.list())
        except SquishError:  # the models screen says why
            return ()
