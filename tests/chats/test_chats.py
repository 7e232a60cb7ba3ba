"""Conversations on disk: what was said comes back, also when the program was killed in the middle of a word."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from squish.chats.chats import Chats
from squish.chats.database import MIGRATIONS, transaction
from squish.chats.export import export
from squish.chats.messages import (
    Attachment,
    CalledTool,
    ChatSettings,
    ChatTools,
    Figures,
    ToolStep,
    title_of,
    with_files,
)
from squish.errors import InvalidInput, StoreError


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Chats]:
    opened = Chats(tmp_path / "home" / "chats.db")
    yield opened
    opened.close()


def say(chats: Chats, chat: int, question: str, answer: str, parent: int | None = None) -> tuple[int, int]:
    """A question and its finished answer; their ids."""
    asked, answered = chats.ask(chat, parent, question, "smol")
    chats.finish(answered, answer)
    return asked, answered


def texts(chats: Chats, chat: int) -> list[str]:
    return [each.text for each in chats.branch(chat)]


def test_a_chat_comes_back_whole(chats: Chats) -> None:
    settings = ChatSettings(temperature=0.2, stop=("###",), system="Be brief", thinking=False)
    chat = chats.create("smol", settings, "How do\nI match dates?")
    _, answer = chats.ask(chat, None, "How?", "smol", (Attachment("a.txt", "text"),))
    chats.finish(answer, "So.", "Hm …", "stopped", Figures(10, 2, ttft=0.3, reason="cancelled"))
    chats.keep_draft(chat, "and th")
    chats.close()

    again = Chats(chats.path)
    (found,) = again.recent()
    assert (found.id, found.title, found.model, found.draft) == (chat, "How do I match dates?", "smol", "and th")
    assert found.settings == settings
    question, last = again.branch(chat)
    assert question.full_text == "How?\n\na.txt:\n```\ntext\n```"
    assert (last.text, last.reasoning, last.state, last.figures.ttft) == ("So.", "Hm …", "stopped", 0.3)
    again.close()


def test_versions_and_branches(chats: Chats) -> None:
    chat = chats.create("smol")
    first, answer = say(chats, chat, "one", "1")
    second, _ = say(chats, chat, "two", "2", parent=answer)
    other = chats.answer_again(chat, first, "smol")
    chats.finish(other, "uno")
    assert texts(chats, chat) == ["one", "uno"]
    assert chats.tree(chat).versions(other) == [answer, other]

    chats.show(chat, answer)
    assert texts(chats, chat) == ["one", "1", "two", "2"], "a version comes with what was said below it"

    edited, _ = say(chats, chat, "TWO", "II", parent=answer)
    assert texts(chats, chat) == ["one", "1", "TWO", "II"]
    assert chats.tree(chat).versions(edited) == [second, edited]
    say(chats, chat, "ONE", "I")
    assert texts(chats, chat) == ["ONE", "I"], "the first question has versions as well"


def test_a_chat_of_any_length_is_removed(chats: Chats) -> None:
    """Each message lies below the one before it, and sqlite goes down no more than a thousand steps."""
    chat, last = chats.create("smol"), None
    with transaction(chats._connection):
        for number in range(1_200):
            last = chats._insert(chat, last, "user", f"word {number}", "", "done")
    assert len(chats.branch(chat)) == len(chats.find("word", 2_000)) == 1_200
    chats.remove(chat)
    assert chats.recent() == []
    assert chats.find("word") == []


def test_the_chat_used_last_is_first_and_a_removed_one_is_gone(chats: Chats) -> None:
    old, new = chats.create("smol", title="old"), chats.create("smol", title="new")
    say(chats, new, "apple", "pear")
    say(chats, old, "lemon", "lime")
    assert [each.id for each in chats.recent()] == [old, new]
    chats.remove(old)
    assert [each.id for each in chats.recent()] == [new]
    assert not chats.find("lime")
    with pytest.raises(InvalidInput, match="does not exist"):
        chats.get(old)


@pytest.mark.parametrize(
    "words", ["lighthouse", "light", "KEEPER lighth", "kàeper", '"keeper" AND', "light-house keep"]
)
def test_words_are_found_in_all_chats(chats: Chats, words: str) -> None:
    chat = chats.create("smol", title="Stories")
    say(chats, chats.create("smol"), "other", "a house by the sea")
    _, answer = say(chats, chat, "tell me", "The kaeper of the lighthouse, the light house keeper, AND his dog")
    hits = chats.find(words)
    assert [(hit.chat, hit.title, hit.message) for hit in hits] == [(chat, "Stories", answer)]
    assert "\x02" in hits[0].snippet


@pytest.mark.parametrize("words", ["", "  ", '"', "*", "zzz", "NEAR("])
def test_what_is_not_there_is_not_found(chats: Chats, words: str) -> None:
    say(chats, chats.create("smol"), "one", "two")
    assert chats.find(words) == []


def test_an_answer_that_goes_on_is_found_by_its_new_end_only_once(chats: Chats) -> None:
    chat = chats.create("smol")
    _, answer = say(chats, chat, "count", "one two")
    chats.grow(answer, "one two thr")
    assert chats.find("two") == []
    chats.finish(answer, "one two three")
    assert len(chats.find("two")) == len(chats.find("three")) == 1


def test_two_programs_use_one_file(chats: Chats) -> None:
    other = Chats(chats.path)
    chat = chats.create("smol")
    _, answer = chats.ask(chat, None, "one", "smol")
    assert [each.id for each in other.recent()] == [chat]
    other.rename(chat, "named")
    chats.finish(answer, "1")
    assert chats.get(chat).title == "named"
    other.close()


KILLED = """
import sys
from pathlib import Path
from squish.chats.chats import Chats
chats = Chats(Path(sys.argv[1]))
chat = chats.create("smol", title="killed")
question, answer = chats.ask(chat, None, "Tell me a story", "smol")
text = ""
while True:
    text += "word "
    chats.grow(answer, text, "I think")
    print(len(text), flush=True)
"""


def test_kill_9_in_mid_answer_loses_nothing_that_was_saved(chats: Chats) -> None:
    command = [sys.executable, "-c", KILLED, str(chats.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            assert process.stdout is not None
            saved = 0
            while saved < 500:
                saved = int(process.stdout.readline())

            (live,) = chats.recent()
            assert chats.branch(live.id)[-1].state == "writing", "another program's answer is left alone while it lives"
            chats.close()
        finally:
            process.kill()
        saved = max([saved, *(int(line) for line in process.stdout if line.endswith("\n"))])
    question, answer = chats.branch(live.id)
    assert question.text == "Tell me a story"
    assert answer.state == "stopped"
    assert len(answer.text) >= saved and answer.reasoning == "I think"
    assert [hit.message for hit in chats.find("word")] == [answer.id]
    assert chats._read("PRAGMA integrity_check", ()) == [("ok",)]


def test_a_newer_file_is_refused_and_left_alone(chats: Chats) -> None:
    chats.create("smol")
    chats.close()
    connection = sqlite3.connect(chats.path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="newer Squish"):
        chats.recent()


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    path.write_bytes(b"this is no database at all" * 50)
    with pytest.raises(StoreError, match="cannot be used"):
        Chats(path).recent()
    assert path.read_bytes().startswith(b"this is no database")


def test_a_full_disk_is_said_as_what_it_is_and_costs_nothing_that_was_saved(chats: Chats) -> None:
    chat = chats.create("smol")
    _, answer = chats.ask(chat, None, "Hello?", "smol")
    (pages,) = chats._connection.execute("PRAGMA page_count").fetchone()
    chats._connection.execute(f"PRAGMA max_page_count = {pages}")
    text = "words " * 20_000
    with pytest.raises(StoreError, match=r"disk is full\.$") as caught:
        chats.grow(answer, text, "")
    assert caught.value.hint == "Make room on its disk."
    with pytest.raises(StoreError, match=r"disk is full\.$"):
        chats.finish(answer, text, "", "done", Figures())
    chats._connection.execute(f"PRAGMA max_page_count = {pages * 100}")
    chats.finish(answer, text, "", "done", Figures())
    assert chats.tree(chat).branch[-1].text == text


def test_what_sqlite_has_undone_by_itself_hides_no_reason(chats: Chats) -> None:
    chat = chats.create("smol")
    chats._connection.execute(
        "CREATE TRIGGER undone BEFORE INSERT ON messages BEGIN SELECT RAISE(ROLLBACK, 'disk is full'); END"
    )
    with pytest.raises(StoreError, match=r"disk is full\.$"):
        chats.ask(chat, None, "Hello?", "smol")


def test_every_migration_leads_to_the_newest_format(tmp_path: Path) -> None:
    for number in range(len(MIGRATIONS)):
        path = tmp_path / f"{number}.db"
        connection = sqlite3.connect(path)
        for statement in (statement for migration in MIGRATIONS[:number] for statement in migration):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
        connection.close()
        opened = Chats(path)
        assert opened.recent() == []
        opened.close()


def test_a_model_names_a_chat_once_and_never_over_the_user(chats: Chats) -> None:
    fresh, named, nothing = (chats.create("smol", title="How do I match dates?") for _ in range(3))
    chats.rename(named, "Dates")
    assert chats.give_title(fresh, "Matching dates")
    assert not chats.give_title(fresh, "Another") and not chats.give_title(named, "Another")
    assert chats.give_title(nothing, "") and not chats.give_title(nothing, "Too late")
    assert not chats.give_title(99, "Gone")
    titles = [chats.get(each).title for each in (fresh, named, nothing)]
    assert titles == ["Matching dates", "Dates", "How do I match dates?"]


def test_a_chat_from_before_titles_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    connection = sqlite3.connect(path)
    for statement in (statement for migration in MIGRATIONS[:2] for statement in migration):
        connection.execute(statement)
    connection.execute("INSERT INTO chats (title, model, settings, created, updated) VALUES ('Mine', 'm', '{}', 1, 1)")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()
    opened = Chats(path)
    (chat,) = opened.recent()
    assert not opened.give_title(chat.id, "Another")
    assert (chat.title, chat.pinned, chat.archived) == ("Mine", False, False)
    opened.close()


def test_pinned_chats_are_first_and_archived_ones_are_only_found(chats: Chats) -> None:
    first, second, third = (chats.create("smol", title=name) for name in ("one", "two", "three"))
    say(chats, second, "a lighthouse", "A tower.")
    chats.pin(first, True)
    chats.archive(second, True)
    assert [each.id for each in chats.recent(pinned_first=True)] == [first, third]
    assert [each.id for each in chats.recent()] == [third, first], "the chat used last is another matter"
    assert {each.id for each in chats.recent(archived=True)} == {first, second, third}
    assert [(hit.chat, bool(hit.archived)) for hit in chats.find("lighthouse")] == [(second, True)]
    chats.archive(second, False)
    chats.pin(first, False)
    assert [each.id for each in chats.recent(pinned_first=True)] == [second, third, first]


def test_the_file_is_for_its_owner_only(chats: Chats) -> None:
    chats.create("smol")
    assert chats.path.stat().st_mode & 0o077 == 0


def test_the_mode_of_a_file_that_was_there_is_left_alone(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere.db"
    real.touch(mode=0o644)
    real.chmod(0o644)
    (tmp_path / "chats.db").symlink_to(real)
    chats = Chats(tmp_path / "chats.db")
    chats.create("smol")
    chats.close()
    assert real.stat().st_mode & 0o777 == 0o644


@pytest.fixture
def read_only(chats: Chats, monkeypatch: pytest.MonkeyPatch) -> Chats:
    """A second look at conversations, where neither the file nor its directory can be written."""
    say(chats, chats.create("smol", title="kept"), "What is kept?", "This.")
    chats.close()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    return Chats(chats.path)


def test_conversations_that_cannot_be_written_can_be_read(read_only: Chats) -> None:
    [chat] = read_only.recent()
    assert (chat.title, texts(read_only, chat.id)) == ("kept", ["What is kept?", "This."])
    assert [hit.chat for hit in read_only.find("kept")] == [chat.id]
    with pytest.raises(StoreError, match="readonly") as caught:
        read_only.create("smol")
    assert "permissions" in (caught.value.hint or "")


def test_an_old_file_that_cannot_be_written_says_so(read_only: Chats) -> None:
    connection = sqlite3.connect(read_only.path)
    connection.execute("PRAGMA user_version = 0")
    connection.close()
    with pytest.raises(StoreError, match=r"format 0.*cannot be upgraded"):
        read_only.recent()


@pytest.mark.parametrize("damage", ["not json", "[]", '{"temperature": "hot"}', "\x00", None])
def test_a_row_that_cannot_be_read_takes_no_other_with_it(chats: Chats, damage: str | None) -> None:
    chats.create("smol", title="whole")
    broken = chats.create("smol", ChatSettings(temperature=0.1), title="broken")
    _, answered = say(chats, broken, "question", "answer")
    value = b"\xff\xfe" if damage is None else damage
    chats._write("UPDATE chats SET settings = ? WHERE id = ?", (value, broken))
    chats._write("UPDATE messages SET figures = ?, attachments = ? WHERE id = ?", (value, value, answered))
    assert {chat.title for chat in chats.recent()} == {"whole", "broken"}
    assert chats.get(broken).settings == ChatSettings()
    assert texts(chats, broken) == ["question", "answer"]
    assert chats.speeds() == {}


def test_questions_and_presets_are_remembered(chats: Chats) -> None:
    chat = chats.create("smol")
    for question in ("one", "two", "two", "three"):
        say(chats, chat, question, "")
    assert chats.recent_questions(3) == ["two", "three"]
    chats.keep_preset("calm", ChatSettings(temperature=0.1))
    chats.keep_preset("calm", ChatSettings(temperature=0.2))
    assert chats.presets() == {"calm": ChatSettings(temperature=0.2)}
    chats.remove_preset("calm")
    assert not chats.presets()
    chats.keep_preset("whole", ChatSettings(temperature=0.3))
    chats.keep_preset("damaged", ChatSettings(temperature=0.4))
    chats._connection.execute("UPDATE presets SET settings = substr(settings, 1, 15) WHERE name = 'damaged'")
    assert chats.presets() == {"whole": ChatSettings(temperature=0.3)}


def test_titles_and_fences() -> None:
    assert title_of("  a \n b ") == "a b"
    assert title_of("word " * 30).endswith("word…")
    assert "````\n```\nx\n```\n````" in with_files("see", [Attachment("a.md", "```\nx\n```\n")])


def test_calls_of_tools_are_part_of_every_export(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    chat = chats.create("m", title="Weather")
    _, answer = chats.ask(chat, None, "How is it?", "m")
    called = CalledTool("c1", "weather", '{"city": "Bonn"}', "sky/weather", "```\nrain", "done")
    steps = (ToolStep("Let me look.", "Hm.", (called,)),)
    chats.finish(answer, "It rains.", steps=steps)
    found, branch = chats.get(chat), chats.branch(chat)
    assert branch[1].steps == steps
    markdown = export(found, branch, "md")
    assert "Let me look.\n\n*called sky/weather: done*" in markdown
    assert "````\n```\nrain\n````" in markdown, "a fence in a result does not end the one around it"
    (_, whole) = json.loads(export(found, branch, "json"))["messages"]
    assert whole["steps"][0]["calls"][0]["result"] == "```\nrain"
    messages = json.loads(export(found, branch, "jsonl"))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Bonn"}'}
    assert messages[2]["tool_call_id"] == "c1"


def test_which_tools_a_chat_may_use_is_kept(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    chat = chats.create("m")
    assert chats.get(chat).tools == ChatTools()
    tools = ChatTools(("sky",), ("sky/forecast",), ("sky/weather",))
    chats.use_tools(chat, tools)
    assert chats.get(chat).tools == tools
