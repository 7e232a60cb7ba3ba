"""A client and real processes: what a server does well arrives, and what it does badly ends in one sentence."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from squish.config.mcp_server import McpServer
from squish.config.settings import Settings
from squish.errors import ConfigError, McpError, Offline
from squish.mcp.client import Client
from squish.mcp.stdio import StdioTransport
from squish.mcp.toolbox import Toolbox, gather
from squish.mcp.tools import ServerTool, ToolResult, readable
from squish.mcp.transport import ServerLog
from tests.conftest import PATIENCE
from tests.mcp.server import TOOLS

SERVER = str(Path(__file__).with_name("server.py"))


def program(*faults: str, timeout: float = PATIENCE, **more: object) -> McpServer:
    return McpServer(sys.executable, ("-S", "-E", SERVER, *faults), timeout=timeout, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def toolbox(home: Path, *faults: str, **more: object) -> AsyncIterator[Toolbox]:
    """One with a server named test."""
    server = program(*faults, **more)  # type: ignore[arg-type]
    opened = Toolbox(Settings(home=home, cache_dir=home, mcp=(("test", server),)), home)
    try:
        yield opened
    finally:
        await opened.close()


async def call(box: Toolbox, name: str, arguments: str = "{}", **more: Callable[[str], None]) -> ToolResult:
    tool = next(each for each in await box.tools("test") if each.name == name)
    return await box.call(tool, arguments, **more)


async def test_tools_are_listed_called_and_report_progress(tmp_path: Path) -> None:
    async with toolbox(tmp_path) as box:
        tools = await box.tools("test")
        assert [tool.id for tool in tools][:2] == ["test/echo", "test/environment"]
        assert '"required":["text"]' in tools[0].schema
        heard: list[str] = []
        assert await call(box, "echo", '{"text": "grüß\\u001b[31m dich"}', progress=heard.append) == ToolResult(
            "grüß dich"
        )
        assert heard == ["1/2 half"]
        assert await call(box, "fail") == ToolResult("it went wrong", failed=True)
        assert (await call(box, "seen")).text.split()[:3] == ["initialize", "notifications/initialized", "tools/list"]


async def test_calls_at_the_same_time_get_their_own_answers(tmp_path: Path) -> None:
    async with toolbox(tmp_path) as box:
        echo, *_ = await box.tools("test")
        results = await asyncio.gather(*(box.call(echo, f'{{"text": "{at}"}}') for at in range(20)))
        assert [each.text for each in results] == [str(at) for at in range(20)]


async def test_pages_are_put_together_and_a_list_without_end_ends(tmp_path: Path) -> None:
    async with toolbox(tmp_path / "a", "pages") as box:
        assert len(await box.tools("test")) == len(TOOLS)
    async with toolbox(tmp_path / "b", "endless") as box:
        assert [tool.name for tool in await box.tools("test")] == ["echo"]


async def test_a_list_that_has_changed_is_read_again(tmp_path: Path) -> None:
    async with toolbox(tmp_path, "changes") as box:
        await call(box, "seen")  # what came before its answer has been read
        assert "new" in [tool.name for tool in await box.tools("test")]


async def test_only_the_tools_that_are_named_are_there(tmp_path: Path) -> None:
    async with toolbox(tmp_path, tools=("echo", "nothing")) as box:
        assert [tool.name for tool in await box.tools("test")] == ["echo"]


async def test_a_tool_that_cannot_be_read_is_left_out_and_texts_are_cleaned(tmp_path: Path) -> None:
    async with toolbox(tmp_path, "odd-tools") as box:
        assert [(tool.name, tool.description) for tool in await box.tools("test")] == [("ok", "ab")]


async def test_a_server_without_a_handshake_is_spoken_to(tmp_path: Path) -> None:
    async with toolbox(tmp_path, "stateless") as box:
        assert (await call(box, "echo", '{"text": "hi"}')).text == "hi"


async def test_what_a_server_asks_is_answered(tmp_path: Path) -> None:
    async with toolbox(tmp_path, "asks") as box:
        while (seen := (await call(box, "seen")).text.split()).count("refused") < 1 or "answered" not in seen:
            pass


async def test_its_environment_is_a_small_one_and_what_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("MY_KEY", "k3y")
    async with toolbox(tmp_path, env={"KEY": "${env:MY_KEY}"}) as box:
        names = (await call(box, "environment")).text.split()
        assert {"HOME", "PATH", "KEY"} <= set(names)
        assert "HF_TOKEN" not in names
        assert "MY_KEY" not in names
    async with toolbox(tmp_path, env={"KEY": "${env:NOT_SET}"}) as box:
        with pytest.raises(ConfigError, match=r"test: env.KEY is taken from NOT_SET, which is not set\."):
            await box.tools("test")


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (("mute",), "test: it did not answer within 0.2 s."),
        (("die-at-once",), "test: it ended with exit code 1: no configuration found."),
        (("flood",), "test: it sent more than 10,000 unsolicited messages."),
        (("huge-line",), "test: it sent a message of more than 8 MiB."),
        (("old",), "test: it speaks version 1999-01-01 of the protocol, which Squish does not."),
    ],
)
async def test_what_a_server_does_badly_is_one_sentence(tmp_path: Path, faults: tuple[str, ...], said: str) -> None:
    async with toolbox(tmp_path, *faults, timeout=0.2 if "mute" in faults else PATIENCE) as box:
        with pytest.raises(McpError) as failure:
            await box.tools("test")
        assert failure.value.message == said
        assert not box.is_connected("test")
        with pytest.raises(McpError):  # it is left alone for a while: nobody waits twice
            await box.tools("test")


async def test_what_cannot_be_sent_any_more_says_how_the_server_ended(tmp_path: Path) -> None:
    server = McpServer(sys.executable, ("-S", "-E", "-c", "import sys; sys.exit('no configuration found')"))
    transport, ended = StdioTransport(server, ServerLog(tmp_path / "mcp.log", "test")), asyncio.Event()
    await transport.start(lambda message: None, lambda error: ended.set())
    await ended.wait()
    with pytest.raises(McpError) as caught:
        await transport.send(b"{}", {}, asks=True)
    assert caught.value.message == "it ended with exit code 1: no configuration found"
    await transport.close()


async def test_garbage_between_messages_is_passed_over_and_logged(tmp_path: Path) -> None:
    async with toolbox(tmp_path, "garbage") as box:
        assert (await call(box, "echo", '{"text": "hi"}')).text == "hi"
        assert "not a message: hello, I am no JSON" in box.log_path.read_text()
        assert box.log_path.stat().st_mode & 0o777 == 0o600


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    box = Toolbox(Settings(home=tmp_path, cache_dir=tmp_path, mcp=(("test", McpServer("no-such-program")),)), tmp_path)
    with pytest.raises(McpError, match=r"test: the program no-such-program is not there\."):
        await box.tools("test")


async def test_a_server_that_dies_is_said_to_have_and_starts_again(tmp_path: Path) -> None:
    async with toolbox(tmp_path) as box:
        died = await call(box, "die")
        assert died == ToolResult("test: it ended with exit code 7: I cannot go on.", failed=True)
        assert (await call(box, "echo", '{"text": "again"}')).text == "again"


async def test_a_result_is_kept_up_to_a_limit(tmp_path: Path) -> None:
    async with toolbox(tmp_path) as box:
        assert len((await call(box, "huge")).text) == 1_000_000


async def test_a_call_that_is_cancelled_or_takes_too_long_is_called_off_and_harms_nothing(tmp_path: Path) -> None:
    async with toolbox(tmp_path) as box:
        tools = {tool.name: tool for tool in await box.tools("test")}
        task = asyncio.create_task(box.call(tools["hang"], "{}"))
        while "tools/call" not in (await box.call(tools["seen"], "{}")).text.split()[:-1]:
            pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while "notifications/cancelled" not in (await box.call(tools["seen"], "{}")).text:
            pass
    async with toolbox(tmp_path) as box:
        await box.tools("test")
        client = box._connections["test"].client
        client._timeout = 0.1  # starting it may take longer
        late = await call(box, "hang")
        assert late == ToolResult("test: it did not answer within 0.1 s.", failed=True)
        client._timeout = PATIENCE
        assert (await call(box, "echo", '{"text": "here"}')).text == "here"


async def test_a_server_that_answers_nothing_any_more_is_ended_and_starts_again(tmp_path: Path) -> None:
    async with toolbox(tmp_path) as box:
        await box.tools("test")
        box._connections["test"].client._timeout = 0.1
        frozen = await call(box, "freeze")
        assert frozen == ToolResult("test: it did not answer within 0.1 s.", failed=True)
        while box.is_connected("test"):
            await asyncio.sleep(0.005)
        assert (await call(box, "echo", '{"text": "again"}')).text == "again"


async def test_arguments_that_are_not_an_object_are_a_failed_result(tmp_path: Path) -> None:
    box = Toolbox(Settings(home=tmp_path, cache_dir=tmp_path), tmp_path)
    tool = ServerTool("test", "echo", "", "", "{}")
    for arguments in ("[1]", "{", "3"):
        assert await box.call(tool, arguments) == ToolResult("The arguments are not a JSON object.", failed=True)


async def test_one_server_that_fails_leaves_the_tools_of_the_others(tmp_path: Path) -> None:
    servers = (("good", program()), ("bad", program("die-at-once")))
    box = Toolbox(Settings(home=tmp_path, cache_dir=tmp_path, mcp=servers), tmp_path)
    tools, problems = await gather(box, ["good", "bad"], lambda left: None)
    assert {tool.server for tool in tools} == {"good"}
    assert [problem.message for problem in problems] == ["bad: it ended with exit code 1: no configuration found."]
    await box.close()


async def test_nothing_of_a_server_is_left_when_it_is_closed(tmp_path: Path) -> None:
    """It ignores the end of its input and SIGTERM, and has a child that knows nothing of us."""
    log = ServerLog(tmp_path / "mcp.log", "test")
    transport = StdioTransport(program("stubborn", "child"), log, grace=0.05)
    client = Client(transport, log, PATIENCE)
    await client.connect()
    await client.tools()
    assert transport.pid is not None
    process = psutil.Process(transport.pid)
    children = process.children()
    assert [child.name() for child in children] == ["sleep"]
    await client.close()
    while any(lives(each) for each in (process, *children)):
        await asyncio.sleep(0.01)


async def failure(home: Path, *faults: str, **times: float) -> tuple[str, StdioTransport]:
    """What a server ended with that nobody listened to until then, and its transport, which has been closed."""
    log = ServerLog(home / "mcp.log", "test")
    transport = StdioTransport(program(*faults), log, **times)
    client = Client(transport, log, PATIENCE)
    await transport.start(client._receive, client._end)
    assert transport.pid is not None
    with suppress(psutil.NoSuchProcess):  # it may have ended, and been reaped in a thread, already
        process = psutil.Process(transport.pid)
        while "closed" not in faults and lives(process):
            pass  # without letting the loop go on: the first that it does is to write into a closed pipe
    with pytest.raises(McpError) as raised:
        await client._initialize()
    await client.close()
    return raised.value.message, transport


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (("die-at-once",), "it ended with exit code 1: no configuration found"),
        (("chatter", "die-at-once"), "it ended with exit code 1: no configuration found"),
        (("killed",), "it was ended by SIGUSR1"),
    ],
)
async def test_how_a_server_ended_is_said_however_late_that_is_noticed(
    tmp_path: Path, faults: tuple[str, ...], said: str
) -> None:
    assert (await failure(tmp_path, *faults))[0] == said


@pytest.mark.parametrize(("stream", "named"), [("0", "input"), ("1", "output")])
async def test_a_server_that_lives_on_without_its_streams_is_ended(tmp_path: Path, stream: str, named: str) -> None:
    said, transport = await failure(tmp_path, "closed", stream, grace=0.05, ending=0.05)
    assert said == f"it closed its {named}"
    assert transport.pid is not None and not psutil.pid_exists(transport.pid)


async def test_a_daemon_that_a_server_leaves_behind_holds_nothing_up(tmp_path: Path) -> None:
    """It is not in the server's group, and holds its stderr open."""
    found = tmp_path / "pid"
    said, _ = await failure(tmp_path, "chatter", "daemon", "die-at-once", str(found))
    psutil.Process(int(found.read_text())).kill()
    assert said == "it ended with exit code 1: no configuration found"


def lives(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended may wait for its parent to hear of it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_offline_reaches_nothing_on_other_computers(tmp_path: Path) -> None:
    server = McpServer(url="https://mcp.example.com/mcp")
    box = Toolbox(Settings(home=tmp_path, cache_dir=tmp_path, offline=True, mcp=(("far", server),)), tmp_path)
    with pytest.raises(Offline, match="far: it is on another computer"):
        await box.tools("far")


def test_arguments_are_shown_in_full_with_escapes_for_what_a_terminal_would_obey() -> None:
    shown = readable(json.dumps({"path": "/a\u202e", "content": "one\ntwo \x1b[31m", "deep": {"n": [1, None]}}))
    assert shown == 'path: "/a\\u202e"\ncontent:\n  one\n  two \\u001b[31m\ndeep: {"n": [1, null]}'
    assert readable("{\x1b[31m") == "{\\u001b[31m"
    assert readable("{}") == "{}"
