"""What is kept of chats and answers: each value where it belongs, and answers that nobody writes any more are ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from squish.chats.chats import Chats
from squish.chats.messages import ChatSettings, Figures, State, ToolStep
from squish.errors import InvalidInput


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Chats]:
    opened = Chats(tmp_path / "chats.db")
    yield opened
    opened.close()


def test_the_speed_of_a_model_is_that_of_its_last_complete_answer(chats: Chats) -> None:
    chat = chats.create("smol")

    def answer(model: str, state: State, tokens: int, decode: float, server: str = "") -> None:
        _, answered = chats.ask(chat, None, "How fast?", model)
        figures = Figures(completion_tokens=tokens, decode=decode, server=server, error='"server":"mac"')
        chats.finish(answered, "So.", state=state, figures=figures)

    answer("fast", "done", 101, 2.0)
    answer("fast", "done", 21, 4.0)
    answer("fast", "stopped", 101, 2.0)
    answer("at once", "done", 1, 0.0)
    answer("short", "done", 2, 0.5)
    answer("fast", "done", 11, 0.1, 'mac "one":1')
    answer("fast", "done", 11, 0.2, "mac")
    assert chats.speeds() == {"fast": 5.0, "short": 2.0}, "of a model of the same name elsewhere nothing is told here"
    assert chats.speeds("mac") == {"fast": 50.0}
    assert chats.speeds('mac "one":1') == {"fast": 100.0}


WAITS = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); print(flush=True); input()"


@pytest.fixture
def lives() -> Iterator[int]:
    """A process that is only looked at: any signal ends it."""
    with subprocess.Popen([sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        process.communicate(b"\n")
    assert process.returncode == 0


def test_an_answer_ends_with_its_process_and_with_none_that_lives(
    chats: Chats, lives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    chat = chats.create("smol")
    writers = {"here": os.getpid(), "unknown": None, "gone": gone.pid, "lives": lives, "another user's": 1}
    for text, writer in writers.items():
        _, answer = chats.ask(chat, None, text, "smol")
        chats.grow(answer, text, "Hm …", (ToolStep("Let me look."),))
        chats._write("UPDATE messages SET writer = ? WHERE id = ?", (writer, answer))
    chats.close()

    kill = os.kill

    def signal(process: int, number: int) -> None:
        if process == 1:
            raise PermissionError
        kill(process, number)

    monkeypatch.setattr(os, "kill", signal)
    answers = chats._read("SELECT text, state, reasoning FROM messages WHERE role = 'assistant'", ())
    living = ("lives", "another user's")
    assert answers == [(text, "writing" if text in living else "stopped", "Hm …") for text in writers]
    steps = [each.steps for each in chats.tree(chat).branch if each.role == "assistant"]
    assert steps == [(ToolStep("Let me look."),)]


def test_a_question_is_done_at_once_and_an_answer_is_written_by_this_process(chats: Chats) -> None:
    chat = chats.create("smol")
    question, _ = chats.ask(chat, None, "Where?", "smol")
    chats.answer_again(chat, question, "large")
    rows = chats._read("SELECT role, model, state, writer FROM messages ORDER BY id", ())
    here = os.getpid()
    assert rows == [
        ("user", "", "done", None), ("assistant", "smol", "writing", here), ("assistant", "large", "writing", here),
    ]  # fmt: skip


def test_a_chat_is_changed_where_it_was_meant_and_nowhere_else(chats: Chats) -> None:
    chat, other = chats.create("smol", title="one"), chats.create("smol", title="two")
    chats.configure(chat, "large", ChatSettings(temperature=0.3))
    assert chats.get(chat).preset == ""
    chats.configure(chat, "large", ChatSettings(temperature=0.3), "cool")
    chats.configure(chat, "large", ChatSettings(temperature=0.3))
    chats.mark(chat, "failed")
    chats.used_at(chat, 5.0)
    chats.keep_draft(chat, "and th")
    chats.keep_prompt("greet", "Hello {name}")
    chats.keep_prompt("greet", "Hi {name}")
    found = chats.get(chat)
    assert (found.model, found.settings, found.updated, found.draft) == (
        "large", ChatSettings(temperature=0.3), 5.0, "and th",
    )  # fmt: skip
    assert (found.preset, found.unread) == ("cool", "failed"), "a change by hand leaves the name of the preset"
    assert (found.titled, found.head, found.created > 5.0) == ("question", None, True)
    assert (chats.get(other).model, chats.get(other).draft, chats.get(other).unread) == ("smol", "", "")
    assert chats.prompts() == {"greet": "Hi {name}"}
    chats.remove_prompt("greet")
    assert chats.prompts() == {}
    with pytest.raises(InvalidInput) as caught:
        chats.get(99)
    assert caught.value.param == "chat"


def test_as_many_are_read_as_were_asked_for(chats: Chats) -> None:
    asked = [chats.create("smol", title=str(number)) for number in range(3)]
    for chat in asked:
        _, answer = chats.ask(chat, None, "Where?", "smol")
        chats.finish(answer, "At the sea")
    assert [each.id for each in chats.recent(2)] == asked[:0:-1]
    assert len(chats.find("sea", 2)) == 2
    assert chats.recent_questions(1) == ["Where?"]
