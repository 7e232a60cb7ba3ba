"""The session manager over real worker processes and the real model."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from squish.config.settings import Settings
from squish.errors import ContextLengthExceeded, InvalidInput, ModelNotFound, QueueFull, WorkerDied
from squish.generation import (
    Accepted,
    ChatPrompt,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Loading,
    Message,
    Preparing,
    Queued,
    SamplingParams,
    TextDelta,
    TextPrompt,
    TokenPrompt,
)
from squish.ipc.frames import Alive, Compiling, FromWorker, Load, Loaded
from squish.ipc.process import Worker
from squish.models.store import Store
from squish.runtime import Runtime
from tests.conftest import MODEL, UNENDING, clean_environment, share_compiled
from tests.worker.group import tiny

GREEDY = SamplingParams(temperature=0, max_tokens=16)
ENDLESS = SamplingParams(temperature=0, max_tokens=8000, logit_bias=UNENDING)


def chat(text: str, sampling: SamplingParams = GREEDY) -> GenerationRequest:
    return GenerationRequest(MODEL, (ChatPrompt((Message("user", text),)),), sampling)


GERMANY = chat("What is the capital of Germany?")
LONG = chat("Count from one to one thousand.", ENDLESS)


ON_SHARED = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(real_home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    """One loaded model for all tests that do not mind what was asked before, with a home and so a cache of its own."""
    home = {"SQUISH_CACHE_DIR": str(real_home / ".squish" / "models"), "SQUISH_OFFLINE": "1"}
    settings = Settings.from_environment(clean_environment(tmp_path_factory.mktemp("shared")) | home)
    async with Runtime(settings) as opened:
        yield opened


async def collect(runtime: Runtime, request: GenerationRequest) -> list[GenerationEvent]:
    async with runtime.sessions.generate(request) as generation:
        return [event async for event in generation]


def text(events: Iterable[GenerationEvent], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == index)


def finished(events: Iterable[GenerationEvent]) -> list[Finished]:
    return [event for event in events if isinstance(event, Finished)]


@ON_SHARED
async def test_the_first_request_loads_and_the_second_does_not(shared: Runtime) -> None:
    await shared.sessions.unload(MODEL)
    first = await collect(shared, GERMANY)
    assert [type(event) for event in first[:3]] == [Loading, Preparing, Accepted]
    assert text(first) == "The capital of Germany is Berlin."
    second = await collect(shared, GERMANY)
    assert [type(event) for event in second[:2]] == [Preparing, Accepted]
    assert text(second) == text(first)
    assert finished(first)[0].timings.load > finished(second)[0].timings.load == 0
    [status] = shared.sessions.status()
    assert (status.state, status.running, status.context_length) == ("ready", 0, 8192)


@pytest.mark.long
async def test_what_a_worker_warns_of_is_logged_once(
    real_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = replace(real_settings, cache_dir=tmp_path)
    tiny.install(Store(own.cache_dir), "tiny:1b", "llama", key_heads=2, layers=1)
    monkeypatch.setenv("SQUISH_BLAS", "mlx")
    async with Runtime(own) as runtime:
        for _ in range(2):
            await runtime.sessions.load("tiny:1b")
            await runtime.sessions.unload("tiny:1b")
    [record] = [record for record in caplog.records if record.name.startswith("squish")]
    assert "SQUISH_BLAS" in record.getMessage()


@ON_SHARED
async def test_rows_of_one_request_run_in_one_batch_each_with_its_own_end(shared: Runtime) -> None:
    prompts = tuple(TextPrompt(t) for t in ("The sky is", "The ocean is", "One, two, three,"))
    events = await collect(shared, GenerationRequest(MODEL, prompts, GREEDY))
    ends = finished(events)
    assert sorted(end.index for end in ends) == [0, 1, 2]
    alone = await collect(shared, GenerationRequest(MODEL, prompts[:1], GREEDY))
    assert text(alone) == text(events, 0)


@ON_SHARED
async def test_raw_text_and_a_broken_off_answer_go_on_where_they_end(shared: Runtime) -> None:
    raw = await collect(shared, GenerationRequest(MODEL, (TextPrompt("The capital of Germany is"),), GREEDY))
    assert text(raw).startswith(" ")
    turns = Message("user", "What is the capital of Germany?"), Message("assistant", "The capital of")
    going_on = ChatPrompt(turns, continue_last=True)
    assert text(await collect(shared, GenerationRequest(MODEL, (going_on,), GREEDY))) == " Germany is Berlin."


@ON_SHARED
async def test_a_seed_gives_the_same_tokens_alone_and_in_a_batch(shared: Runtime) -> None:
    seeded = chat("Tell me a story.", SamplingParams(temperature=1.0, seed=11, max_tokens=12))
    alone = await collect(shared, seeded)
    beside = await asyncio.gather(collect(shared, seeded), collect(shared, GERMANY), collect(shared, seeded))
    assert text(alone) == text(beside[0]) == text(beside[2])


RULES = " ".join(f"Rule {number}: answer in plain words, and keep rule {number + 1} in mind." for number in range(24))


def ruled(question: str) -> GenerationRequest:
    messages = Message("system", RULES), Message("user", question)
    return GenerationRequest(MODEL, (ChatPrompt(messages),), GREEDY)


@ON_SHARED
async def test_a_known_prefix_is_not_computed_again_and_the_answer_stays_the_same(shared: Runtime) -> None:
    cold = [await collect(shared, ruled("What is the capital of Germany?"))]
    await shared.sessions.unload(MODEL)
    await collect(shared, ruled("Name a color."))
    warm = await collect(shared, ruled("What is the capital of Germany?"))
    assert text(warm) == text(cold[0])
    [first], [second] = finished(cold[0]), finished(warm)
    assert first.usage.prompt_tokens == second.usage.prompt_tokens
    cached = second.usage.cached_tokens  # to the token on a CPU, in blocks where numbers depend on cuts
    assert cached == second.usage.prompt_tokens - 1 or cached % 64 == 0
    assert second.usage.prompt_tokens - second.usage.cached_tokens < 128


async def test_the_prefix_cache_survives_a_restart_and_damaged_files(real_settings: Settings, tmp_path: Path) -> None:
    request = ruled("Which rule comes first?")
    own = replace(real_settings, home=tmp_path)  # what is on disk here is of this test
    share_compiled(own.worker_cache)

    def written() -> list[Path]:
        return list((own.worker_cache / "prefix").rglob("*.safetensors"))

    async with Runtime(own) as runtime:
        cold = await collect(runtime, request)
        while not written():  # a worker that is to end waits two seconds for a slow disk, and no longer
            await asyncio.sleep(0.01)
    async with Runtime(own) as runtime:
        again = await collect(runtime, request)
    assert finished(again)[0].usage.cached_tokens > 256
    assert text(again) == text(cold)
    for number, file in enumerate(written()):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if number % 2 else b"not a cache")
    async with Runtime(own) as runtime:
        after = await collect(runtime, request)
    assert finished(after)[0].usage.cached_tokens == 0
    assert text(after) == text(cold)


@ON_SHARED
async def test_what_cannot_be_asked_is_refused_before_anything_runs(shared: Runtime) -> None:
    with pytest.raises(ModelNotFound, match="llama3"):
        shared.sessions.generate(GenerationRequest("llama3.1:8b", (TextPrompt("x"),)))
    for prompt in (TextPrompt(""), TokenPrompt((5, 49152)), ChatPrompt(())):
        with pytest.raises(InvalidInput):
            await collect(shared, GenerationRequest(MODEL, (prompt,), GREEDY))
    with pytest.raises(ContextLengthExceeded, match="8192"):
        await collect(shared, GenerationRequest(MODEL, (TokenPrompt((5,) * 8192),), GREEDY))
    assert text(await collect(shared, GERMANY)) == "The capital of Germany is Berlin."


async def test_the_queue_is_bounded_and_its_order_kept(real_settings: Settings) -> None:
    async with Runtime(replace(real_settings, max_queue=2, max_concurrency=1)) as runtime:
        async with runtime.sessions.generate(LONG) as running:
            async with runtime.sessions.generate(GERMANY) as second, runtime.sessions.generate(GERMANY) as third:
                with pytest.raises(QueueFull):
                    await collect(runtime, GERMANY)
                assert await anext(second) == Queued(1)
                assert await anext(third) == Queued(2)
                running.cancel()
                assert text([event async for event in second]) == "The capital of Germany is Berlin."
                assert text([event async for event in third]) == "The capital of Germany is Berlin."


@ON_SHARED
async def test_cancel_keeps_what_was_written_and_frees_the_row(shared: Runtime) -> None:
    events: list[GenerationEvent] = []
    async with shared.sessions.generate(LONG) as generation:
        async for event in generation:
            events.append(event)
            if isinstance(event, TextDelta):
                generation.cancel()
    [end] = finished(events)
    assert end.reason == "cancelled"
    assert text(events)
    assert end.usage.completion_tokens < ENDLESS.max_tokens


@ON_SHARED
async def test_leaving_the_block_frees_the_row(shared: Runtime) -> None:
    async with shared.sessions.generate(LONG) as generation:
        async for event in generation:
            if isinstance(event, TextDelta):
                break
    while shared.sessions.status()[0].running:
        await asyncio.sleep(0.005)
    assert text(await collect(shared, GERMANY)) == "The capital of Germany is Berlin."


@ON_SHARED
async def test_a_killed_worker_fails_its_requests_once_and_the_next_request_works(shared: Runtime) -> None:
    async with shared.sessions.generate(LONG) as one, shared.sessions.generate(LONG) as other:
        for generation in (one, other):  # what the worker has not begun would go to a new one
            async for event in generation:
                if isinstance(event, TextDelta):
                    break
        [status] = shared.sessions.status()
        assert status.pid
        os.kill(status.pid, signal.SIGKILL)
        for generation in (one, other):
            with pytest.raises(WorkerDied, match="SIGKILL"):
                async for _ in generation:
                    pass
            assert [event async for event in generation] == []
    assert text(await collect(shared, GERMANY)) == "The capital of Germany is Berlin."


async def test_a_worker_killed_while_it_loads_is_one_clear_error(runtime: Runtime) -> None:
    async with runtime.sessions.generate(GERMANY) as generation:
        while not (pid := runtime.sessions.status()[0].pid):
            await asyncio.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            async for _ in generation:
                pass
    assert text(await collect(runtime, GERMANY)) == "The capital of Germany is Berlin."


@ON_SHARED
async def test_an_idle_model_is_unloaded_after_its_keep_alive(shared: Runtime) -> None:
    request = GenerationRequest(MODEL, GERMANY.prompts, GREEDY, keep_alive=0)
    await collect(shared, request)
    while shared.sessions.status():
        await asyncio.sleep(0.01)
    assert text(await collect(shared, GERMANY)) == "The capital of Germany is Berlin."


@ON_SHARED
async def test_what_one_request_asks_for_is_not_for_the_next(shared: Runtime) -> None:
    await collect(shared, GenerationRequest(MODEL, GERMANY.prompts, GREEDY, keep_alive=-1))
    async with shared.sessions.generate(GERMANY) as generation:
        assert generation.request.keep_alive == shared.settings.keep_alive
    async with shared.sessions.generate(GenerationRequest(MODEL, GERMANY.prompts, GREEDY, keep_alive=7)) as generation:
        assert generation.request.keep_alive == 7


def asked(kv_bits: int | None) -> GenerationRequest:
    return GenerationRequest(MODEL, GERMANY.prompts, GREEDY, kv_bits=kv_bits)


async def test_a_request_loads_its_model_anew_for_another_kv_cache(runtime: Runtime) -> None:
    processes, backends = [], []
    for kv_bits in (None, 16, 8, 8, None, 32):
        assert text(await collect(runtime, asked(kv_bits))) == "The capital of Germany is Berlin."
        [status] = runtime.sessions.status()
        processes.append(status.pid)
        backends.append(status.backend)
    assert [next(bits for bits in (32, 16, 8) if f" {bits}-bit KV cache" in each) for each in backends] == [
        16, 16, 8, 8, 8, 32,
    ]  # fmt: skip
    assert [processes[0] == processes[1], processes[2] == processes[4], len(set(processes))] == [True, True, 3]
    async with runtime.sessions.generate(LONG):
        with pytest.raises(InvalidInput, match="it is answering") as caught:
            runtime.sessions.generate(asked(8))
        assert caught.value.param == "kv_bits"
    with pytest.raises(InvalidInput, match="kv_bits must be 32, 16 or 8"):
        asked(4)


@pytest.mark.long
async def test_another_kv_cache_may_be_asked_for_at_every_step_of_a_models_life(runtime: Runtime) -> None:
    await collect(runtime, asked(None))
    async with asyncio.TaskGroup() as tasks:
        counted = tasks.create_task(runtime.sessions.count(MODEL, GERMANY.prompts))
        await asyncio.sleep(0)  # the question is on its way
        assert text(await collect(runtime, asked(8))) == "The capital of Germany is Berlin.", "a draft is counted"
    assert counted.result() is None
    for kv_bits, begun in ((16, False), (8, True)):  # it is loaded ahead, before and after its process has started
        await runtime.sessions.unload(MODEL)
        loading = asyncio.create_task(runtime.sessions.load(MODEL))
        await asyncio.sleep(0)
        while begun and runtime.sessions.status()[0].pid is None:
            await asyncio.sleep(0.001)
        assert text(await collect(runtime, asked(kv_bits))) == "The capital of Germany is Berlin."
        assert (await loading).kv_bits == kv_bits
    await runtime.sessions.unload(MODEL)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(collect(runtime, asked(None)))
        await asyncio.sleep(0)
        with pytest.raises(InvalidInput, match="it is loading for another request"):
            runtime.sessions.generate(asked(8))
    assert text(first.result()) == "The capital of Germany is Berlin."


@ON_SHARED
async def test_an_answer_ends_at_the_limit_that_its_request_has(shared: Runtime) -> None:
    events = await collect(shared, chat("Count.", SamplingParams(temperature=0, context=60, logit_bias=UNENDING)))
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.total_tokens) == ("context", 60)


@ON_SHARED
@pytest.mark.parametrize(("max_tokens", "reason"), [(20, "length"), (21, "context")])
async def test_which_of_two_limits_ended_an_answer_is_known(
    shared: Runtime, max_tokens: int, reason: FinishReason
) -> None:
    asked = chat("Count.", SamplingParams(temperature=0, max_tokens=1, logit_bias=UNENDING))
    [*_, first] = await collect(shared, asked)
    assert isinstance(first, Finished)
    limits = SamplingParams(
        temperature=0, max_tokens=max_tokens, context=first.usage.prompt_tokens + 20, logit_bias=UNENDING
    )
    [*_, end] = await collect(shared, chat("Count.", limits))
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.completion_tokens) == (reason, 20)


async def test_how_long_a_model_stays_can_be_said_without_a_request(runtime: Runtime) -> None:
    runtime.sessions.keep(MODEL, 0)  # it is not loaded, so that this is nothing
    await runtime.sessions.load(MODEL)
    [status] = runtime.sessions.status()
    assert status.unloads_in is not None
    assert 0 < status.unloads_in <= runtime.settings.keep_alive
    runtime.sessions.keep(MODEL, -1)
    assert runtime.sessions.status()[0].unloads_in is None
    async with runtime.sessions.generate(LONG) as generation:
        runtime.sessions.keep(MODEL, 0)  # which waits for the request
        async for event in generation:
            if isinstance(event, TextDelta):
                break
        assert runtime.sessions.status()[0].state == "ready"
    while runtime.sessions.status():
        await asyncio.sleep(0.01)


async def test_a_model_has_its_own_time_to_stay(real_settings: Settings) -> None:
    own = replace(real_settings, keep_alive=-1, model_keep_alive=((MODEL, 0.0), ("other:1b", 5.0)))
    async with Runtime(own) as runtime:
        await runtime.sessions.load(MODEL)
        await collect(runtime, GERMANY)
        while runtime.sessions.status():
            await asyncio.sleep(0.01)


async def test_a_spare_worker_takes_the_next_model_and_dies_with_the_rest(runtime: Runtime) -> None:
    before = {child.pid for child in psutil.Process().children()}
    runtime.sessions.keep_spare()
    while not (spares := {child.pid for child in psutil.Process().children()} - before):
        await asyncio.sleep(0.01)
    await runtime.sessions.load(MODEL)
    assert runtime.sessions.status()[0].pid in spares
    while len({child.pid for child in psutil.Process().children()} - before) < 2:
        await asyncio.sleep(0.01)
    await runtime.close()
    assert {child.pid for child in psutil.Process().children()} <= before


async def test_that_the_engine_is_compiled_first_is_said_to_who_waits(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[FromWorker] = [Compiling(True), Compiling(False)]
    receive = Worker.receive

    async def compiling_first(worker: Worker) -> FromWorker:
        return said.pop(0) if said else await receive(worker)

    monkeypatch.setattr(Worker, "receive", compiling_first)
    events, states = list[GenerationEvent](), list[bool]()
    async with runtime.sessions.generate(GERMANY) as generation:
        async for event in generation:
            events.append(event)
            states.append(runtime.sessions.status()[0].compiling)
    assert events[:3] == [Loading(), Loading(compiling=True), Loading()]
    assert [type(event) for event in events[3:5]] == [Preparing, Accepted]
    assert not states[-1]
    assert text(events) == "The capital of Germany is Berlin."


async def test_a_worker_that_hangs_is_ended_and_one_that_is_slow_is_not(real_settings: Settings) -> None:
    worker = await Worker.spawn(real_settings.worker_cache)
    try:
        worker.send(Load(str(Store(real_settings.cache_dir).find(MODEL).path)))
        assert isinstance(await worker.receive(), Loaded)
        for _ in range(2):
            assert isinstance(await worker._frame(), Alive), "what is idle, or slow, says that it lives"
        os.kill(worker.pid, signal.SIGSTOP)
        worker._silence = 0.2
        with pytest.raises(WorkerDied, match="did not respond"):
            await worker.receive()
        assert worker.ended
    finally:
        await worker.close()


def test_a_killed_front_process_leaves_no_worker_behind(environment: dict[str, str]) -> None:
    program = (
        "import asyncio, sys\n"
        "from squish.config.settings import Settings\n"
        "from squish.runtime import Runtime\n"
        "async def main():\n"
        "    async with Runtime(Settings.from_environment()) as runtime:\n"
        f"        await runtime.sessions.load('{MODEL}')\n"
        "        print(runtime.sessions.status()[0].pid, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as front:
        try:
            assert front.stdout is not None
            worker = psutil.Process(int(front.stdout.readline()))
        finally:
            front.kill()
    worker.wait()
