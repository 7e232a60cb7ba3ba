"""Which model answers next: those that can, and one of them loaded ahead of its question.

Knows no widget; `listener` gets a ModelLoaded for every load.
"""

from __future__ import annotations

from textual.message_pump import MessagePump

from squish.models.store import Manifest
from squish.sessions.backend import Backend
from squish.tui import loading
from squish.tui.messages import ModelLoaded


class ModelChoice:
    """manifest: what is known of the model that the shown chat asks, None where it cannot be asked.

    is_installed: whether it is, as far as it was looked at.
    """

    def __init__(self, runtime: Backend, listener: MessagePump) -> None:
        self._runtime, self._listener = runtime, listener
        self.manifest: Manifest | None = None
        self.is_installed = True

    @property
    def context_length(self) -> int:
        """Tokens; 0 when not known."""
        return self.manifest.context_length if self.manifest else 0

    @property
    def where(self) -> str:
        """The server that the models belong to; empty for this machine."""
        return self._runtime.offers.where

    @property
    def missing(self) -> str:
        """Where the model of the shown chat is not, in words; empty where it is."""
        return "" if self.is_installed else "not on the server" if self.where else "not installed"

    def installed(self) -> list[Manifest]:
        """Those that answer. Raises StoreError."""
        return [manifest for manifest in self._runtime.store.list() if manifest.kind == "chat"]

    def look_up(self, name: str) -> Manifest | None:
        """Find the model of a chat; it is loaded when it is asked. Raises ModelNotFound, StoreError."""
        self.manifest = None
        if name:
            self.look(name)
            self.manifest = self._runtime.store.manifest(name)
            self.is_installed = True
        return self.manifest

    def look(self, name: str) -> bool:
        """See whether the model of the shown chat is installed; whether that has changed."""
        before = self.is_installed
        self.is_installed = not name or self._runtime.store.has(self.manifest.id if self.manifest else name)
        return self.is_installed != before

    def choose(self, name: str) -> Manifest:
        """Find a model and load it while the user writes. Raises ModelNotFound, StoreError, InvalidInput."""
        found = self._runtime.store.manifest(name)
        found.require_chat()
        self.manifest, self.is_installed = found, True
        if self._runtime.offers.preload:
            self._listener.app.run_worker(self._load(self.manifest.id), group="load", exit_on_error=False)
        return self.manifest

    async def _load(self, model: str) -> None:
        self._listener.post_message(ModelLoaded(model, await loading.ahead(self._runtime.sessions, model)))
