"""A conversation of the plain terminal, kept as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from squish.chats import recorder
from squish.chats.chats import Chats
from squish.chats.messages import Attachment, CalledTool, ChatSettings, Figures, ToolStep
from squish.chats.recorder import SAVE_INTERVAL, ChatRecorder, chosen
from squish.errors import InvalidInput
from squish.generation import Finished, FinishReason, Message, Timings, Usage

BRIEF = ChatSettings(system="Be brief")
STEP = ToolStep("Let me look.", "Hm.", (CalledTool("c1", "weather", "{}", "sky/weather", "rain", "done"),))


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Chats]:
    opened = Chats(tmp_path / "chats.db")
    yield opened
    opened.close()


def finished(reason: FinishReason = "stop") -> Finished:
    return Finished(0, reason, Usage(10, 7, 2, reasoning_tokens=3), Timings(ttft=0.123456, decode=1.234567))


def said(kept: ChatRecorder, question: str, answer: str, reason: FinishReason = "stop") -> None:
    kept.ask(question)
    kept.write(answer)
    kept.end(finished(reason))


def test_the_first_question_begins_a_chat_and_the_next_goes_on_with_it(chats: Chats) -> None:
    kept = ChatRecorder(chats, "m", BRIEF)
    assert kept.turns() == [] and chats.recent() == []
    said(kept, "One?", "1")
    said(kept, "Two?", "2")
    [chat] = chats.recent()
    assert (chat.title, chat.model, chat.settings) == ("One?", "m", BRIEF)
    assert [each.text for each in chats.branch(chat.id)] == ["One?", "1", "Two?", "2"]


def test_the_turns_of_a_chat_are_what_was_asked_with_its_files_and_answered_with_its_calls(chats: Chats) -> None:
    kept = ChatRecorder(chats, "m", BRIEF)
    kept.ask("How is it?", (Attachment("place.txt", "Bonn"),))
    kept.write("Let me look.")
    kept.step((STEP,))
    kept.write("It rains.")
    kept.end(finished())
    said(kept, "Sure?", "")
    said(kept, "And now?", "It still rains.")
    question, call, result, *rest = kept.turns()
    assert (question.role, question.content) == ("user", "How is it?\n\nplace.txt:\n```\nBonn\n```")
    assert (call.role, [each.name for each in call.tool_calls]) == ("assistant", ["weather"])
    assert (result.role, result.content) == ("tool", "rain")
    assert rest == [Message("assistant", "It rains."), Message("user", "And now?"),
                    Message("assistant", "It still rains.")], "a question without an answer is left out"  # fmt: skip


def test_a_question_that_was_not_answered_any_more_is_no_turn(chats: Chats) -> None:
    chat = chats.create("m", BRIEF)
    asked, _ = chats.ask(chat, None, "One?", "m")
    chats.show(chat, asked)
    assert ChatRecorder(chats, "m", BRIEF, chats.get(chat)).turns() == []


def test_a_chat_that_goes_on_keeps_its_settings_and_has_the_model_that_answers(chats: Chats) -> None:
    said(ChatRecorder(chats, "m", BRIEF), "One?", "1")
    [chat] = chats.recent()
    again = ChatRecorder(chats, "n", ChatSettings(), chat)
    assert [each.content for each in again.turns()] == ["One?", "1"]
    said(again, "Two?", "2")
    [chat] = chats.recent()
    assert (chat.model, chat.settings) == ("n", BRIEF)
    assert [each.text for each in chats.branch(chat.id)] == ["One?", "1", "Two?", "2"]


def test_a_new_beginning_is_another_chat(chats: Chats) -> None:
    kept = ChatRecorder(chats, "m", BRIEF)
    said(kept, "One?", "1")
    kept.start_anew(ChatSettings(temperature=0.1))
    assert kept.turns() == []
    said(kept, "Two?", "2")
    second, first = chats.recent()
    assert (second.settings.temperature, first.settings) == (0.1, BRIEF)
    assert [each.text for each in chats.branch(second.id)] == ["Two?", "2"]


def test_an_answer_is_saved_at_once_and_then_now_and_again(chats: Chats, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=lambda: now))
    kept = ChatRecorder(chats, "m", BRIEF)
    kept.ask("One?")
    [chat] = chats.recent()

    def found() -> tuple[str, str]:
        answer = chats.branch(chat.id)[-1]
        return answer.text, answer.reasoning

    kept.think("Hm")
    assert found() == ("", "Hm")
    kept.write("a")
    now += SAVE_INTERVAL / 2
    kept.write("b")
    assert found() == ("", "Hm"), "not every token"
    now += SAVE_INTERVAL / 2
    kept.write("c")
    assert found() == ("abc", "Hm")
    kept.think("!")
    now += SAVE_INTERVAL
    kept.step((STEP,))
    assert found() == ("", "Hm!") and chats.branch(chat.id)[-1].steps == (STEP,)
    kept.ask("Two?")
    kept.write("at once")
    assert chats.branch(chat.id)[-1].text == "at once"


@pytest.mark.parametrize(
    ("end", "error", "state"),
    [
        (finished(), "", "done"),
        (finished("length"), "", "done"),
        (finished("cancelled"), "", "stopped"),
        (None, "", "stopped"),
        (None, "The worker died.", "failed"),
    ],
)
def test_how_an_answer_ended_is_kept(chats: Chats, end: Finished | None, error: str, state: str) -> None:
    kept = ChatRecorder(chats, "m", BRIEF)
    kept.ask("One?")
    kept.write("1")
    kept.think("Hm")
    kept.end(end, error)
    answer = chats.branch(chats.recent()[0].id)[-1]
    assert (answer.text, answer.reasoning, answer.state) == ("1", "Hm", state)
    expected = Figures(10, 7, 3, 0.1235, 1.2346, reason=end.reason) if end else Figures(error=error)
    assert answer.figures == expected


def test_the_chat_that_goes_on_is_the_one_of_a_number_or_the_last_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No chat to continue yet") as none:
        chosen(tmp_path, None)
    assert (none.value.hint, none.value.param) == ("--save keeps one.", "--continue")
    opened = Chats(tmp_path / "chats.db")
    first, last = opened.create("m", title="first"), opened.create("m", title="last")
    opened.close()
    assert (chosen(tmp_path, first).id, chosen(tmp_path, None).id) == (first, last)
    with pytest.raises(InvalidInput):
        chosen(tmp_path, 99)
