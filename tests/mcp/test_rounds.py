"""One answer in which a model calls tools: the engine is played, the server is a real process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from squish.chats.messages import CalledTool, ChatTools, ToolStep
from squish.config.mcp_server import McpServer
from squish.config.settings import Settings
from squish.generation import (
    EVENTS_AT_ONCE,
    ChatPrompt,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    TextDelta,
    TextPrompt,
    Timings,
    ToolCallDelta,
    Usage,
)
from squish.mcp import permissions, rounds
from squish.mcp.events import AnswerPart, AnswerStopped, Doing, Reaching, Steps, ToolProblem
from squish.mcp.rounds import Rounds
from squish.mcp.sources import Known
from squish.mcp.toolbox import Toolbox
from tests.conftest import PATIENCE
from tests.mcp.test_client import program, toolbox

ASKED = GenerationRequest("m", (ChatPrompt((Message("user", "hi"),)),))
Said = list[tuple[str, str]] | str


class Engine:
    """Says one thing after the other: a text, or calls of tools with their arguments."""

    def __init__(self, *says: Said) -> None:
        self.says = list(says)
        self.prompts: list[ChatPrompt] = []
        self.heard: list[AnswerPart] = []
        self.asked: list[CalledTool] = []
        self.allows = True
        self.wait: Callable[[CalledTool], None] = lambda call: None

    @asynccontextmanager
    async def generate(self, request: GenerationRequest) -> AsyncIterator[Engine]:
        (prompt,) = request.prompts
        assert isinstance(prompt, ChatPrompt)
        self.prompts.append(prompt)
        yield self

    def cancel(self) -> None:
        self.says.clear()

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        said = self.says.pop(0)
        if isinstance(said, str):
            yield TextDelta(0, said)
        else:
            for at, (name, arguments) in enumerate(said):
                yield ToolCallDelta(0, at, f"c{at}", name, "")
                yield ToolCallDelta(0, at, f"c{at}", None, arguments)
        reason = "stop" if isinstance(said, str) else "tool_calls"
        yield Finished(0, reason, Usage(1, 1), Timings(0, 0))  # type: ignore[arg-type]

    async def count(self, model: str, prompts: tuple[TextPrompt, ...]) -> tuple[int, ...]:
        """Two characters are a token."""
        return tuple(len(prompt.text) // 2 for prompt in prompts)

    async def permit(self, call: CalledTool) -> bool:
        self.asked.append(call)
        self.wait(call)
        return self.allows

    @property
    def steps(self) -> tuple[ToolStep, ...]:
        return [each.steps for each in self.heard if isinstance(each, Steps)][-1]

    @property
    def results(self) -> list[tuple[str, str]]:
        return [(call.outcome, call.result) for step in self.steps for call in step.calls]


@asynccontextmanager
async def playing(home: Path, engine: Engine, **more: int | bool) -> AsyncIterator[Rounds]:
    options = {"able": True} | more
    async with toolbox(home) as box:
        yield Rounds(engine.generate, engine.count, box, engine.permit, engine.heard.append, **options)  # type: ignore[arg-type]


async def play(home: Path, engine: Engine, **more: int | bool) -> None:
    async with playing(home, engine, **more) as answer:
        await answer.run(ASKED, ["test"])


async def test_calls_are_made_and_the_model_reads_what_they_gave(tmp_path: Path) -> None:
    engine = Engine([("echo", '{"text": "one"}'), ("fail", "{}")], "done")
    await play(tmp_path, engine)
    first, second = engine.prompts
    assert {"echo", "fail", "die"} <= {tool.name for tool in first.tools}
    assert [(each.role, each.content, each.tool_call_id) for each in second.messages] == [
        ("user", "hi", None),
        ("assistant", "", None),
        ("tool", "one", "c0"),
        ("tool", "it went wrong", "c1"),
    ]
    assert [call.name for call in second.messages[1].tool_calls] == ["echo", "fail"]
    assert engine.results == [("done", "one"), ("failed", "it went wrong")]
    assert [call.tool for call in engine.asked] == ["test/echo", "test/fail"]


async def test_what_is_refused_or_unknown_is_not_called(tmp_path: Path) -> None:
    engine = Engine([("echo", '{"text": "one"}'), ("nothing", "{}")], "done")
    engine.allows = False
    await play(tmp_path, engine)
    assert engine.results == [
        ("refused", "The user did not allow this call."),
        ("failed", "There is no tool nothing."),
    ]
    assert len(engine.asked) == 1


async def test_arguments_that_are_not_json_are_told_to_the_model(tmp_path: Path) -> None:
    engine = Engine([("echo", '{"text": ')], "done")
    await play(tmp_path, engine)
    assert engine.results == [("failed", "The arguments are not a JSON object.")]
    assert engine.asked == [], "nobody is asked about what cannot be called"


async def test_others_have_their_turn_between_bursts_of_pieces(tmp_path: Path) -> None:
    class Bursting(Engine):
        async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
            for _ in range(10 * EVENTS_AT_ONCE):  # there already: nothing is waited for
                yield TextDelta(0, "x")
            yield Finished(0, "stop", Usage(1, 1), Timings(0, 0))

    engine, heard = Bursting("one"), list[int]()

    async def take_turns() -> None:
        while True:
            heard.append(len(engine.heard))
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    await play(tmp_path, engine)
    other.cancel()
    assert max(after - before for before, after in pairwise(heard)) <= 2 * EVENTS_AT_ONCE


async def test_a_result_is_cut_to_its_tokens(tmp_path: Path) -> None:
    engine = Engine([("huge", "{}")], "done")
    await play(tmp_path, engine, context=4000)
    ((_, result),) = engine.results
    assert 1000 < len(result) <= 2000
    assert "characters left out" in result


async def test_a_model_that_never_stops_calling_has_to_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "MOST_ROUNDS", 3)
    engine = Engine(*([("echo", '{"text": "again"}')] for _ in range(3)), "done")  # type: ignore[arg-type]
    await play(tmp_path, engine)
    assert [bool(prompt.tools) for prompt in engine.prompts] == [True, True, True, False]
    assert not engine.says


async def test_calls_beyond_the_last_round_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "MOST_ROUNDS", 2)
    engine = Engine(*([("echo", '{"text": "again"}')] for _ in range(9)))  # type: ignore[arg-type]
    await play(tmp_path, engine)
    assert [outcome for outcome, _ in engine.results] == ["done", "done", "refused"]
    assert len(engine.prompts) == 3


async def test_a_model_without_a_format_for_calls_answers_without_tools(tmp_path: Path) -> None:
    engine = Engine("done")
    await play(tmp_path, engine, able=False)
    assert engine.prompts[0].tools == ()
    (problem,) = (each.error.message for each in engine.heard if isinstance(each, ToolProblem))
    assert problem.startswith("This model cannot call tools")


async def test_a_server_that_fails_is_said_and_the_answer_goes_on(tmp_path: Path) -> None:
    engine = Engine("done")
    async with toolbox(tmp_path, "die-at-once") as box:
        await Rounds(engine.generate, engine.count, box, engine.permit, engine.heard.append, able=True).run(
            ASKED, ["test"]
        )
    (problem,) = (each.error.message for each in engine.heard if isinstance(each, ToolProblem))
    assert problem == "test: it ended with exit code 1: no configuration found."
    assert engine.prompts[0].tools == ()


@pytest.mark.parametrize("moment", ["asked", "running"])
async def test_it_can_be_stopped_between_generations(moment: str, tmp_path: Path) -> None:
    engine = Engine([("echo", '{"text": "one"}'), ("hang", "{}"), ("echo", "{}")], "never")
    async with playing(tmp_path, engine) as answer:
        if moment == "asked":
            engine.wait = lambda call: answer.stop() if call.name == "hang" else None
        else:
            at_work = engine.heard.append

            def report(part: AnswerPart) -> None:
                at_work(part)
                if isinstance(part, Doing) and part.call.name == "hang" and part.call.outcome == "running":
                    asyncio.get_running_loop().call_soon(answer.stop)

            answer._report = report
        await answer.run(ASKED, ["test"])
    assert isinstance(engine.heard[-1], AnswerStopped)
    assert [outcome for outcome, _ in engine.results] == ["done", "stopped", "stopped"]
    assert len(engine.prompts) == 1


async def test_an_answer_that_goes_on_keeps_what_was_said_before(tmp_path: Path) -> None:
    engine = Engine([("echo", '{"text": "one"}')], "done")
    prompt = ChatPrompt((Message("user", "hi"), Message("assistant", "Let me ")), continue_last=True)
    async with playing(tmp_path, engine) as answer:
        await answer.run(GenerationRequest("m", (prompt,)), ["test"], ["test/die"])
    assert engine.prompts[0].continue_last
    assert "die" not in {tool.name for tool in engine.prompts[0].tools}
    assert not engine.prompts[1].continue_last
    assert [each.content for each in engine.prompts[1].messages] == ["hi", "Let me ", "one"]


def test_a_permission_is_for_the_server_as_it_is_set_up(tmp_path: Path) -> None:
    test = Known("test", program(), "a/.mcp.json")
    assert not permissions.is_allowed(tmp_path, "test/echo", test)
    permissions.allow(tmp_path, "test/echo", test)
    permissions.allow(tmp_path, "test/fail", test)
    assert permissions.is_allowed(tmp_path, "test/echo", test)
    assert not permissions.is_allowed(tmp_path, "test/none", test)
    assert not permissions.is_allowed(tmp_path, "test/echo", Known("test", program("another"), "a/.mcp.json"))
    elsewhere = Known("test", program(), "b/.mcp.json")
    assert not permissions.is_allowed(tmp_path, "test/echo", elsewhere), "its arguments are relative to another project"
    preloaded = Known("test", program(env={"LD_PRELOAD": "./evil.so"}), "a/.mcp.json")
    assert not permissions.is_allowed(tmp_path, "test/echo", preloaded)
    permissions.forget(tmp_path, ["test/echo", "gone"])
    assert not permissions.is_allowed(tmp_path, "test/echo", test)
    assert permissions.allowed(tmp_path) == ["test/fail"]


def test_a_chat_switches_on_a_server_and_not_all_that_have_its_name() -> None:
    ours, theirs = Known("files", program(), "a/.mcp.json"), Known("files", program("another"), "b/.mcp.json")
    tools = replace(permissions.switched(ChatTools(("time",)), ours), off=("files/write",), allowed=("files/read",))
    assert permissions.is_on(tools, ours) and not permissions.is_on(tools, theirs)
    assert list(permissions.changed(tools, [theirs])) == ["files"] and not permissions.changed(tools, [ours])
    other = permissions.switched(tools, theirs)
    assert permissions.is_on(other, theirs) and (other.servers, other.off, other.allowed) == (("time", "files"), (), ())
    assert permissions.switched(tools, ours).servers == ("time",)


@pytest.mark.parametrize("at", [Reaching, Doing, Steps])
async def test_who_hears_of_an_answer_can_stop_it_there(at: type[AnswerPart], tmp_path: Path) -> None:
    """Before what it hears of has begun: that does not begin, and is not forgotten either."""
    engine = Engine([("echo", '{"text": "one"}')], "never")

    def hear(part: AnswerPart) -> None:
        engine.heard.append(part)
        if isinstance(part, at):
            answer.stop()

    async with toolbox(tmp_path) as box:
        answer = Rounds(engine.generate, engine.count, box, engine.permit, hear, able=True)
        await answer.run(ASKED, ["test"])
    assert isinstance(engine.heard[-1], AnswerStopped)
    assert engine.asked == []


async def test_of_several_servers_those_are_named_that_are_still_waited_for(tmp_path: Path) -> None:
    silent = McpServer(sys.executable, ("-c", "import sys; sys.stdin.read()"), timeout=PATIENCE)
    settings = Settings(home=tmp_path, cache_dir=tmp_path, mcp=(("quick", program()), ("silent", silent)))
    engine, box = Engine("never"), Toolbox(settings, tmp_path)
    answer = Rounds(engine.generate, engine.count, box, engine.permit, engine.heard.append, able=True)
    running = asyncio.create_task(answer.run(ASKED, ["quick", "silent"]))
    while Reaching(("silent",)) not in engine.heard:
        await asyncio.sleep(0.01)
    answer.stop()
    await running
    await box.close()
    assert engine.heard[:2] == [Reaching(("quick", "silent")), Reaching(("silent",))]
