"""Moments of the TUI, played on the scripted engine, for the snapshot tests and the pictures of the documentation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

from textual.containers import VerticalScroll
from textual.pilot import Pilot

from squish.chats.messages import CalledTool
from squish.chats.tags import change
from squish.errors import HubUnreachable, WorkerDied
from squish.generation import ChatPrompt, GenerationRequest, Loading, Message, ResponseFormat, SamplingParams, Tool
from squish.mcp.events import Doing
from squish.models.catalog import PackageSource
from squish.sessions.activity import RequestState, RequestStatus
from squish.sessions.request_details import RequestDetails, parameters
from squish.tui import preferences
from squish.tui.downloads import Transfer
from squish.tui.memory_readings import Memory
from squish.tui.messages import AnswerEvent
from squish.tui.server.api_server import ApiServer
from squish.tui.server.load_history import LoadPoint
from squish.tui.widgets.chat.chat_view import ChatView
from squish.tui.widgets.chat.prompt import PromptInput
from squish.tui.widgets.markdown.live import LiveMarkdown
from squish.tui.widgets.table import Table
from tests.tui.at_rest import at_rest, drawn_lines
from tests.tui.scripted import MODELS, SMOL, FrozenMachine, ScriptedApp

QUESTION = "Match ISO dates"
SOME_DAY = datetime(2026, 5, 1, 12, tzinfo=UTC)
STORY = (
    "**regular expression** for an ISO date has three groups",
    ": the year, the month and the day.\n\n",
    "1. The year has four digits.\n2. The month goes from `01` to `12`.\n",
    "3. The day goes from `01` to `31`.\n\n",
    "It does not know how many days a month has",
)
CODE = (
    "This finds every date and checks it:\n\n",
    "```python\nimport re\nfrom datetime import date\n\n",
    'ISO = re.compile(r"(\\d{4})-(\\d{2})-(\\d{2})")\n\n\n',
    "def dates(text: str) -> list[date]:\n",
    "    return [date(*map(int, found)) for found in ISO.findall(text)]\n```\n\n",
    "`date` raises `ValueError` for a day that does not exist.",
)

Scene = tuple[Callable[[], ScriptedApp], Callable[[Pilot[None]], Awaitable[None]]]


def no_package(source: PackageSource) -> None:
    """In place of squish.search.packaged_file: pictures must not change with what is installed beside Squish."""


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    """Let the app go on until something holds; fail when it does not come."""
    for _ in range(20_000):
        if holds():
            await settled(pilot)
            return
        await at_rest(pilot.app)
        if not holds():
            await asyncio.sleep(0.005)
    raise AssertionError(f"the app never came to what the test waits for:\n{screen_text(pilot)}")


async def settled(pilot: Pilot[None]) -> None:
    """Let the app finish what it has begun to draw."""
    await at_rest(pilot.app)


def screen_text(pilot: Pilot[None]) -> str:
    """All that can be read, with the spaces of the picture made plain."""
    lines = drawn_lines(pilot.app)
    return "\n".join("".join(segment.text for segment in line) for line in lines)


def app_of(pilot: Pilot[None]) -> ScriptedApp:
    assert isinstance(pilot.app, ScriptedApp)
    return pilot.app


async def ask(pilot: Pilot[None], text: str = QUESTION) -> None:
    """Send a message and wait until the engine has it."""
    engine = app_of(pilot).engine
    before = len(engine.generations)
    await ready(pilot)
    prompt(pilot).put(text)
    await pilot.press("enter")
    await until(pilot, lambda: len(engine.generations) > before)


async def answer(pilot: Pilot[None], *pieces: str) -> None:
    """Let the engine say all of the latest answer, and wait until it is over."""
    generation = app_of(pilot).engine.last
    generation.say(*pieces)
    generation.finish()
    await until(pilot, lambda: "TTFT" in note(pilot))


async def write(pilot: Pilot[None], text: str) -> None:
    """Press the keys of a text, one by one."""
    for character in text:
        await pilot.press({" ": "space", "\n": "ctrl+j", "/": "slash", ":": "colon"}.get(character, character))


def prompt(pilot: Pilot[None]) -> PromptInput:
    return pilot.app.screen.query_one(PromptInput)


def shown(pilot: Pilot[None], at: int = -1) -> str:
    """The Markdown that a live answer shows, the latest one if no other is asked for."""
    live = list(pilot.app.screen.query(LiveMarkdown))
    return live[at].source if live else ""


async def ready(pilot: Pilot[None]) -> None:
    await until(pilot, lambda: bool(pilot.app.screen.query("#prompt")))


async def loaded(pilot: Pilot[None]) -> None:
    """The model is in memory, and the strip says so."""
    await ready(pilot)
    await until(pilot, lambda: "● ready" in screen_text(pilot))


async def empty_chat(pilot: Pilot[None]) -> None:
    """Without a model the hub opens; the chat is one key away."""
    await until(pilot, lambda: bool(pilot.app.screen.query("HubScreen #first")))
    await pilot.press("f2")
    await ready(pilot)


async def loading(pilot: Pilot[None]) -> None:
    await ask(pilot)
    app_of(pilot).engine.be(SMOL.id, "loading")
    app_of(pilot).engine.last.put(Loading())
    history = app_of(pilot).load_history
    await until(pilot, lambda: "loading" in note(pilot) and history.loading_for(SMOL.id) is not None)
    app_of(pilot).seconds.now = 3
    await until(pilot, lambda: note(pilot).endswith("3 s") and "loading 3 s" in screen_text(pilot).splitlines()[0])


async def prefill(pilot: Pilot[None]) -> None:
    await ask(pilot)
    app_of(pilot).engine.last.prefill(620, 1000)
    await until(pilot, lambda: "62 %" in note(pilot))


async def writing(pilot: Pilot[None]) -> None:
    await ask(pilot)
    app = app_of(pilot)
    app.engine.last.prefill(64, 64)
    app.engine.last.say("A ")
    await until(pilot, lambda: "writing" in note(pilot))
    app.seconds.now = 0.1
    app.engine.last.say(*STORY)
    await until(pilot, lambda: shown(pilot).endswith(STORY[-1]) and "tok/s" in note(pilot))


async def code(pilot: Pilot[None]) -> None:
    await said(pilot, "Match ISO dates in Python", *CODE)


async def stopped(pilot: Pilot[None]) -> None:
    await writing(pilot)
    await pilot.press("escape")
    await until(pilot, lambda: "stopped" in note(pilot))


async def failed(pilot: Pilot[None]) -> None:
    await ask(pilot)
    app_of(pilot).engine.be(SMOL.id, "failed")
    app_of(pilot).engine.last.fail(
        WorkerDied("The model's process ended: it was killed (signal 9).", hint="Send the message again.")
    )
    await until(pilot, lambda: "killed" in note(pilot))


async def queued(pilot: Pilot[None]) -> None:
    await writing(pilot)
    prompt(pilot).put("and times")
    await pilot.press("enter")
    await until(pilot, lambda: bool(pilot.app.screen.query_one("#hints").display))


async def picker(pilot: Pilot[None]) -> None:
    await code(pilot)
    await pilot.press("ctrl+l")
    await until(pilot, lambda: bool(pilot.app.screen.query("OptionList")))


async def commands(pilot: Pilot[None]) -> None:
    await loaded(pilot)
    await write(pilot, "/")
    await until(pilot, lambda: bool(pilot.app.screen.query_one("#hints").display))


async def help_screen(pilot: Pilot[None]) -> None:
    await loaded(pilot)
    await pilot.press("f1")
    await until(pilot, lambda: bool(pilot.app.screen.query("#help")))


async def said(pilot: Pilot[None], question: str, *answer: str, thoughts: tuple[str, ...] = ()) -> None:
    """A question and its complete answer."""
    await ask(pilot, question)
    app = app_of(pilot)
    engine = app.engine
    if thoughts:
        engine.last.think(*thoughts)
        await until(pilot, lambda: "thinking" in note(pilot))
        app.seconds.now += 2
    engine.last.say(*answer)
    engine.last.finish(tokens=212)
    await until(pilot, lambda: "212 tok" in note(pilot))
    await until(pilot, lambda: "esc stop" not in screen_text(pilot))


async def several(pilot: Pilot[None]) -> None:
    """Four chats: one is being answered, one has news."""
    await said(pilot, "How do tides work?", "The **Moon** pulls the water.")
    await pilot.press("ctrl+n")
    await ask(pilot, "Names for a black cat")
    cat = app_of(pilot).engine.last
    await pilot.press("ctrl+n")
    await ask(pilot, "Write a haiku about the sea")
    app_of(pilot).engine.last.say("Waves fold")
    await pilot.press("ctrl+n")
    await said(pilot, "Match ISO dates in Python", *CODE, thoughts=("The user wants a pattern.",))
    cat.finish()
    store = app_of(pilot).chats
    for chat, line in zip(store.recent(), ("code", "poems", "pets names"), strict=False):
        store.tag(chat.id, change(line))
    await pilot.press("ctrl+b")
    await until(pilot, lambda: "● Names" in screen_text(pilot) and "▶ Write" in screen_text(pilot))


async def filtered(pilot: Pilot[None]) -> None:
    """Choosing the tag whose chats are listed."""
    await several(pilot)
    await pilot.press("f")
    await until(pilot, lambda: "all chats" in screen_text(pilot))
    await pilot.press("down", "down")


async def params(pilot: Pilot[None]) -> None:
    await said(pilot, "Match ISO dates in Python", *CODE)
    await pilot.press("ctrl+o")
    await until(pilot, lambda: pilot.app.focused is not None and pilot.app.focused.id == "field-temperature")
    await write(pilot, "0.2")
    await until(pilot, lambda: "• temp" in screen_text(pilot))


async def template(pilot: Pilot[None]) -> None:
    """A template asks for what its variables need."""
    text = "Translate to {{language|English}}, in the manner of {{manner}}:\n\n{{input}}"
    await ready(pilot)
    app_of(pilot).chats.keep_prompt("translate", text)
    prompt(pilot).put("/template translate")
    await pilot.press("enter")
    await until(pilot, lambda: "Template translate" in screen_text(pilot))
    await pilot.press("enter")
    await write(pilot, "a sailor")


async def find(pilot: Pilot[None]) -> None:
    await said(pilot, "How do tides work?", "The **Moon** pulls the water.")
    await said(pilot, "And on Mars?", "Mars has two small moons.")
    app_of(pilot).chats._write("UPDATE messages SET created = ?", (SOME_DAY.timestamp(),))
    await pilot.press("ctrl+s")
    await until(pilot, lambda: bool(pilot.app.screen.query("#find")))
    await write(pilot, "moon")
    await until(pilot, lambda: "two small" in screen_text(pilot))


async def branch(pilot: Pilot[None]) -> None:
    """A second version of an answer, marked."""
    await said(pilot, "Match ISO dates in Python", *CODE)
    await pilot.press("alt+up", "r")
    engine = app_of(pilot).engine
    await until(pilot, lambda: len(engine.generations) == 2)
    engine.last.think("There is a function for that.")
    await until(pilot, lambda: "thinking" in note(pilot))
    app_of(pilot).seconds.now = 2
    engine.last.say("Use `date.fromisoformat`.")
    engine.last.finish(tokens=12)
    await until(pilot, lambda: "12 tok" in note(pilot))
    await pilot.press("alt+up")
    await until(pilot, lambda: bool(pilot.app.screen.query(".-marked")))


async def compare(pilot: Pilot[None]) -> None:
    """Three answers: one is complete, one is being written, one waits for its model."""
    await ready(pilot)
    prompt(pilot).put("Match ISO dates in Python")
    await pilot.press("f8")
    await until(pilot, lambda: "[2]" in screen_text(pilot))
    await pilot.press("down", "down", "down", "down", "tab", "enter")
    engine = app_of(pilot).engine
    await until(pilot, lambda: len(engine.generations) == 3)
    one, two, three = engine.generations
    one.say(*CODE)
    one.finish(tokens=212)
    two.say("A ")
    three.put(Loading())
    await until(pilot, lambda: "212 tok" in screen_text(pilot) and "writing" in screen_text(pilot))
    app_of(pilot).seconds.now = 0.1
    two.say(*STORY)
    seen = ("loading", "50.0 tok/s")  # the speed comes with the next tick of the screen's clock
    await until(pilot, lambda: shown(pilot, 1).endswith(STORY[-1]) and all(each in screen_text(pilot) for each in seen))
    answers = pilot.app.screen.query("ContenderView VerticalScroll").results(VerticalScroll)
    written = list(answers)[1]
    await until(pilot, lambda: written.is_vertical_scroll_end)


async def comparing(pilot: Pilot[None]) -> None:
    """Who is to be compared."""
    await loaded(pilot)
    prompt(pilot).put("Match ISO dates in Python")
    await pilot.press("f8")
    await until(pilot, lambda: "[2]" in screen_text(pilot))


async def tool_question(pilot: Pilot[None]) -> None:
    """A call that waits for the user."""
    await ask(pilot, "What changed today?")
    view = pilot.app.screen.query_one(ChatView)
    turn = view._chats.shown.turns[-1]
    live = view.dialogue._answers._live[turn]
    live.call = CalledTool("1", "read_file", '{"path": "notes/2026-05-01.md", "lines": 40}', "files/read_file")
    live.decided = asyncio.get_running_loop().create_future()
    view.post_message(AnswerEvent(turn, Doing(live.call)))
    await until(pilot, lambda: "read_file" in note(pilot) and "2026-05-01" in screen_text(pilot))


def note(pilot: Pilot[None]) -> str:
    """The line under the latest answer."""
    notes = list(pilot.app.screen.query(".note"))
    return str(notes[-1].render()) if notes else ""


def _with_models() -> ScriptedApp:
    return ScriptedApp(*MODELS, model=SMOL.id)


SCENES: dict[str, Scene] = {
    "empty": (ScriptedApp, empty_chat),
    "ready": (_with_models, loaded),
    "loading": (_with_models, loading),
    "prefill": (_with_models, prefill),
    "streaming": (_with_models, writing),
    "code": (_with_models, code),
    "stopped": (_with_models, stopped),
    "failed": (_with_models, failed),
    "queued": (_with_models, queued),
    "picker": (_with_models, picker),
    "tool-question": (_with_models, tool_question),
    "commands": (_with_models, commands),
    "help": (_with_models, help_screen),
    "chats": (_with_models, several),
    "filter": (_with_models, filtered),
    "template": (_with_models, template),
    "params": (_with_models, params),
    "find": (_with_models, find),
    "branch": (_with_models, branch),
    "comparing": (_with_models, comparing),
    "compare": (_with_models, compare),
}


# ---- hub, models, server


async def opened(pilot: Pilot[None], key: str, table: str) -> None:
    """Go to a screen and wait until its table has rows."""
    await pilot.press(key)
    await until(pilot, lambda: any(each.row_count for each in pilot.app.screen.query(table).results(Table)))


async def first_run(pilot: Pilot[None]) -> None:
    await until(pilot, lambda: any(each.row_count for each in pilot.app.screen.query("#finds").results(Table)))
    await until(pilot, lambda: "offline:" in screen_text(pilot))


async def hub(pilot: Pilot[None]) -> None:
    await opened(pilot, "f3", "#finds")
    await pilot.press("slash")
    await write(pilot, "qwen3")
    await pilot.press("enter", "f", "end")
    await until(pilot, lambda: "offline:" in screen_text(pilot))


async def searching(pilot: Pilot[None]) -> None:
    """The marked row while another field has the focus."""
    await opened(pilot, "f3", "#finds")
    await pilot.press("slash")
    await until(pilot, lambda: pilot.app.focused is not None and pilot.app.focused.id == "search")


async def confirm(pilot: Pilot[None]) -> None:
    await opened(pilot, "f4", "#models")
    await pilot.press("d")
    await until(pilot, lambda: bool(pilot.app.screen.query("#confirm")))


async def downloads(pilot: Pilot[None]) -> None:
    """One of each kind, as after a while."""
    await loaded(pilot)
    moving = Transfer("qwen3:8b", "qwen3:8b", "running", "download", 2_900_000_000, 4_610_000_000, 41e6, 42.0)
    kept = Transfer("gemma3:12b", "gemma3:12b", "paused", "download", 1_200_000_000, 7_300_000_000)
    broken = Transfer("llama3.1:8b", "llama3.1:8b", "failed", "download", 12_000_000, 4_520_000_000)
    broken.error = HubUnreachable("The download of model.safetensors broke off.", hint="Check the network.")
    app_of(pilot).downloads._transfers += [moving, kept, broken, Transfer("a/b", "a/b", "done", total=93_000_000)]
    app_of(pilot)._show_background_work()
    await pilot.press("ctrl+t")
    await until(pilot, lambda: "broke off" in screen_text(pilot))


async def library(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    app.engine.be("qwen3:8b", "ready")
    preferences.remember_pin(app._runtime.settings, "qwen3:8b", True)
    app.engine.requests = [_request(1, "", "qwen3:8b", "done", 64, 212)]
    kept = Transfer("gemma3:12b", "gemma3:12b", "paused", "download", 1_200_000_000, 7_300_000_000)
    app.downloads._transfers.append(kept)
    app._show_background_work()
    await opened(pilot, "f4", "#models")
    await until(pilot, lambda: "⇣1" in screen_text(pilot) and "gemma3:12b" in screen_text(pilot))


async def server(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    api = app.server
    assert isinstance(api, ApiServer)
    api.state, api.url = "on", "http://127.0.0.1:11435"
    app.engine.requests = [
        _request(1, "", SMOL.id, "done", 64, 212),
        _request(2, "/v1/chat/completions 127.0.0.1", "qwen3:8b", "stopped", 900, 31),
        _request(3, "/v1/chat/completions 10.0.0.7", "qwen3:8b", "writing", 6100, 87),
        _request(4, "/v1/completions 10.0.0.7", "qwen3:8b", "queued", 0, 0),
    ]
    app.load_history.read(app._runtime.sessions, FrozenMachine())  # no other point is due while the clock stands still
    app.load_history.points.clear()
    for speed, queue in ((0.0, 0), (12.0, 0), (43.0, 1), (61.0, 3), (48.2, 1)):
        app.load_history.points.append(LoadPoint(speed, queue, Memory(9_800_000_000, 24_000_000_000)))
    api._add_line("14:02:11 127.0.0.1 POST /v1/chat/completions 200 812 ms model=qwen3:8b prompt=900")
    await opened(pilot, "f5", "#requests")
    await until(pilot, lambda: "api:11435" in screen_text(pilot) and "POST" in screen_text(pilot))


async def details(pilot: Pilot[None]) -> None:
    """Everything that a request can have."""
    app = app_of(pilot)
    asked = GenerationRequest(
        "qwen3:8b",
        (ChatPrompt((Message("user", QUESTION),), thinking=True, tools=(Tool("date"),)),),
        SamplingParams(
            1024, 0.2, 1.0, seed=7, stop=("\n\n",), response_format=ResponseFormat("json_schema", "{}" * 200)
        ),
        client="/v1/chat/completions 10.0.0.7",
        account="team-a",
    )
    told = RequestDetails("team-a", False, 0.02, 18.0, 1.84, 5900, 40, 64, 48, ("stop",), parameters(asked))
    whole = replace(_request(1, asked.client, asked.model, "done", 6100, 212), details=told)
    app.engine.requests = [whole]
    await opened(pilot, "f5", "#requests")
    await pilot.press("enter")
    await until(pilot, lambda: "Request 1" in screen_text(pilot) and "TTFT" in screen_text(pilot))


def _request(id: int, client: str, model: str, state: RequestState, prompt: int, completion: int) -> RequestStatus:
    ttft, tps = (0.31, 20.0 + prompt % 37) if completion else (None, 0.0)
    return RequestStatus(id, client, model, 1, state, prompt, completion, ttft, tps, 4.0, None)


SCENES |= {
    "first-run": (ScriptedApp, first_run),
    "hub": (_with_models, hub),
    "downloads": (_with_models, downloads),
    "library": (_with_models, library),
    "server": (_with_models, server),
    "details": (_with_models, details),
    "searching": (_with_models, searching),
    "confirm": (_with_models, confirm),
}
