"""What a front door needs of the models that it talks to, in this process or behind a server elsewhere.

`runtime` runs the models itself, `remote` asks another program over HTTP; the screens know only what stands here.
"""

from __future__ import annotations

import builtins
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from squish.chats.chats import Chats
    from squish.config.settings import Settings
    from squish.generation import GenerationRequest, Prompt, ResponseFormat
    from squish.mcp.rounds import Answering
    from squish.mcp.toolbox import Toolbox
    from squish.memory.reservations import Shortage
    from squish.models.manifest import Manifest
    from squish.sessions.activity import RequestStatus, Totals
    from squish.sessions.model_status import ModelStatus
    from squish.sessions.request_texts import RequestTexts


class Offers(msgspec.Struct, frozen=True):
    """What can be done with the models beside asking them. What cannot be done has no key on any screen.

    where: the server that they belong to; empty for this machine.
    preload: a chosen model may be loaded before its first question. cancel: of requests that others have sent.
    no_kv_bits, no_context: why a chat cannot choose the bits of the KV cache, or limit its context; empty where it can.
    """

    where: str = ""
    load: bool = True
    unload: bool = True
    pin: bool = True
    delete: bool = True
    preload: bool = True
    cancel: bool = True
    no_kv_bits: str = ""
    no_context: str = ""

    @property
    def fixed(self) -> dict[str, str]:
        """The parameters of a chat that cannot be set, and why."""
        return {name: why for name, why in (("kv_bits", self.no_kv_bits), ("context", self.no_context)) if why}


class KnownModels(Protocol):
    """The models that can be asked."""

    def list(self) -> builtins.list[Manifest]:
        """Those that are known now. Raises SquishError where they cannot be read."""

    def has(self, id: str) -> bool:
        """Whether there is a model of exactly this id; cheap, so that it may be asked often."""

    def manifest(self, name: str) -> Manifest:
        """Raises ModelNotFound, StoreError."""


class Sessions(Protocol):
    """Which models are loaded, and the requests that are answered."""

    def generate(self, request: GenerationRequest) -> AbstractAsyncContextManager[Answering]:
        """The answer to a request: events that come; leaving the block cancels it. Raises ModelNotFound."""

    async def count(self, name: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None:
        """Tokens of each prompt; None where nobody can tell now. Raises SquishError."""

    async def require_holdable(self, name: str, wanted: ResponseFormat) -> None:
        """Raises SquishError for a format that a model can hold no answer to; nothing where nobody can tell now."""

    async def load(self, name: str) -> object:
        """Load a model and wait for it. Raises SquishError."""

    async def shortage(self, name: str) -> Shortage | None:
        """What to ask a user before a model is loaded. Raises ModelNotFound, LoadFailed."""

    def load_anyway(self, name: str) -> None:
        """The answer to that: yes."""

    async def unload(self, name: str) -> None:
        """Raises SquishError."""

    def pin(self, name: str, pinned: bool) -> None:
        """Keep a model in memory once it is loaded, however long it is idle; or no longer. Raises ModelNotFound."""

    def status(self) -> list[ModelStatus]:
        """Every model that is loading, ready or failed, as it was known last."""

    def activity(self) -> list[RequestStatus]:
        """The requests that run, and the latest that have ended; the newest last."""

    def totals(self) -> Totals:
        """What became of all requests."""

    def cancel(self, request: int) -> None:
        """Ask for the end of a request of `activity`."""


@runtime_checkable
class KeepsTexts(Protocol):
    """Sessions that can keep what requests ask and are answered, in memory, while a user wants to see it."""

    @property
    def keeps_texts(self) -> bool: ...

    def keep_texts(self, wanted: bool) -> None:
        """Switch that on for new requests, or off, which forgets all of it."""

    def texts(self, request: int) -> RequestTexts | None:
        """Those of a request of `activity`, where they are kept."""


class Backend(Protocol):
    """The models, the chats about them, and the settings."""

    @property
    def settings(self) -> Settings: ...

    @property
    def chats(self) -> Chats: ...

    @property
    def toolbox(self) -> Toolbox: ...

    @property
    def store(self) -> KnownModels: ...

    @property
    def sessions(self) -> Sessions: ...

    @property
    def offers(self) -> Offers: ...

    async def calls_tools(self, model: str) -> bool:
        """Whether a model was trained to call tools. Raises ModelNotFound."""

    async def remove(self, model: str) -> int:
        """Delete a model; the bytes freed. Raises SquishError."""

    async def close(self) -> None:
        """End what runs here, and let go of what is connected."""
