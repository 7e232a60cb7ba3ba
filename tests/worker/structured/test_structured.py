"""Structured output: what a model writes matches what was asked for, and nobody else in the batch notices."""

from __future__ import annotations

import asyncio
import json
import re

import mlx.core as mx
import msgspec
import pytest

from squish.errors import InvalidInput
from squish.generation import (
    ChatPrompt,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    ReasoningDelta,
    ResponseFormat,
    SamplingParams,
    TextDelta,
    TextPrompt,
)
from squish.runtime import Runtime
from squish.worker.structured.grammar import GrammarCompiler, GrammarState, Thinking
from tests.conftest import MODEL
from tests.worker.byte_models import ByteBench, tokenizer
from tests.worker.test_runner import answer, end

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "grown": {"type": "boolean"}},
        "required": ["name", "grown"],
        "additionalProperties": False,
    }
)
GREEDY = SamplingParams(temperature=0, max_tokens=60)
RANDOM = SamplingParams(temperature=1, top_p=1, seed=4, max_tokens=60)
DATE = ResponseFormat("regex", r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@pytest.fixture(autouse=True)
def repeatable() -> None:
    mx.random.seed(5)


def formatted(sampling: SamplingParams, wanted: ResponseFormat) -> SamplingParams:
    return msgspec.structs.replace(sampling, response_format=wanted)


async def ask(runtime: Runtime, question: str, sampling: SamplingParams) -> list[GenerationEvent]:
    request = GenerationRequest(MODEL, (ChatPrompt((Message("user", question),)),), sampling)
    async with runtime.sessions.generate(request) as generation:
        return [event async for event in generation]


async def test_the_real_model_keeps_to_every_kind_of_format_in_one_batch(runtime: Runtime) -> None:
    france = "What is the capital of France?"
    alone = answer(await ask(runtime, france, GREEDY))
    clock = formatted(RANDOM, ResponseFormat("regex", "[0-9]{2}:[0-9]{2}"))
    verdict = """{"type": "object", "properties": {"ok": {"type": "boolean"}},
                  "required": ["ok"], "additionalProperties": false}"""
    neighbor, judged, first, again, choice, refused = await asyncio.gather(
        ask(runtime, france, GREEDY),
        ask(runtime, "Is it so?", formatted(GREEDY, ResponseFormat("json_schema", verdict))),
        ask(runtime, "What time is it?", clock),
        ask(runtime, "What time is it?", clock),
        ask(runtime, "Is it so?", formatted(RANDOM, ResponseFormat("lark", 'start: "yes" | "no" ", " /[a-z]{3}/'))),
        ask(runtime, "Is it so?", formatted(RANDOM, ResponseFormat("regex", "(["))),
        return_exceptions=True,
    )
    assert isinstance(refused, InvalidInput)
    assert not any(isinstance(each, BaseException) for each in (neighbor, judged, first, again, choice))
    assert answer(neighbor) == alone  # type: ignore[arg-type]
    assert json.loads(answer(judged)) in ({"ok": True}, {"ok": False})  # type: ignore[arg-type]
    assert re.fullmatch("[0-9]{2}:[0-9]{2}", answer(first))  # type: ignore[arg-type]
    assert answer(again) == answer(first)  # type: ignore[arg-type]
    assert re.fullmatch("yes|no, [a-z]{3}", answer(choice))  # type: ignore[arg-type]
    assert {end(each).reason for each in (judged, first, again, choice)} == {"stop"}  # type: ignore[arg-type]


@pytest.mark.parametrize("use_numpy", [True, False], ids=["numpy", "mlx"])
def test_a_random_model_writes_valid_json_beside_a_free_neighbor(use_numpy: bool) -> None:
    bench = ByteBench()
    bench._runner._maker._use_numpy = use_numpy
    free = bench.prepare(1, TextPrompt("neighbor"), GREEDY)
    alone = answer(bench.run(free)[1])
    schema = bench.prepare(2, TextPrompt("x"), formatted(RANDOM, ResponseFormat("json_schema", PERSON)))
    events = bench.run(free, schema)
    assert answer(events[1]) == alone
    assert len(json.loads(answer(events[2]))["name"]) <= 12
    assert end(events[2]).reason == "stop"


def test_a_format_is_followed_by_every_choice_on_its_own() -> None:
    bench = ByteBench()
    sampling = msgspec.structs.replace(formatted(RANDOM, DATE), n=3)
    events = bench.run(bench.prepare(1, TextPrompt("x" * 80), sampling))[1]
    texts = {
        row: "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == row)
        for row in range(3)
    }
    assert all(re.fullmatch(DATE.text, text) for text in texts.values())
    assert len(set(texts.values())) == 3


def test_a_format_survives_a_failed_step() -> None:
    bench = ByteBench()
    steps = iter([None] * 6 + [RuntimeError("out of luck")])

    def fail() -> None:
        if error := next(steps, None):
            raise error

    bench.fail_step = fail
    events = bench.run(bench.prepare(1, TextPrompt("x"), formatted(RANDOM, DATE)))[1]
    assert not bench.failures
    assert re.fullmatch(DATE.text, answer(events))


def test_a_format_that_is_filled_with_the_last_token_ends_with_stop() -> None:
    bench = ByteBench()
    exact = msgspec.structs.replace(formatted(RANDOM, DATE), max_tokens=10)
    assert end(bench.run(bench.prepare(1, TextPrompt("x"), exact))[1]).reason == "stop"
    short = msgspec.structs.replace(exact, max_tokens=9)
    assert end(bench.run(bench.prepare(2, TextPrompt("x"), short))[2]).reason == "length"


def test_with_a_thinking_model_the_format_begins_after_the_thought() -> None:
    bench = ByteBench(thinks=True)
    [closes] = bench.tokenizer.encode("</think>")
    sampling = msgspec.structs.replace(formatted(RANDOM, DATE), n=4, max_tokens=200, logit_bias=((closes, 3.5),))
    events = bench.run(bench.prepare(1, ChatPrompt((Message("user", "When?"),)), sampling))[1]
    for row in range(4):
        text = "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == row)
        assert re.fullmatch(DATE.text, text)
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert thought
    assert "</think>" not in thought
    assert all(event.usage.reasoning_tokens for event in events if isinstance(event, Finished))


def test_a_model_that_opens_a_thought_itself_may_do_so_once() -> None:
    used = tokenizer()
    [opens], [closes], [letter] = (used.encode(text) for text in ("<think>", "</think>", "7"))
    thinking = Thinking(False, (opens,), (closes,))
    grammar = GrammarCompiler(used).compile(DATE, thinking)
    state = GrammarState(grammar, frozenset({256}))
    assert state.allowed(300)[[opens, letter]].all()
    state.take(opens)
    assert state.thinks
    state.take(letter)
    state.take(closes)
    assert not state.thinks
    assert state.allowed(300)[letter]
    assert not state.allowed(300)[opens]
    straight = GrammarState(grammar, frozenset({256}))
    straight.take(letter)
    assert not straight.allowed(300)[opens]


@pytest.mark.parametrize(
    "wanted",
    [
        ResponseFormat("regex", "(["),
        ResponseFormat("regex", r"[^\s\S]"),
        ResponseFormat("regex", "a{1000000}"),
        ResponseFormat("lark", "start: start"),
        ResponseFormat("json_schema", '{"$ref": "#"}'),
        ResponseFormat("json_schema", '{"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}'),
        ResponseFormat("lark", "start: nothing"),
        ResponseFormat("json_schema", '{"type": "strin"}'),
        ResponseFormat("json_schema", "[1"),
        ResponseFormat("json_schema", '"text"', field="response_format.json_schema.schema"),
    ],
)
def test_a_format_that_cannot_be_used_is_refused_by_name(wanted: ResponseFormat) -> None:
    with pytest.raises(InvalidInput) as refused:
        ByteBench().prepare(1, TextPrompt("x"), formatted(GREEDY, wanted))
    assert refused.value.param == wanted.field
    assert "<state>" not in refused.value.message


def test_a_grammar_that_outgrows_its_limits_fails_its_request_alone_as_the_one_at_fault() -> None:
    bench = ByteBench()
    endless = ResponseFormat("lark", 'start: "a" start', field="response_format.lark")
    outgrown = bench.prepare(1, TextPrompt("x"), formatted(GREEDY, endless))
    events = bench.run(outgrown, bench.prepare(2, TextPrompt("y"), GREEDY))
    [failed] = bench.failures
    assert (failed.request, failed.failure.code, failed.failure.param) == (1, "invalid_input", "response_format.lark")
    assert end(events[2]).reason == "length"


def test_any_object_is_json() -> None:
    bench = ByteBench()
    letters = [token for token in range(256) if bench.tokenizer.decode([token]) not in '{}":,ab']
    bias = tuple((token, -100.0) for token in letters)
    sampling = msgspec.structs.replace(
        formatted(RANDOM, ResponseFormat("json_object")), logit_bias=bias, max_tokens=400
    )
    events = bench.run(bench.prepare(1, TextPrompt("x"), sampling))[1]
    assert end(events).reason == "stop"
    assert isinstance(json.loads(answer(events)), dict)
