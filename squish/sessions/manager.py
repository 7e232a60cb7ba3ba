"""SessionManager: which models are loaded, behind every front door.

It turns names into engines, one a model, and keeps a spare worker warm. It knows nothing of HTTP, terminals or MLX.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from squish.config.model_defaults import kv_bits_of
from squish.config.settings import Settings
from squish.embeddings import EmbeddingRequest, Embeddings
from squish.errors import InvalidInput, ModelNotFound
from squish.generation import GenerationRequest, Prompt, ResponseFormat
from squish.ipc.frames import Loaded
from squish.ipc.group import Ranks
from squish.ipc.group_worker import GroupWorker
from squish.ipc.process import Worker
from squish.memory.reservations import Reservations, Shortage
from squish.models import drafts
from squish.models.manifest import Installed
from squish.models.store import Store
from squish.sessions.activity import Log, RequestFollower, RequestStatus, Totals
from squish.sessions.answer import Generation
from squish.sessions.embedding import EmbeddingWork
from squish.sessions.engine import Engine, Limits
from squish.sessions.model_status import ModelStatus, status_of
from squish.sessions.rank_groups import RankGroups
from squish.sessions.request_texts import RequestTexts
from squish.sessions.room import Room
from squish.sessions.spare import SpareWorker

logger = logging.getLogger("squish.sessions")

ENDING = 10.0
"""Seconds for all workers together to end, before they are killed: each has half of it before it is insisted."""

Request = TypeVar("Request", GenerationRequest, EmbeddingRequest)


class SessionManager:
    """Loads models on first use and hands requests to them. Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        reservations: Reservations | None = None,
        *,
        ranks: Ranks | None = None,
    ) -> None:
        self._store = store
        self._groups = RankGroups(ranks) if ranks else None
        self._worker_cache = settings.worker_cache
        self._cpu_precision = settings.cpu_precision
        self._wire_weights = settings.wire == "weights"
        self._prompt_lookup = settings.prompt_lookup
        self._settings = settings
        self._drafts = dict(settings.draft)
        self._keep_alive = dict(settings.model_keep_alive)
        self._limits = Limits(settings.max_queue, settings.max_concurrency, settings.keep_alive)
        self._engines: dict[str, Engine] = {}
        parts = (ranks.size, ranks.here) if ranks else None
        self._reservations = reservations or Reservations(parts=parts, kv_bits=self._kv_bits)
        self._room = Room(self._reservations, self._engines, refuse_short=settings.short_memory == "refuse")
        self._log = Log()
        self._spare = SpareWorker(self._worker_cache)
        self._warned: set[str] = set()

    def generate(self, request: GenerationRequest, follower: RequestFollower | None = None) -> Generation:
        """The answer to a request, to be used with `async with`; its `request.model` is the installed id.

        Raises ModelNotFound, and InvalidInput where the model answers nothing.
        """
        installed = self._store.find(request.model)
        served = installed if installed.manifest.base is None else self._base(installed)
        served.manifest.require_for(request.prompts)
        self._require_no_adapter(installed)
        settled, engine = self._settled(request, installed), self._engine(served)
        adapter = None if served is installed else str(installed.path)
        if request.kv_bits is not None:
            engine.take_kv_bits(request.kv_bits)
        return Generation(engine, settled, self._log, adapter, follower)

    async def embed(self, request: EmbeddingRequest, follower: RequestFollower | None = None) -> Embeddings:
        """The vectors of a request's texts, and the id of the model. Cancelling the wait cancels the request.

        Raises ModelNotFound, QueueFull, InvalidInput (also where the model cannot embed), ContextLengthExceeded,
        and what loading meets.
        """
        installed = self._store.find(request.model)
        installed.manifest.require(request.kind)
        settled = self._settled(request, installed)
        async with EmbeddingWork(self._engine(installed), settled, self._log, follower) as embedding:
            return msgspec.structs.replace(await embedding.result(), model=installed.manifest.id)

    def _settled(self, request: Request, installed: Installed) -> Request:
        """The request with the model's id, and with the keep-alive that it did not name."""
        id, keep_alive = installed.manifest.id, request.keep_alive
        if keep_alive is None:  # then it is not what the request before this one asked for
            keep_alive = self._limits_of(id).keep_alive
        return msgspec.structs.replace(request, model=id, keep_alive=keep_alive)

    async def load(self, name: str) -> Loaded:
        """Load a model and wait for it. Raises ModelNotFound, LoadFailed and what else loading meets."""
        self._require_no_adapter(self._store.find(name))
        return await self._engine(self._served(name)).load()

    async def shortage(self, name: str) -> Shortage | None:
        """What to ask a user before a model is loaded: whether other programs may lose memory to it. None where it is
        loaded, where there is room, and where that was answered. Raises ModelNotFound, LoadFailed."""
        installed = self._served(name)
        engine = self._engines.get(installed.manifest.id)
        if engine and engine.state in ("loading", "ready"):
            return None
        return await self._room.shortage(installed)

    def load_anyway(self, name: str) -> None:
        """The answer to that: yes, until the model is unloaded. Raises ModelNotFound."""
        self._room.take_anyway(self._served(name).manifest.id)

    def keep(self, name: str, seconds: float | None) -> None:
        """How long a model stays once it is idle, negative is forever; None is the configured time. With 0 it is
        unloaded when its requests have ended. Nothing for one that is not loaded. Raises ModelNotFound."""
        id = self._served(name).manifest.id
        if engine := self._engines.get(id):
            engine.keep(self._limits_of(id).keep_alive if seconds is None else seconds)

    async def count(self, name: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None:
        """Tokens of each prompt by the model's own template and tokenizer; None when it is not loaded.

        Raises ModelNotFound and InvalidInput.
        """
        engine = self._engines.get(self._served(name).manifest.id)
        return await engine.count(prompts) if engine else None

    async def require_holdable(self, name: str, wanted: ResponseFormat) -> None:
        """Raises InvalidInput for a format that a model can hold no answer to; nothing where it is not loaded."""
        if engine := self._engines.get(self._served(name).manifest.id):
            await engine.count((), wanted)

    async def count_loading(self, name: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...]:
        """The same, for which the model is loaded if need be. Raises also what `load` raises."""
        served = self._served(name)
        served.manifest.require_for(prompts)
        return await self._engine(served).count_loading(prompts)

    async def unload(self, name: str) -> None:
        """End a model's worker; its requests fail. A model that is not loaded is not an error."""
        engine = self._engines.pop(self._served(name).manifest.id, None)
        if engine:
            await engine.close()

    def pin(self, name: str, pinned: bool) -> None:
        """Keep a model in memory once it is loaded, however long it is idle; or no longer. Raises ModelNotFound."""
        self._engine(self._served(name)).pin(pinned)

    def activity(self) -> list[RequestStatus]:
        """The requests that run, from whatever front door, and the latest that have ended; the newest last."""
        return self._log.snapshot()

    @property
    def keeps_texts(self) -> bool:
        """Whether what requests ask and are answered is kept in memory, for the window of a request."""
        return self._log.keeps_texts

    def keep_texts(self, wanted: bool) -> None:
        """Switch that on for new requests, or off, which forgets all of it."""
        self._log.keep_texts(wanted)

    def texts(self, request: int) -> RequestTexts | None:
        """What a request of `activity` asked and was answered, where that is kept, for the user of this machine."""
        return self._log.texts(request)

    def totals(self) -> Totals:
        """What became of all requests since the program began."""
        return self._log.totals()

    def cancel(self, request: int) -> None:
        """Ask for the end of a request of `activity`; what was generated so far stays."""
        self._log.cancel(request)

    def status(self) -> list[ModelStatus]:
        """Every model that is loading, ready or failed."""
        each = (status_of(name, engine) for name, engine in self._engines.items())
        return [status for status in each if status]

    async def start_worker(self) -> None:
        """Start a process for a model that is about to be asked for, so that its imports run meanwhile."""
        await self._spare.start()

    def keep_spare(self) -> None:
        """From now on keep one worker with its imports behind it, so that loading a model does not wait for them."""
        self._spare.keep(True)

    async def close(self) -> None:
        """End every worker, all at the same time; those that have not ended within the limit are killed."""
        self._spare.keep(False)
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING):
                while self._engines or self._spare:
                    engines = list(self._engines.values())
                    self._engines.clear()
                    ending = (self._spare.close(), *(each.close() for each in engines))
                    await asyncio.gather(*ending, return_exceptions=True)

    def _served(self, name: str) -> Installed:
        """The model whose process answers for a name: that of an adapter is its base. Raises ModelNotFound."""
        installed = self._store.find(name)
        return installed if installed.manifest.base is None else self._base(installed)

    def _require_no_adapter(self, installed: Installed) -> None:
        """Raises InvalidInput for an adapter of a model that several ranks hold, before anything is loaded."""
        if self._groups and (base := installed.manifest.base) is not None:
            problem = f"{installed.manifest.id} is an adapter, and a model that several ranks hold answers without any."
            hint = f"Ask {base}, or serve without --ranks and --hosts; `squish fuse` makes one model of both."
            raise InvalidInput(problem, hint=hint, param="model")

    def _base(self, adapter: Installed) -> Installed:
        base = adapter.manifest.base or ""
        try:
            return self._store.find(base)
        except ModelNotFound as error:
            problem = f"{adapter.manifest.id} is an adapter of {base}, which is not installed."
            raise ModelNotFound(problem, hint=f"Run: squish pull {base}", param="model") from error

    def _engine(self, installed: Installed) -> Engine:
        engine = self._engines.get(installed.manifest.id)
        if engine is None:
            draft = self._draft_of(installed)
            self._reservations.accompany(installed, draft)
            engine = Engine(
                installed.path,
                lambda: self._spawn(installed),
                self._limits_of(installed.manifest.id),
                on_loaded=lambda: self._loaded(installed),
                on_ended=lambda: self._room.ended(installed),
                on_warning=lambda message: logger.warning("%s: %s", installed.manifest.id, message),
                cpu_precision=self._cpu_precision,
                wire_weights=self._wire_weights,
                prompt_lookup=self._prompt_lookup,
                draft=draft.path if draft else None,
                kv_bits=self._kv_bits(installed.manifest.id),
            )
            self._engines[installed.manifest.id] = engine
        return engine

    def _draft_of(self, installed: Installed) -> Installed | None:
        """The model that is configured to guess for this one. Raises ConfigError for one that cannot."""
        id = installed.manifest.id
        if (name := self._drafts.get(id)) is None or not installed.manifest.writes:
            return None
        return drafts.chosen(self._store, id, name)

    def _kv_bits(self, id: str) -> int | None:
        """Those that a model's KV cache is loaded with, which a request may have chosen; None: as is best."""
        engine = self._engines.get(id)
        return engine.kv_bits if engine else kv_bits_of(self._settings, id)

    def _limits_of(self, id: str) -> Limits:
        return replace(self._limits, keep_alive=self._keep_alive.get(id, self._limits.keep_alive))

    async def _spawn(self, installed: Installed) -> Worker | GroupWorker:
        """What a model is loaded into, once there is room for it: a worker, or rank 0 with the others of its group."""
        id, groups = installed.manifest.id, self._groups if installed.manifest.writes else None
        if groups:
            await groups.wait(id)
        await self._room.make_for(installed)
        worker = await self._spare.take()
        return await groups.around(worker, id, installed.path, self._worker_cache) if groups else worker

    def _loaded(self, installed: Installed) -> None:
        self._reservations.release(installed)
        loaded = self._engines[installed.manifest.id].loaded
        for warning in loaded.warnings if loaded else ():
            if warning not in self._warned:  # each worker of this machine has the same to say
                self._warned.add(warning)
                logger.warning("%s", warning)
        self._spare.refill()
