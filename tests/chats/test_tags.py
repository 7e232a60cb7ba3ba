"""Tags: how they may be written, and that chats are found by them in every way there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from squish.chats import tags
from squish.chats.chats import Chats
from squish.chats.database import MIGRATIONS, connect
from squish.chats.export import export
from squish.chats.tags import TagChange
from squish.errors import InvalidInput


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Chats]:
    opened = Chats(tmp_path / "chats.db")
    yield opened
    opened.close()


def tagged(chats: Chats, title: str, *names: str, answer: str = "so") -> int:
    chat = chats.create("smol", title=title)
    _, answered = chats.ask(chat, None, title, "smol")
    chats.finish(answered, answer)
    chats.tag(chat, TagChange(tags.tags(names)))
    return chat


@pytest.mark.parametrize(
    ("line", "added", "removed"),
    [
        ("work", ("work",), ()),
        ("#Work, recipes -#old", ("recipes", "work"), ("old",)),
        ("Ärger e\u0301te\u0301 日本 a/b-c_d", ("a/b-c_d", "ärger", "été", "日本"), ()),
        ("", (), ()),
    ],
)
def test_tags_as_people_write_them(line: str, added: tuple[str, ...], removed: tuple[str, ...]) -> None:
    assert tags.change(line) == TagChange(added, removed)


@pytest.mark.parametrize("word", ["", "#", "two words", "a\x1b[2J", "x" * 33, "_", "a.b", "'; --"])
def test_what_is_not_a_tag_is_refused_and_harmless(word: str) -> None:
    with pytest.raises(InvalidInput, match="is not a tag") as raised:
        tags.tag(word)
    assert "\x1b" not in raised.value.message


def test_chats_are_listed_counted_and_found_by_their_tags(chats: Chats) -> None:
    sea = tagged(chats, "tides", "sea", "work", answer="The moon pulls")
    sky = tagged(chats, "stars", "sky", "work", answer="Beyond the moon")
    plain = tagged(chats, "cats")
    assert [each.id for each in chats.recent(tags=("work",))] == [sky, sea]
    assert [each.id for each in chats.recent(tags=("work", "sea"))] == [sea]
    assert [each.tags for each in chats.recent()] == [(), ("sky", "work"), ("sea", "work")]
    assert chats.tags() == {"sea": 1, "sky": 1, "work": 2}
    assert [hit.chat for hit in chats.find("moon #sea")] == [sea]
    assert {hit.chat for hit in chats.find("#work")} == {sea, sky}, "a tag alone finds its chats"
    assert chats.find("#nothing moon") == []
    assert {hit.chat for hit in chats.find("moon #")} == {sea, sky}, "a tag that is being written hides nothing"

    chats.archive(sea, True)
    assert chats.tags()["work"] == 1 and [hit.chat for hit in chats.find("moon #sea")] == [sea]
    chats.tag(sky, TagChange(("new",), ("work", "never")))
    assert chats.get(sky).tags == ("new", "sky")
    chats.remove(sea)
    assert "sea" not in chats.tags()
    chats.tag(sea, TagChange(("ghost",)))
    assert "ghost" not in chats.tags() and chats.get(plain).tags == ()


def test_a_search_writes_tags_as_they_may_be_written(chats: Chats) -> None:
    summer = tagged(chats, "beach", "été")
    assert [[hit.chat for hit in chats.find(words)] for words in ("#été", "#E\u0301te\u0301")] == [[summer], [summer]]


def test_an_export_says_the_tags(chats: Chats) -> None:
    chat = tagged(chats, "tides", "sea", "work")
    kept, branch = chats.get(chat), chats.branch(chat)
    assert json.loads(export(kept, branch, "json"))["tags"] == ["sea", "work"]
    assert "#sea #work*" in export(kept, branch, "md")
    assert set(json.loads(export(kept, branch, "jsonl"))) == {"messages"}, "fine-tuning takes nothing else"


def test_a_database_without_tags_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chats.db"
    with monkeypatch.context() as before:
        before.setattr("squish.chats.database.MIGRATIONS", MIGRATIONS[:3])
        old = connect(path)
        old.execute("INSERT INTO chats (title, model, settings, created, updated) VALUES ('old', 'm', '{}', 1, 1)")
        old.close()
    chats = Chats(path)
    (found,) = chats.recent()
    assert (found.title, found.tags) == ("old", ())
    chats.tag(found.id, TagChange(("kept",)))
    assert chats.get(found.id).tags == ("kept",)
    chats.close()
