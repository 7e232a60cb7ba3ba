"""The requests to a server and what it is doing: what is asked from here, and what it says of itself now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakSet

from squish.errors import RemoteError
from squish.generation import PURPOSE, GenerationRequest, Prompt, ResponseFormat, is_title
from squish.remote import fields
from squish.remote.generation import RemoteGeneration
from squish.remote.models import RemoteModels
from squish.remote.server import ModelServer, ServerMemory, ServerState
from squish.sessions.activity import Log, RequestStatus, Totals
from squish.sessions.model_status import ModelStatus

if TYPE_CHECKING:
    from squish.memory.reservations import Shortage
    from squish.remote.connection import ServerConnection

_LOOK = 1.0  # seconds between two looks at its state
_LISTED = 15  # looks between two of its list of models
_LONGEST_PAUSE = 8.0  # seconds between two tries at a server that does not answer


class RemoteSessions:
    """lost: why the server does not answer now, or None. memory: of its machine, where it says."""

    def __init__(self, connection: ServerConnection, server: ModelServer, models: RemoteModels) -> None:
        self._connection, self._server, self._models = connection, server, models
        self._log = Log()
        self._state = ServerState(())
        self._answers = WeakSet[RemoteGeneration]()
        self._doing = set[asyncio.Task[None]]()
        self._refused = dict[str, set[str]]()  # by model
        self.lost: RemoteError | None = None
        self.failed: RemoteError | None = None  # what was asked for last and could not be done

    def generate(self, request: GenerationRequest) -> RemoteGeneration:
        """Raises ModelNotFound, and InvalidInput for what this server cannot do."""
        listed = self._models.manifest(request.model)
        loaded = next((each for each in self._state.models if each.serves(request.model)), None)
        context = (loaded and loaded.context_length) or listed.context_length
        known = self._server.fields
        body = fields.body(request, known)
        headers = dict([PURPOSE]) if known.purpose and is_title(request.client) else {}
        generation = RemoteGeneration(
            self._connection, self._server.chat, request, body, self._log,
            context=context, accepts=known.accepts, headers=headers,
            refused=self._refused.setdefault(request.model, set()),
        )  # fmt: skip
        self._answers.add(generation)
        return generation

    async def count(self, name: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None:
        return await self._server.count(name, prompts)

    async def require_holdable(self, name: str, wanted: ResponseFormat) -> None:
        """As far as it is known of the kind of server. Raises InvalidInput."""
        fields.response_format(wanted, self._server.fields)

    async def load(self, name: str) -> None:
        self._models.manifest(name)
        await self._server.load(name)
        await self.look()

    async def shortage(self, name: str) -> Shortage | None:
        """It is the server's memory, which the server looks after."""
        self._models.manifest(name)
        return None

    def load_anyway(self, name: str) -> None:
        """There is nothing that would have been asked."""

    async def unload(self, name: str) -> None:
        await self._server.unload(name)
        await self.look()

    def pin(self, name: str, pinned: bool) -> None:
        self._do(lambda: self._server.pin(name, pinned))

    def status(self) -> list[ModelStatus]:
        """As the server said last; nothing while it does not answer."""
        if self.lost is not None:
            return []
        return [self._with_ours(each) for each in self._state.models]

    def activity(self) -> list[RequestStatus]:
        """Those of all its clients, where it tells them."""
        return self._log.snapshot() if self._state.requests is None else list(self._state.requests)

    def totals(self) -> Totals:
        return self._state.totals or self._log.totals()

    def cancel(self, request: int) -> None:
        if self._state.requests is None:
            self._log.cancel(request)
        else:
            self._do(lambda: self._server.cancel(request))

    @property
    def memory(self) -> ServerMemory | None:
        return self._state.memory

    async def look(self) -> None:
        """Ask the server how it is. Raises RemoteError."""
        self._state = await self._server.state()
        for each in self._answers:
            each.hear(self._state.models)

    async def watch(self) -> None:
        """Look again and again, for as long as this runs; a server that went away is found again."""
        looks, pause = 0, _LOOK
        while True:
            await asyncio.sleep(pause)
            looks += 1
            try:
                if looks % _LISTED == 0 or self.lost is not None:
                    await self._models.read()
                await self.look()
                self.lost, pause = None, _LOOK
            except RemoteError as error:
                self.lost, pause = error, min(pause * 2, _LONGEST_PAUSE)

    async def close(self) -> None:
        doing = tuple(self._doing)
        for each in doing:
            each.cancel()
        await asyncio.gather(*doing, return_exceptions=True)

    def _with_ours(self, status: ModelStatus) -> ModelStatus:
        """A server that does not tell its requests has at least ours."""
        if self._state.requests is not None or status.running:
            return status
        ours = sum(each.running and each.model == status.name for each in self._log.snapshot())
        return replace(status, running=ours) if ours else status

    def _do(self, what: Callable[[], Awaitable[None]]) -> None:
        async def done() -> None:
            try:
                await what()
                await self.look()
                self.failed = None
            except RemoteError as error:
                self.failed = error

        task = asyncio.create_task(done(), name="remote change")
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)
