"""What goes wrong around the engine, on real workers.

Nothing hangs, each request ends once, the next one works, nothing leaks.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from squish.config.settings import Settings
from squish.errors import CorruptModel, ModelNotFound, QueueFull, SquishError, WorkerDied
from squish.generation import Accepted, Finished, GenerationRequest, Prefill, SamplingParams, TextDelta
from squish.models.store import directory_name
from squish.runtime import Runtime
from tests.conftest import MODEL, PATIENCE
from tests.sessions.test_sessions import ENDLESS, GERMANY, LONG, chat, collect, text

BERLIN = "The capital of Germany is Berlin."
SHORT = SamplingParams(temperature=0, max_tokens=4)


@pytest.fixture
def own_settings(real_settings: Settings, tmp_path: Path) -> Settings:
    """Settings of a store of its own, whose files are links to the real model's: a test may break what it replaces."""
    shutil.copytree(real_settings.cache_dir, tmp_path / "models", copy_function=os.link)
    return replace(real_settings, cache_dir=tmp_path / "models")


@pytest.fixture(autouse=True)
async def nothing_leaks() -> AsyncIterator[None]:
    process = psutil.Process()
    before = process.num_fds(), {child.pid for child in process.children()}
    yield
    late = time.monotonic() + PATIENCE / 4
    while time.monotonic() < late:  # asyncio closes what a process had a few steps after it has ended
        children = {child.pid for child in process.children()}
        if children <= before[1] and process.num_fds() <= before[0]:
            return
        await asyncio.sleep(0.01)
    assert children <= before[1]
    assert process.num_fds() <= before[0], process.open_files()


async def outcome(runtime: Runtime, request: GenerationRequest) -> str:
    """How a request ended: the reason, or the error's code. That it ends once is asserted."""
    ends: list[str] = []
    try:
        async with runtime.sessions.generate(request) as generation:
            async for event in generation:
                if isinstance(event, Finished):
                    ends.append(event.reason)
    except SquishError as error:
        ends.append(error.code)
    [end] = ends
    return end


async def test_two_hundred_requests_on_a_queue_of_sixteen(real_settings: Settings) -> None:
    async with Runtime(replace(real_settings, max_queue=16, max_concurrency=4)) as runtime:
        await runtime.sessions.load(MODEL)
        ends = Counter(await asyncio.gather(*(outcome(runtime, chat(f"Say {n}.", SHORT)) for n in range(200))))
        assert ends.pop("queue_full") == 180
        assert set(ends) <= {"length", "stop"}
        assert text(await collect(runtime, GERMANY)) == BERLIN


async def test_ten_requests_for_an_unloaded_model_load_it_once(runtime: Runtime) -> None:
    before = {child.pid for child in psutil.Process().children()}
    ends = await asyncio.gather(*(outcome(runtime, chat(f"Say {n}.", SHORT)) for n in range(10)))
    assert ends == ["length"] * 10
    [status] = runtime.sessions.status()
    assert {child.pid for child in psutil.Process().children()} - before == {status.pid}


async def test_a_worker_killed_in_prefill(runtime: Runtime) -> None:
    async with runtime.sessions.generate(chat("word " * 6000, ENDLESS)) as generation:
        async for event in generation:
            if isinstance(event, Prefill):
                break
        [status] = runtime.sessions.status()
        os.kill(status.pid or 0, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            async for _ in generation:
                pass
    assert text(await collect(runtime, GERMANY)) == BERLIN


@pytest.mark.parametrize("count", [3, pytest.param(1, marks=pytest.mark.long)])
async def test_a_request_to_a_worker_that_was_killed_while_idle_goes_to_a_new_one(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    await runtime.sessions.load(MODEL)
    os.kill(runtime.sessions.status()[0].pid or 0, signal.SIGKILL)
    caplog.clear()
    # Nothing is awaited between the kill and the requests: the front process cannot know yet.
    answers = await asyncio.gather(*(collect(runtime, GERMANY) for _ in range(count)))
    assert [text(events) for events in answers] == [BERLIN] * count
    assert sum("ended by SIGKILL" in message for message in caplog.messages) == 1


async def test_the_time_until_a_model_is_unloaded_ends_with_its_worker(runtime: Runtime) -> None:
    """Otherwise the worker after it would be unloaded in the middle of its load."""
    await runtime.sessions.load(MODEL)
    os.kill(runtime.sessions.status()[0].pid or 0, signal.SIGKILL)
    while runtime.sessions.status()[0].state != "failed":
        await asyncio.sleep(0.005)
    assert runtime.sessions.status()[0].unloads_in == runtime.settings.keep_alive


async def test_a_request_whose_worker_dies_twice_fails(runtime: Runtime) -> None:
    await runtime.sessions.load(MODEL)
    pids = {runtime.sessions.status()[0].pid or 0}
    os.kill(min(pids), signal.SIGKILL)
    asking = asyncio.create_task(collect(runtime, LONG))
    while not asking.done():
        for status in runtime.sessions.status():
            if status.state == "ready" and status.pid and status.pid not in pids:
                pids.add(status.pid)
                os.kill(status.pid, signal.SIGKILL)
        await asyncio.sleep(0.005)
    with pytest.raises(WorkerDied):
        await asking
    assert len(pids) == 2


@pytest.mark.long
async def test_a_storm_of_clients_that_leave(runtime: Runtime) -> None:
    await runtime.sessions.load(MODEL)

    async def leave(after: type) -> None:
        async with runtime.sessions.generate(LONG) as generation:
            async for event in generation:
                if isinstance(event, (after, TextDelta)):  # a prompt that is known to its end is not read again
                    return

    kinds = [Accepted, Prefill, TextDelta]
    await asyncio.gather(*(leave(kinds[number % 3]) for number in range(24)))
    while (status := runtime.sessions.status()[0]).running or status.waiting:
        await asyncio.sleep(0.01)
    assert text(await collect(runtime, GERMANY)) == BERLIN


async def test_a_model_deleted_while_it_is_loaded_answers_until_it_is_unloaded(own_settings: Settings) -> None:
    async with Runtime(own_settings) as runtime:
        async with runtime.sessions.generate(LONG) as generation:
            events = aiter(generation)
            while not isinstance(await anext(events), TextDelta):
                pass
            shutil.rmtree(own_settings.cache_dir / directory_name(MODEL))
            assert isinstance(await anext(events), TextDelta)
        with pytest.raises(ModelNotFound, match="not installed"):
            runtime.sessions.generate(GERMANY)


@pytest.mark.parametrize(
    "damage", ["cut", *(pytest.param(each, marks=pytest.mark.long) for each in ("emptied", "gone"))]
)
async def test_damaged_weights_are_one_clear_error_and_repair_helps(own_settings: Settings, damage: str) -> None:
    weights = own_settings.cache_dir / directory_name(MODEL) / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if damage != "gone":
        weights.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    async with Runtime(own_settings) as runtime:
        with pytest.raises(CorruptModel, match=r"model\.safetensors|safetensors"):
            await collect(runtime, GERMANY)
        [status] = runtime.sessions.status()
        assert status.state == "failed"
        weights.write_bytes(content)
        assert text(await collect(runtime, GERMANY)) == BERLIN


async def test_requests_that_wait_for_a_model_that_cannot_be_loaded_all_end(own_settings: Settings) -> None:
    weights = own_settings.cache_dir / directory_name(MODEL) / "model.safetensors"
    weights.unlink()
    weights.write_bytes(b"")
    async with Runtime(replace(own_settings, max_concurrency=1)) as runtime:
        ends = await asyncio.gather(*(outcome(runtime, chat(f"Say {n}.", SHORT)) for n in range(8)))
        assert set(ends) == {"corrupt_model"}
        with pytest.raises(QueueFull):
            async with Runtime(replace(own_settings, max_queue=0, max_concurrency=1)) as strict:
                async with strict.sessions.generate(GERMANY), strict.sessions.generate(GERMANY):
                    pass
