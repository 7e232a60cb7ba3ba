"""Conversations of the plain terminal that are kept, and `squish chats`, as scripts and people meet them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from squish.chats.chats import Chats
from squish.chats.messages import ChatSettings, Figures
from squish.chats.recorder import ChatRecorder
from squish.commands.answers import repl
from squish.config.settings import Settings
from squish.generation import Message, ReasoningDelta
from tests.api.scripted import scripted_runtime
from tests.commands.test_run import Terminal
from tests.conftest import MODEL, SQUISH, clean_environment

Squish = Callable[..., subprocess.CompletedProcess[str]]
GREEDY = ("--temperature", "0")
EVIL = "hi \x1b]52;c;aGVsbG8=\x07there \x1b[31mred \u202eback"


@pytest.fixture
def environment(real_home: Path, tmp_path: Path) -> dict[str, str]:
    """The real model, and a home of the test's own in which no chat is."""
    return clean_environment(tmp_path) | {"SQUISH_CACHE_DIR": str(real_home / ".squish" / "models")}


@pytest.fixture
def chats(tmp_path: Path) -> Chats:
    return Chats(tmp_path / ".squish" / "chats.db")


def told(chats: Chats, question: str, answer: str, settings: ChatSettings | None = None, model: str = MODEL) -> int:
    """A chat with one turn; its number."""
    with closing(chats):
        chat = chats.create(model, settings, question)
        _, id = chats.ask(chat, None, question, model)
        chats.finish(id, answer, figures=Figures(7, 3, reason="stop"))
    return chat


def said(chats: Chats, chat: int) -> list[str]:
    with closing(chats):
        return [each.text for each in chats.branch(chat)]


# ---- squish run --save, -c, --chat


def test_a_prompt_is_kept_only_when_asked_and_goes_on(squish: Squish, chats: Chats) -> None:
    assert squish("run", MODEL, "-p", "What is the capital of Germany?", *GREEDY).returncode == 0
    nothing = squish("run", "-c", "-p", "And of Spain?")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "No chat to continue" in nothing.stderr and "--save" in nothing.stderr

    squish("run", MODEL, "-p", "What is the capital of Germany?", "--save", *GREEDY)
    alone = json.loads(squish("run", MODEL, "-p", "Name it again.", *GREEDY, "--json").stdout)
    goes_on = json.loads(squish("run", "-c", "-p", "Name it again.", "--json").stdout)
    assert goes_on["usage"]["prompt_tokens"] > alone["usage"]["prompt_tokens"], "the model reads what was said"
    assert said(chats, 1) == [
        "What is the capital of Germany?", "The capital of Germany is Berlin.", "Name it again.", goes_on["text"],
    ]  # fmt: skip
    (chat,) = json.loads(squish("chats", "list", "--json").stdout)
    assert (chat["id"], chat["title"], chat["model"]) == (1, "What is the capital of Germany?", MODEL)


def test_a_chat_goes_on_as_it_was_asked_before(squish: Squish, chats: Chats) -> None:
    settings = ChatSettings(temperature=0.0, max_tokens=2, stop=("###",), system="Answer like a pirate.")
    chat = told(chats, "Hi", "Ahoy.", settings)
    told(chats, "another", "one")
    first = json.loads(squish("run", "--chat", str(chat), "-p", "Who are you?", "--json").stdout)
    assert (first["finish_reason"], first["usage"]["completion_tokens"]) == ("length", 2)
    given = json.loads(squish("run", "-c", "-p", "And I?", "--max-tokens", "3", "--json").stdout)
    assert given["usage"]["completion_tokens"] == 3
    with closing(chats):
        kept = chats.get(chat)
        assert (kept.model, kept.settings) == (MODEL, settings), "what is given counts for one run"


def test_a_chat_that_is_not_there_and_a_model_that_is_gone_are_named(squish: Squish, chats: Chats) -> None:
    told(chats, "Hi", "Ho", model="smollm2:136m")
    missing = squish("run", "--chat", "7", "-p", "Hi")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "Chat 7 does not exist" in missing.stderr and "squish chats list" in missing.stderr
    gone = squish("run", "-c", "-p", "Hi")
    assert (gone.returncode, gone.stdout) == (3, "") and "smollm2:136m" in gone.stderr
    wrong = squish("run", "-c", MODEL, "-p", "Hi", "--temperature", "9")
    assert wrong.returncode == 2 and "temperature" in wrong.stderr
    assert said(chats, 1) == ["Hi", "Ho"], "nothing was asked"


def test_kill_9_in_mid_answer_keeps_what_was_written(
    environment: dict[str, str], tireless_home: Path, squish: Squish, chats: Chats
) -> None:
    with subprocess.Popen(
        [SQUISH, "run", MODEL, "--save", "-p", "Count to one thousand.", *GREEDY, "--max-tokens", "7000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment | {"SQUISH_CACHE_DIR": str(tireless_home / ".squish" / "models")},
    ) as process:
        try:
            assert process.stdout is not None
            seen = process.stdout.read(200)
            process.send_signal(signal.SIGSTOP)  # what is kept must not grow while we look
            live = json.loads(squish("chats", "show", "1", "--json").stdout)["messages"][1]
            assert (live["state"], seen.startswith(live["content"][:200])) == ("writing", True)
        finally:
            process.kill()

    broken = json.loads(squish("chats", "show", "1", "--json").stdout)["messages"][1]
    assert broken["state"] == "stopped" and broken["content"].startswith(live["content"] or "1")
    assert json.loads(squish("chats", "list", "thousand", "--json").stdout)[0]["id"] == 1
    squish("run", "-c", "-p", "Stop.", "--max-tokens", "3")
    assert said(chats, 1)[:3] == ["Count to one thousand.", broken["content"], "Stop."]


def test_the_first_word_is_saved_at_once(chats: Chats) -> None:
    kept = ChatRecorder(chats, MODEL, ChatSettings())
    kept.ask("Hi")
    kept.write("A")
    assert said(chats, 1) == ["Hi", "A"]


async def test_what_a_model_thinks_is_talk_and_is_kept(
    real_settings: Settings, chats: Chats, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime, sessions = scripted_runtime(real_settings)
    kept, settings = ChatRecorder(chats, MODEL, ChatSettings()), ChatSettings()
    request = repl.chat_request(MODEL, "Hi", settings)
    task = asyncio.create_task(repl.single(runtime, request, "Hi", as_json=False, kept=kept))
    script = await sessions.admitted.get()
    script.accept()
    script.tell(ReasoningDelta(0, "They greet"), ReasoningDelta(0, " me."))
    script.say("Ho")
    script.finish()
    await task
    assert capsys.readouterr() == ("Ho\n", "They greet me.\n")
    with closing(chats):
        answer = chats.branch(1)[-1]
    assert (answer.text, answer.reasoning, answer.state) == ("Ho", "They greet me.", "done")


def test_the_conversation_of_a_terminal_is_kept(environment: dict[str, str], tmp_path: Path, chats: Chats) -> None:
    command = [SQUISH, "run", MODEL, "--save", *GREEDY, "--max-tokens", "12"]
    with Terminal(command, environment, tmp_path) as terminal:
        terminal.expect(">>> ")
        terminal.type("What is the capital of Germany?\r")
        terminal.expect("TTFT")
        terminal.expect(">>> ")
        terminal.type("/system Be brief.\r")
        terminal.expect("is set")
        terminal.type("Hi\r")
        terminal.expect("TTFT")
        terminal.expect(">>> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    with closing(chats):
        second, first = chats.recent()
        assert (first.title, first.settings.system) == ("What is the capital of Germany?", "")
        assert (second.title, second.settings.system) == ("Hi", "Be brief.")
        assert [each.state for each in chats.branch(first.id)] == ["done", "done"]


def test_an_answer_that_was_never_written_is_not_sent_again(chats: Chats) -> None:
    chat = told(chats, "Hi", "Ho")
    with closing(chats):
        parent = chats.branch(chat)[-1].id
        chats.ask(chat, parent, "and then", MODEL)
        assert ChatRecorder(chats, MODEL, ChatSettings(), chats.get(chat)).turns() == [
            Message("user", "Hi"), Message("assistant", "Ho"),
        ]  # fmt: skip


# ---- squish chats


def test_chats_are_listed_found_shown_and_removed(squish: Squish, chats: Chats) -> None:
    assert squish("chats", "list").stdout == "" and squish("chats", "list", "--json").stdout == "[]\n"
    told(chats, "How do tides work?", "The **Moon** pulls the water.", ChatSettings(system="Be brief."))
    told(chats, "Names for a cat", "Mog.")
    lines = squish("chats", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "2", "1"], "the one used last is first"
    assert [each["id"] for each in json.loads(squish("chats", "list", "moon", "--json").stdout)] == [1]
    assert [each["id"] for each in json.loads(squish("chats", "list", "--limit", "1", "--json").stdout)] == [2]
    none = squish("chats", "list", "submarine")
    assert (none.returncode, none.stdout) == (0, "") and "No chat contains these words" in none.stderr

    shown = squish("chats", "show", "1").stdout
    assert "# How do tides work?" in shown and "The **Moon** pulls the water." in shown and "Be brief." in shown
    whole = json.loads(squish("chats", "show", "1", "--json").stdout)
    listed = json.loads(squish("chats", "list", "moon", "--json").stdout)[0]
    assert {key: whole[key] for key in listed} == listed, "one chat is told of in one way"
    assert [each["content"] for each in whole["messages"]] == ["How do tides work?", "The **Moon** pulls the water."]

    wrong = squish("chats", "rm", "2", "9")
    assert wrong.returncode == 2 and "Chat 9 does not exist" in wrong.stderr
    assert len(json.loads(squish("chats", "list", "--json").stdout)) == 2, "all or nothing"
    assert "Deleted 2: Names for a cat" in squish("chats", "rm", "2").stderr
    assert [each["id"] for each in json.loads(squish("chats", "list", "--json").stdout)] == [1]
    assert squish("chats", "show", "tides").returncode == 2


def test_chats_are_exported(squish: Squish, chats: Chats, tmp_path: Path) -> None:
    told(chats, "Hi", "Ho", ChatSettings(system="Be brief."))
    told(chats, "Who?", "I.")
    assert "Written to" in squish("chats", "export", "1", "-o", "one.md").stderr
    assert (tmp_path / "one.md").read_text().startswith("# Hi\n")
    again = squish("chats", "export", "1", "-o", "one.md")
    assert again.returncode == 2 and "already exists" in again.stderr
    squish("chats", "export", "--all", "-o", "all.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [[each["content"] for each in line["messages"]] for line in lines] == [
        ["Be brief.", "Hi", "Ho"], ["Who?", "I."],
    ]  # fmt: skip
    assert json.loads(squish("chats", "export", "2", "--format", "json").stdout)["title"] == "Who?"
    cases = [("1", "-o", "one.txt"), ("--all", "--format", "md"), (), ("9",), ("1", "-o", "nowhere/one.md")]
    for arguments in cases:
        failed = squish("chats", "export", *arguments)
        assert failed.returncode != 0 and failed.stdout == "" and "Traceback" not in failed.stderr, arguments


def test_what_was_said_is_only_text_on_a_terminal(
    environment: dict[str, str], squish: Squish, chats: Chats, tmp_path: Path
) -> None:
    told(chats, f"{EVIL} 1", f"{EVIL} 2", ChatSettings(system=EVIL), model=EVIL)
    for arguments in (
        ("list",),
        ("list", "--json"),
        ("show", "1"),
        ("show", "1", "--json"),
        ("export", "1"),
        ("rm", "1"),
    ):
        with Terminal([SQUISH, "chats", *arguments], environment, tmp_path) as terminal:
            out = terminal.read()
            assert terminal.wait() == 0 and "there" in out, arguments
        assert not any(sign in out for sign in ("\x1b", "\u202e")), arguments
