"""Memory before loading: idle models make room, busy ones never, and what cannot fit is refused with numbers."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from squish.config.settings import Settings
from squish.errors import ConfigError, EngineError, LoadFailed, MemoryShort
from squish.generation import GenerationRequest, TextDelta
from squish.ipc.process import Worker
from squish.memory.fit import Machine
from squish.memory.reservations import Reservations
from squish.models.store import Store
from squish.sessions.manager import SessionManager
from tests.conftest import MODEL, home_settings, install_real
from tests.sessions.test_sessions import GERMANY, GREEDY, LONG

GB = 10**9
OTHER = "other:1b"


@pytest.fixture(scope="module")
def two_models(real_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a store with two models, which no test changes."""
    home, real = tmp_path_factory.mktemp("two"), home_settings(real_home)
    models = home_settings(home).cache_dir
    shutil.copytree(real.cache_dir, models, copy_function=os.link)
    install_real(home, (str(Store(models).find(MODEL).path), OTHER))
    return replace(real, cache_dir=models)


class Memory:
    """A machine on which only so many models fit, by what the session manager has loaded at the moment."""

    def __init__(self, models: int) -> None:
        self.models = models
        self.manager: SessionManager | None = None

    def read(self) -> Machine:
        assert self.manager
        loaded = sum(status.state == "ready" for status in self.manager.status())
        return Machine("RAM", 2 * GB, GB if loaded < self.models else 0, float32=True)


def manager_of(settings: Settings, memory: Memory) -> SessionManager:
    memory.manager = SessionManager(Store(settings.cache_dir), settings, Reservations(memory.read))
    return memory.manager


async def test_an_idle_model_makes_room_and_a_busy_one_does_not(two_models: Settings) -> None:
    manager = manager_of(two_models, Memory(models=1))
    try:
        await manager.load(MODEL)
        await manager.load(OTHER)
        assert [status.name for status in manager.status()] == [OTHER]
        busy = GenerationRequest(OTHER, LONG.prompts, LONG.sampling)
        async with manager.generate(busy) as generation:
            while not isinstance(await anext(generation), TextDelta):
                pass
            with pytest.raises(LoadFailed, match=r"needs at least .* free"):
                async with manager.generate(GERMANY) as refused:
                    async for _ in refused:
                        pass
            assert isinstance(await anext(generation), TextDelta), "the busy model goes on"
    finally:
        await manager.close()


async def test_a_model_larger_than_the_machine_is_refused_at_once(real_settings: Settings) -> None:
    small = Machine("RAM", 100_000_000, 100_000_000, float32=True)
    manager = SessionManager(Store(real_settings.cache_dir), real_settings, Reservations(lambda: small))
    try:
        with pytest.raises(LoadFailed, match=r"smollm2:135m needs at least .* this machine has 100 MB") as caught:
            await manager.load(MODEL)
        assert caught.value.hint is not None
        assert "smaller" in caught.value.hint
    finally:
        await manager.close()


async def test_room_is_counted_for_the_kv_cache_that_a_request_asks_for(
    real_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = SessionManager(Store(real_settings.cache_dir), real_settings)
    memory = Machine("RAM", GB, 500_000_000, float32=True)
    monkeypatch.setattr(manager._reservations, "_read", lambda: memory)
    asked = GenerationRequest(MODEL, GERMANY.prompts, GREEDY, kv_bits=32)
    try:
        with pytest.raises(LoadFailed, match=r"needs at least 613 MB .* 500 MB of RAM are free"):
            async with manager.generate(asked) as refused:
                async for _ in refused:
                    pass
        async with manager.generate(msgspec.structs.replace(asked, kv_bits=16)) as generation:
            while not isinstance(await anext(generation), TextDelta):
                pass
    finally:
        await manager.close()


async def test_two_models_loading_at_once_count_each_other(two_models: Settings) -> None:
    memory = Memory(models=1)
    manager = manager_of(two_models, memory)
    memory.read = lambda: Machine("RAM", 2 * GB, 750_000_000, float32=True)  # type: ignore[method-assign]
    manager = SessionManager(Store(two_models.cache_dir), two_models, Reservations(memory.read))
    try:
        requests = [GenerationRequest(name, GERMANY.prompts, GREEDY) for name in (MODEL, OTHER)]
        ends = await asyncio.gather(*(manager.load(request.model) for request in requests), return_exceptions=True)
        assert sum(isinstance(end, LoadFailed) for end in ends) == 1
    finally:
        await manager.close()


async def test_a_draft_model_counts_with_the_one_it_guesses_for(two_models: Settings) -> None:
    store, machine = Store(two_models.cache_dir), Machine("RAM", 2 * GB, 2 * GB, float32=True)
    model, draft = store.find(MODEL), store.find(OTHER)
    reservations = Reservations(lambda: machine)
    alone = await reservations.missing(model)
    reservations.accompany(model, draft)
    both = await reservations.missing(model)
    assert both - alone == await Reservations(lambda: machine).missing(draft) + 2 * GB
    assert f"{MODEL} with {OTHER} needs at least" in str(await reservations.refuse(model))
    reservations.accompany(model, None)
    assert await reservations.missing(model) == alone


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        ("nope:1b", f"The draft model of {MODEL}, nope:1b, is not installed."),
        (MODEL, f"{MODEL} cannot be the draft model of {MODEL}: it is that model."),
    ],
)
async def test_a_draft_model_that_cannot_be_is_an_error_before_anything_is_loaded(
    real_settings: Settings, draft: str, said: str
) -> None:
    settings = replace(real_settings, draft=((MODEL, draft),))
    with pytest.raises(ConfigError) as caught:
        await SessionManager(Store(settings.cache_dir), settings).load(MODEL)
    assert (caught.value.message, caught.value.param) == (said, "draft")


async def test_where_the_system_makes_room_only_the_whole_is_a_limit(
    real_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a Mac: what other programs hold is compressed or swapped, so that little free memory is a warning."""
    tight = Machine("unified memory", 2 * GB, 0, float32=True, elastic=True)
    installed = Store(real_settings.cache_dir).find(MODEL)
    reservations = Reservations(lambda: tight)
    assert await reservations.missing(installed) <= 0
    assert await reservations.missing(installed, held=2 * GB) > 0
    short = await reservations.shortage(installed)
    assert short is not None
    assert "0 B are free" in str(short)
    assert await Reservations(lambda: replace(tight, free=2 * GB)).shortage(installed) is None
    with pytest.raises(LoadFailed, match=r"this machine has 10.0 MB for models"):
        await Reservations(lambda: replace(tight, total=10**7)).missing(installed)


async def test_a_model_that_is_refused_while_memory_is_short_is_loaded_on_purpose(
    real_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def spawn(cache: Path) -> Worker:
        raise EngineError("a worker was to be started")

    monkeypatch.setattr(Worker, "spawn", spawn)
    tight = Machine("unified memory", 2 * GB, GB // 10, float32=True, elastic=True)
    settings = replace(real_settings, short_memory="refuse")
    manager = SessionManager(Store(settings.cache_dir), settings, Reservations(lambda: tight))
    with pytest.raises(MemoryShort, match=r"smollm2:135m is not loaded: it needs \d+ MB and 100 MB are free"):
        await manager.load(MODEL)
    assert await manager.shortage(MODEL) is not None, "a front door can ask"
    manager.load_anyway(MODEL)
    assert await manager.shortage(MODEL) is None, "once"
    with pytest.raises(EngineError, match="a worker was to be started"):
        await manager.load(MODEL)
    assert await manager.shortage(MODEL) is not None, "the next worker is another question"
    unasked = SessionManager(Store(settings.cache_dir), real_settings, Reservations(lambda: tight))
    with pytest.raises(EngineError, match="a worker was to be started"):
        await unasked.load(MODEL)
