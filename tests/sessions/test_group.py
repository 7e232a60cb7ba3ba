"""A model that several processes hold: the answers of one, and an end that everybody notices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import psutil
import pytest
import pytest_asyncio

from squish.config.settings import Settings
from squish.errors import UnsupportedModel, WorkerDied
from squish.generation import Finished, GenerationEvent, Prefill, ResponseFormat, SamplingParams, TextDelta
from squish.ipc.local_ranks import LocalRanks
from squish.runtime import Runtime
from tests.conftest import MODEL, home_settings
from tests.sessions.test_sessions import ENDLESS, GERMANY, RULES, chat, collect, finished, ruled, text

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORY = chat("Tell me a story about a fox.", SamplingParams(temperature=0, max_tokens=12))
LIST = "\n".join(f"item {number}: a {color} box" for number, color in enumerate(("red", "blue", "green") * 3))
COPY = chat(f"Repeat this list exactly:\n{LIST}", SamplingParams(temperature=0, max_tokens=40))
BERLIN = "The capital of Germany is Berlin."


def exact(settings: Settings) -> Settings:
    """Products in float32: a matrix that is divided rounds activations to 8 bits in other places than a whole one."""
    return replace(settings, cpu_precision="float32")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(real_home: object) -> AsyncIterator[Runtime]:
    async with Runtime(exact(home_settings(real_home)), LocalRanks(2)) as runtime:  # type: ignore[arg-type]
        yield runtime


def pids(runtime: Runtime) -> list[int]:
    """Of the ranks, rank 0 first."""
    return runtime.sessions._engines[MODEL].pids


async def held_and_said(runtime: Runtime) -> tuple[int, list[str]]:
    held = (await runtime.sessions.load(MODEL)).weights_bytes
    return held, [text(await collect(runtime, each)) for each in (GERMANY, STORY, COPY)]


async def the_same_with_less(runtime: Runtime, settings: Settings, ranks: int) -> None:
    async with Runtime(settings) as alone:
        whole, expected = await held_and_said(alone)
    part, said = await held_and_said(runtime)
    assert said == expected
    assert said[0] == BERLIN
    # With three, rank 0 can give no more away: it has the embedding, 31 of 97 MB, and one of three heads.
    assert part == pytest.approx({2: whole / 2, 3: 31.5e6 + 5.5e6}[ranks], rel=0.05)


async def test_two_ranks_give_the_text_of_one_and_share_its_weights(two: Runtime, real_home: object) -> None:
    await the_same_with_less(two, exact(home_settings(real_home)), 2)  # type: ignore[arg-type]


@pytest.mark.long
async def test_three_ranks_give_the_text_of_one_and_share_its_weights(real_home: object) -> None:
    settings = exact(home_settings(real_home))  # type: ignore[arg-type]
    async with Runtime(settings, LocalRanks(3)) as three:
        await the_same_with_less(three, settings, 3)


async def test_rows_grammar_and_log_probabilities_are_those_of_one_rank(two: Runtime) -> None:
    shape = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    sampling = SamplingParams(temperature=0, max_tokens=48, response_format=ResponseFormat("json_schema", shape))
    several = SamplingParams(temperature=1.0, seed=11, max_tokens=8, n=3, logprobs=True, top_logprobs=2)
    answers = await asyncio.gather(
        collect(two, chat("Name a city.", sampling)), collect(two, chat("Say a word.", several)), collect(two, GERMANY)
    )
    assert isinstance(json.loads(text(answers[0]))["city"], str)
    assert sorted(end.index for end in finished(answers[1])) == [0, 1, 2]
    assert any(event.logprobs for event in answers[1] if isinstance(event, TextDelta))
    assert text(answers[2]) == BERLIN


@pytest.mark.long
async def test_a_known_prefix_is_not_computed_again(two: Runtime) -> None:
    first = await collect(two, ruled("What is the capital of Germany?"))
    again = await collect(two, ruled("What is the capital of Germany?"))
    assert finished(first)[0].usage.cached_tokens < finished(again)[0].usage.cached_tokens > 64
    assert text(first) == text(again)
    usage = finished(again)[0].usage
    assert usage.cached_tokens == usage.prompt_tokens - 1


async def test_what_an_answer_repeats_is_guessed_and_checked_by_all_ranks(two: Runtime) -> None:
    """Its text is compared with one rank's above."""
    [end] = finished(await collect(two, COPY))
    assert end.timings.accepted_tokens > 10


async def test_an_answer_is_the_same_to_the_bit_alone_in_company_and_warm(two: Runtime) -> None:
    sampling = SamplingParams(temperature=0.8, seed=5, max_tokens=10, logprobs=True, top_logprobs=2)
    asked = [chat(f"{question} in one sentence.", sampling) for question in ("Describe snow", "Praise bread", "Count")]
    alone = [said_of(await collect(two, each)) for each in asked]
    together = await asyncio.gather(*(collect(two, each) for each in [*asked, COPY]))
    assert [said_of(events) for events in together[:3]] == alone
    assert all(finished(events)[0].usage.cached_tokens for events in together[:3])


def said_of(events: list[GenerationEvent]) -> list[tuple[str, object]]:
    return [(event.text, event.logprobs) for event in events if isinstance(event, TextDelta)]


async def test_a_request_that_is_left_is_over_and_the_next_one_is_answered(two: Runtime) -> None:
    async with two.sessions.generate(chat("Count.", ENDLESS)) as generation:
        async for event in generation:
            if isinstance(event, TextDelta):
                break
    assert text(await collect(two, GERMANY)) == BERLIN


async def lose(runtime: Runtime, rank: int, how: signal.Signals, *, in_prefill: bool = False) -> WorkerDied:
    """What a request meets whose group loses a rank while it is worked on; nothing is left of the group then."""
    request = chat(RULES * 12, ENDLESS) if in_prefill else chat("Count.", ENDLESS)
    await runtime.sessions.load(MODEL)
    held = pids(runtime)
    begun = Prefill if in_prefill else TextDelta
    with pytest.raises(WorkerDied) as caught:
        async with runtime.sessions.generate(request) as generation:
            async for event in generation:
                if isinstance(event, begun):
                    os.kill(held[rank], how)
                assert not isinstance(event, Finished)
    while runtime.sessions._engines[MODEL].state != "failed":
        await asyncio.sleep(0.005)
    await asyncio.gather(*runtime.sessions._engines[MODEL]._tasks)
    assert not any(psutil.pid_exists(pid) for pid in held)
    return caught.value


@pytest.mark.parametrize(("rank", "in_prefill"), [pytest.param(0, False, marks=pytest.mark.long), (1, True)])
async def test_a_killed_rank_ends_the_group_and_the_next_request_has_a_new_one(
    two: Runtime, rank: int, in_prefill: bool
) -> None:
    error = await lose(two, rank, signal.SIGKILL, in_prefill=in_prefill)
    assert f"Rank {rank} of the group" in error.message
    assert text(await collect(two, GERMANY)) == BERLIN


@pytest.mark.long  # it is ten seconds of silence, and test_watch.py says what is given up
async def test_a_rank_that_stands_still_without_having_died_ends_the_group(two: Runtime) -> None:
    error = await lose(two, 1, signal.SIGSTOP)
    assert "Rank 1 of the group did not respond" in error.message


async def test_a_model_that_cannot_be_divided_is_refused_in_one_sentence(real_settings: Settings) -> None:
    async with Runtime(real_settings, LocalRanks(4)) as runtime:
        with pytest.raises(UnsupportedModel, match="cannot be divided among 4 ranks: it has 3 key-value heads"):
            await runtime.sessions.load(MODEL)
