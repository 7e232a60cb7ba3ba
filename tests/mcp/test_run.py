"""`squish run --mcp` and `squish mcp`, as somebody at a terminal and as a script. The model and the server are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from squish.chats.chats import Chats
from squish.chats.messages import CalledTool
from squish.commands.answers.run_tools import RunTools
from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.mcp import permissions
from squish.mcp.sources import Known
from squish.models.store import Store
from squish.runtime import Runtime
from tests.conftest import SQUISH, clean_environment
from tests.mcp.test_client import SERVER, program
from tests.worker import said

MODEL = "said:1b"


def environment(home: Path, *faults: str) -> dict[str, str]:
    """That of a home with a server named test, and one named broken."""
    config = home / ".squish" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    arguments = json.dumps([SERVER, *faults])
    config.write_text(
        f"[mcp.test]\ncommand = {json.dumps(sys.executable)}\nargs = {arguments}\n\n"
        '[mcp.broken]\ncommand = "no-such-program"\n'
    )
    return clean_environment(home) | {"SQUISH_OFFLINE": "1"}


def squish(home: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """typed: what somebody at a terminal answers; without any there is no terminal."""
    user, terminal = os.openpty()
    os.write(user, typed.encode())
    try:
        return subprocess.run(
            [SQUISH, *arguments], env=environment(home), stdin=terminal if typed else subprocess.DEVNULL,
            capture_output=True, text=True, cwd=home, start_new_session=True, check=False,
        )  # fmt: skip
    finally:
        os.close(user)
        os.close(terminal)


def test_a_model_calls_a_tool_that_is_allowed_and_both_are_kept(tmp_path: Path) -> None:
    said.install(Store(tmp_path / ".squish" / "models"), MODEL)
    done = squish(tmp_path, "run", MODEL, "--mcp", "test", "--save", "--prompt", "Weather?", typed="y\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{said.ENDING}\n"
    assert f'The model wants to call test/weather with\n  city: "{said.CITY}"\n' in done.stderr
    assert f"done: rain in {said.CITY}" in done.stderr
    chats = Chats(tmp_path / ".squish" / "chats.db")
    question, answer = chats.branch(1)
    chats.close()
    (step,) = answer.steps
    (call,) = step.calls
    assert (question.text, answer.text, step.reasoning) == ("Weather?", said.ENDING, said.THOUGHT)
    assert (call.tool, call.outcome, call.result) == ("test/weather", "done", f"rain in {said.CITY}")
    exported = squish(tmp_path, "chats", "export", "1", "--format", "jsonl")
    roles = [message["role"] for message in json.loads(exported.stdout)["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant"]


def test_where_nobody_can_be_asked_it_refuses_before_it_begins(tmp_path: Path) -> None:
    done = squish(tmp_path, "run", MODEL, "--mcp", "test", "--prompt", "Weather?")
    assert done.returncode == 2
    assert "Tool calls need confirmation, and no terminal is available." in done.stderr
    assert "--mcp-allow" in done.stderr


async def test_a_tool_is_called_without_a_question_only_where_it_was_named(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, cache_dir=tmp_path, mcp=(("test", program()),))
    async with Runtime(settings) as runtime:
        for allowed in (["weather"], ["test/weather"], ["all"]):
            tools = RunTools(runtime, ["test"], allowed, None)
            await tools.prepare()
            assert await tools._permit(CalledTool("1", "weather", "{}", "test/weather"))
            assert await tools._permit(CalledTool("1", "die", "{}", "test/die")) == (allowed == ["all"])
        with pytest.raises(InvalidInput, match="No tool is named wether"):
            await RunTools(runtime, ["test"], ["wether"], None).prepare()


@pytest.mark.parametrize(
    ("answers", "asked"), [(["y", "y"], 2), (["c"], 1), (["a"], 1), (["n", ""], 2)], ids=lambda value: str(value)
)
async def test_who_is_asked_says_for_how_long(answers: list[str], asked: int, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, cache_dir=tmp_path, mcp=(("test", program()),))
    questions: list[str] = []

    async def ask(question: str) -> str:
        questions.append(question)
        return answers[len(questions) - 1]

    async with Runtime(settings) as runtime:
        tools = RunTools(runtime, ["test"], [], ask)
        call = CalledTool("1", "weather", "{}", "test/weather")
        assert [await tools._permit(call) for _ in range(2)] == [answers[0] in "yca"] * 2
        assert len(questions) == asked
        again = RunTools(runtime, ["test"], [], None)
        assert await again._permit(call) == (answers == ["a"]), "always is for the next run, too"


def test_scripts_list_servers_and_tools_and_call_one(tmp_path: Path) -> None:
    listed = json.loads(squish(tmp_path, "mcp", "list", "--json").stdout)
    assert [(each["name"], each["source"]) for each in listed] == [
        ("test", "~/.squish/config.toml"),
        ("broken", "~/.squish/config.toml"),
    ]
    tools = json.loads(squish(tmp_path, "mcp", "tools", "test", "--json").stdout)
    assert "city" in next(tool for tool in tools if tool["name"] == "weather")["parameters"]["properties"]
    called = squish(tmp_path, "mcp", "call", "test", "weather", '{"city": "Bonn"}')
    assert (called.returncode, called.stdout) == (0, "rain in Bonn\n")
    failed = squish(tmp_path, "mcp", "call", "test", "fail")
    assert (failed.returncode, failed.stdout) == (1, "it went wrong\n")
    broken = squish(tmp_path, "mcp", "tools", "broken")
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "broken: the program no-such-program is not there." in broken.stderr
    wrong = squish(tmp_path, "mcp", "call", "test", "weather", "[]")
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_permissions_are_listed_and_taken_back(tmp_path: Path) -> None:
    home = tmp_path / ".squish"
    for tool in ("test/fail", "test/weather"):
        permissions.allow(home, tool, Known("test", program(), "config.toml"))
    assert json.loads(squish(tmp_path, "mcp", "allowed", "--json").stdout) == ["test/fail", "test/weather"]
    wrong = squish(tmp_path, "mcp", "allowed", "--forget", "test/none")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert squish(tmp_path, "mcp", "allowed", "--forget", "test/fail").returncode == 0
    assert squish(tmp_path, "mcp", "allowed").stdout.split() == ["ALWAYS", "ALLOWED", "test/weather"]
    squish(tmp_path, "mcp", "allowed", "--forget")
    assert json.loads(squish(tmp_path, "mcp", "allowed", "--json").stdout) == []
