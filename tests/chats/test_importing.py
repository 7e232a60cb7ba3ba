"""Conversations that come back out of a file: as they were, or an error that says where the file is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from squish.chats import importing
from squish.chats.chats import Chats
from squish.chats.export import export
from squish.chats.messages import Attachment, CalledTool, ChatSettings, Figures, ToolStep
from squish.chats.tags import TagChange
from squish.errors import InvalidInput


def test_what_was_exported_is_the_same_chat_again(tmp_path: Path) -> None:
    one, two = Chats(tmp_path / "one.db"), Chats(tmp_path / "two.db")
    id = one.create("smol", ChatSettings(system="Be brief"), "tides")
    one.rename(id, "The sea")
    one.tag(id, TagChange(("sea", "work")))
    steps = (ToolStep("Let me look", "", (CalledTool("1", "look", "{}", "time/look", "noon", "done"),)),)
    _, first = one.ask(id, None, "Why tides?", "smol", (Attachment("a.txt", "moon"),))
    one.finish(first, "The Moon.", "Hm", "done", Figures(10, 2, reason="stop"), steps)
    _, second = one.ask(id, first, "And Mars?", "large")
    one.finish(second, "Two moo", state="stopped", figures=Figures(20, 3, reason="cancelled"))
    one.used_at(id, 1_700_000_000)

    text = export(one.get(id), one.branch(id), "json")
    (new,) = importing.keep(two, importing.read(f"[{text}]"))
    before, after = one.get(id), two.get(new)
    assert (after.title, after.model, after.tags) == ("The sea", "smol", ("sea", "work"))
    assert after.updated == before.updated
    assert after.settings.system == "Be brief" and after.titled == "user"
    facts = [(each.text, each.reasoning, each.model, each.attachments, each.state, each.steps, each.figures)
             for each in one.branch(id)]  # fmt: skip
    assert facts == [
        (each.text, each.reasoning, each.model, each.attachments, each.state, each.steps, each.figures)
        for each in two.branch(new)
    ]
    assert [hit.chat for hit in two.find("#sea moon")] == [new]
    one.close()
    two.close()


def test_lines_of_messages_are_chats_and_nothing_in_them_reaches_the_terminal(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    lines = [
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "a\x1b[2J"}]},
        {"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c\x1b]52;c;x\x07"}]},
    ]
    first, second = importing.keep(chats, importing.read("\n".join(json.dumps(line) for line in lines)))
    assert (chats.get(first).settings.system, chats.get(first).title) == ("S", "a")
    assert [(each.text, each.state) for each in chats.branch(first)] == [("a", "done"), ("", "stopped")]
    assert [each.text for each in chats.branch(second)] == ["b", "c"]
    chats.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a conversation"),
        ('{"messages": 1}', "Expected `array`"),
        ('{"messages": []}', "Conversation 1 has no messages"),
        ('{"messages": [{"role": "user", "content": "a"}]}\n{"x": 1}', "Line 2 is not"),
        ('[{"messages": [{"role": "assistant", "content": "a"}]}]', "of user and assistant in turn"),
        ('{"messages": [{"role": "user", "content": "a"}], "tags": ["a b"]}', "is not a tag"),
        ("[" * 3000, "not a conversation"),
    ],
)
def test_what_is_no_conversation_is_named(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        importing.read(text)
