"""The session manager's double for the TUI's tests and pictures: it says what it is told to, when it is told to.

It stands in for the engine only; the store, the screens and the widgets are the real ones.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from msgspec.structs import replace as with_fields

from squish.chats.chats import Chats
from squish.chats.messages import Chat
from squish.config.settings import Settings
from squish.errors import InvalidInput, ModelNotFound, SquishError
from squish.generation import (
    Accepted,
    ChatPrompt,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Prefill,
    Prompt,
    ReasoningDelta,
    ResponseFormat,
    TextDelta,
    Timings,
    Usage,
)
from squish.ipc.frames import Loaded
from squish.memory import fit
from squish.memory.reservations import Shortage
from squish.models.store import Installed, Manifest, Store, StoredFile
from squish.runtime import Runtime
from squish.sessions.activity import RequestFollower, RequestStatus, Totals
from squish.sessions.backend import Offers
from squish.sessions.manager import SessionManager
from squish.sessions.model_status import ModelStatus
from squish.sessions.request_texts import RequestTexts
from squish.tui.app import SquishApp
from squish.tui.memory_readings import Memory, MemoryReadings

PID = 4711
SOME_DAY = datetime(2025, 5, 3, 12, tzinfo=UTC)
NOWHERE = Settings(home=Path("nowhere"), cache_dir=Path("nowhere"), offline=True)


def manifest(id: str, size: int, parameters: int, quantization: str, context: int = 8192) -> Manifest:
    return Manifest(
        id=id,
        source=f"hub:{id}",
        revision=None,
        architecture="llama",
        quantization=quantization,
        parameters=parameters,
        context_length=context,
        license="apache-2.0",
        installed_at=datetime(2026, 5, 1, tzinfo=UTC),
        files=(StoredFile("model.safetensors", size, "0" * 64),),
    )


SMOL = manifest("smollm2:135m", 93_400_000, 134_515_008, "Q4_1 (4-bit, group 32)")
MODELS = (
    manifest("llama3.1:8b", 4_520_000_000, 8_030_000_000, "4-bit (group 64)", 131_072),
    manifest(
        "mlx-community/Qwen3-30B-A3B-Instruct-2507-4bit", 17_190_000_000, 30_500_000_000, "4-bit (group 64)", 262_144
    ),
    manifest("qwen3:8b", 4_610_000_000, 8_190_000_000, "4-bit (group 64)", 40_960),
    SMOL,
)


class ScriptedStore(Store):
    """A store whose models are only told of."""

    def __init__(self, *models: Manifest) -> None:
        super().__init__(Path("nowhere"))
        self.models = list(models)

    def list(self) -> list[Manifest]:
        return list(self.models)

    def has(self, id: str) -> bool:
        return any(model.id == id for model in self.models)

    def find(self, name: str) -> Installed:
        for model in self.models:
            if model.id == name:
                return Installed(model, self.cache_dir / name)
        raise ModelNotFound(f"{name} is not installed.", hint=f"Run: squish pull {name}", param="model")


class ScriptedGeneration:
    """An answer that is written by the test: `say`, `finish`, `fail`."""

    def __init__(self, request: GenerationRequest, deaf: bool) -> None:
        self.request = request
        self.cancelled = False
        self.left = False
        self.tokens = 0
        self._deaf = deaf
        self._over = False
        self._events: asyncio.Queue[GenerationEvent | SquishError] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.left = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GenerationEvent:
        if self._over and self._events.empty():
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, SquishError):
            raise event
        return event

    def cancel(self) -> None:
        self.cancelled = True
        if not self._deaf:
            self.finish("cancelled")

    def put(self, *events: GenerationEvent) -> None:
        for event in events:
            self._events.put_nowait(event)

    def prefill(self, done: int, total: int) -> None:
        self.put(Accepted((total,)), Prefill(0, done, total))

    def say(self, *pieces: str) -> None:
        self.tokens += len(pieces)
        self.put(*(TextDelta(0, piece) for piece in pieces))

    def think(self, *pieces: str) -> None:
        self.tokens += len(pieces)
        self.put(*(ReasoningDelta(0, piece) for piece in pieces))

    def finish(self, reason: FinishReason = "stop", tokens: int | None = None) -> None:
        """End the answer, at 48 tokens a second after 0.31 s."""
        tokens = self.tokens if tokens is None else tokens
        self.put(Finished(0, reason, Usage(64, tokens), Timings(0.31, max(tokens - 1, 0) / 48)))
        self._over = True

    def fail(self, error: SquishError) -> None:
        self._events.put_nowait(error)
        self._over = True


class ScriptedSessions:
    """SessionManager's interface. refuse: what `generate` raises; deaf: answers that do not react to cancel."""

    def __init__(self) -> None:
        self.generations: list[ScriptedGeneration] = []
        self.loads: list[str] = []
        self.states: dict[str, ModelStatus] = {}
        self.refuse: SquishError | None = None
        self.load_error: SquishError | None = None
        self.deaf = False
        self.requests: list[RequestStatus] = []
        self.cancelled: list[int] = []
        self.pinned: set[str] = set()
        self.counts = False
        self.unholdable = ""  # why no answer can be held to a format
        self.short: Shortage | None = None
        self.keeps_texts = False

    def generate(self, request: GenerationRequest, follower: RequestFollower | None = None) -> ScriptedGeneration:
        if self.refuse:
            raise self.refuse
        self.generations.append(ScriptedGeneration(request, self.deaf))
        return self.generations[-1]

    async def load(self, name: str) -> Loaded:
        self.loads.append(name)
        if self.load_error:
            raise self.load_error
        self.be(name, "ready")
        return Loaded(8192, 93_400_000, "cpu")

    async def shortage(self, name: str) -> Shortage | None:
        return self.short

    def load_anyway(self, name: str) -> None:
        self.short = None

    async def count(self, name: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None:
        """Four characters are a token, when `counts` is set; otherwise the model is not loaded."""
        if not self.counts:
            return None
        texts = ("".join(m.content for m in prompt.messages) for prompt in prompts if isinstance(prompt, ChatPrompt))
        return tuple(len(text) // 4 for text in texts)

    async def require_holdable(self, name: str, wanted: ResponseFormat) -> None:
        if self.unholdable:
            raise InvalidInput(self.unholdable, param=wanted.field)

    async def unload(self, name: str) -> None:
        self.states.pop(name, None)

    async def close(self) -> None:
        self.states.clear()

    def status(self) -> list[ModelStatus]:
        return list(self.states.values())

    def activity(self) -> list[RequestStatus]:
        return list(self.requests)

    def totals(self) -> Totals:
        ended = [each.state for each in self.requests]
        tokens = sum(each.completion_tokens for each in self.requests)
        return Totals(ended.count("done"), ended.count("stopped"), ended.count("failed"), tokens)

    def keep_texts(self, wanted: bool) -> None:
        self.keeps_texts = wanted

    def texts(self, request: int) -> RequestTexts | None:
        return None

    def cancel(self, request: int) -> None:
        self.cancelled.append(request)

    def pin(self, name: str, pinned: bool) -> None:
        self.pinned = {*self.pinned, name} if pinned else self.pinned - {name}
        if name in self.states:
            self.states[name] = replace(self.states[name], pinned=pinned)

    def be(self, name: str, state: Any) -> None:
        """Let a model be in a state."""
        weights = 93_400_000 if state == "ready" else 0
        self.states[name] = ModelStatus(
            name, state, 0, 0, PID, weights, 8192 if weights else 0, "cpu", None, name in self.pinned
        )

    @property
    def last(self) -> ScriptedGeneration:
        return self.generations[-1]


class FrozenMachine(MemoryReadings):
    """A machine whose figures stand still."""

    def memory(self) -> Memory:
        return Memory(9_800_000_000, 24_000_000_000)

    def process_memory(self, pid: int) -> int | None:
        return 412_000_000

    def for_models(self) -> fit.Machine:
        return fit.Machine("unified memory", 16_000_000_000, 11_200_000_000, float32=False)


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class DatedChats(Chats):
    """Chats that were all used last on one day, so that pictures do not change with the calendar."""

    def recent(
        self, limit: int = -1, *, pinned_first: bool = False, archived: bool = False, tags: Sequence[str] = ()
    ) -> list[Chat]:
        found = super().recent(limit, pinned_first=pinned_first, archived=archived, tags=tags)
        return [with_fields(each, updated=SOME_DAY.timestamp()) for each in found]


class ScriptedApp(SquishApp):
    """The app on a scripted engine. `engine` and `seconds` are what a test plays on; chats: where they are kept;
    titles: whether the model is asked for them, of which most tests know nothing.
    """

    NOTIFICATION_TIMEOUT = 3600  # seconds; a busy machine looks late at what was said

    def __init__(
        self,
        *models: Manifest,
        model: str | None = None,
        settings: Settings = NOWHERE,
        chats: Path | None = None,
        titles: bool = False,
    ) -> None:
        self.engine = ScriptedSessions()
        self.seconds = Clock()
        self.shelf = ScriptedStore(*models)
        folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        runtime = Runtime(replace(settings, titles=titles, home=folder if settings is NOWHERE else settings.home))
        runtime.offers = Offers()
        runtime.store = self.shelf
        runtime.sessions = cast(SessionManager, self.engine)
        chats = chats or folder / "chats.db"
        runtime.chats = self.chats = DatedChats(chats)
        super().__init__(runtime, model, machine=FrozenMachine(), clock=self.seconds)
        self.animation_level = "none"


def asked_text(app: ScriptedApp) -> str:
    """The last message that the engine was asked with."""
    (only,) = app.engine.last.request.prompts
    assert isinstance(only, ChatPrompt)
    return only.messages[-1].content
