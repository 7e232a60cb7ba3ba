"""Conversations as text for other programs and for people."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from squish.chats.export import export, file_name, format_of, local_time
from squish.chats.messages import (
    MAX_TITLE,
    Attachment,
    CalledTool,
    Chat,
    ChatSettings,
    Figures,
    Saved,
    ToolStep,
    as_sent,
    title_of,
    with_files,
)
from squish.errors import InvalidInput
from squish.generation import Message, ToolCall

CHAT = Chat(7, "Weather", "smol", ChatSettings(system="Be brief"), "", 2, 60.0, 120.0)
CALLED = CalledTool("c1", "weather", '{"city": "Bonn"}', "sky/weather", "rain", "done")
QUESTION = Saved(1, 7, None, "user", "How is it?", "", "", (Attachment("place.txt", "Bonn"),), "done", Figures(), 60.0)
ANSWER = Saved(
    2, 7, 1, "assistant", "It rains.", "Hm.", "smol", (), "stopped", Figures(10, 3, reason="cancelled"), 90.0,
    (ToolStep("Let me look.", "Hm.", (CALLED,)), ToolStep("", "", (CalledTool("c2", "sun", "{}"),))),
)  # fmt: skip
BARE = replace(ANSWER, text="", reasoning="", steps=(), figures=Figures())


def test_the_format_is_that_of_the_file_s_name() -> None:
    assert [format_of(Path(name)) for name in ("a.md", "b.JSON", "c.jsonl")] == ["md", "json", "jsonl"]
    with pytest.raises(InvalidInput, match=r"^a\.txt does not say") as raised:
        format_of(Path("x/a.txt"))
    assert raised.value.hint == "End it in .md, .json or .jsonl."


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("How do I match dates?", "how-do-i-match-dates.md"),
        ("  a/b\\c: d ", "a-b-c-d.md"),
        ("", "chat-7.md"),
        ("…!", "chat-7.md"),
        ("x" * 50, f"{'x' * 40}.md"),
        ("x" * 39 + " y", f"{'x' * 39}.md"),
        ("Ünï", "ünï.md"),
    ],
)
def test_a_file_is_named_after_the_title(title: str, name: str) -> None:
    assert file_name(replace(CHAT, title=title)) == name


def test_as_markdown() -> None:
    assert export(CHAT, [QUESTION, ANSWER, BARE], "md") == "\n\n".join((
        "# Weather",
        f"*smol · {local_time(60)}*",
        "## System", "Be brief",
        "## You", "How is it?", "place.txt:\n```\nBonn\n```",
        "## smol", "Let me look.", "*called sky/weather: done*", 'with:\n```\n{"city": "Bonn"}\n```',
        "result:\n```\nrain\n```", "*called sun: waiting*", "with:\n```\n{}\n```", "result:\n```\n\n```", "It rains.",
        "## smol", "*(nothing)*",
    )) + "\n"  # fmt: skip
    plain = export(replace(CHAT, title="", settings=ChatSettings(), tags=("sea", "work")), [], "md")
    assert plain == f"# Chat\n\n*smol · {local_time(60)} · #sea #work*\n"
    assert local_time(60) == datetime.fromtimestamp(60).strftime("%Y-%m-%d %H:%M")


def test_as_json() -> None:
    text = export(CHAT, [QUESTION, ANSWER, BARE], "json")
    assert text.startswith('{\n  "id": 7,') and text.endswith("}\n")
    found = json.loads(text)
    question, answer, bare = found.pop("messages")
    assert found == {
        "id": 7, "title": "Weather", "model": "smol", "created": "1970-01-01T00:01:00+00:00",
        "updated": "1970-01-01T00:02:00+00:00", "tags": [], "system": "Be brief",
    }  # fmt: skip
    assert question == {
        "role": "user", "content": "How is it?", "created": "1970-01-01T00:01:00+00:00",
        "attachments": [{"name": "place.txt", "text": "Bonn"}],
    }  # fmt: skip
    steps = answer.pop("steps")
    assert [each.get("text") for each in steps] == ["Let me look.", None]
    assert steps[0]["calls"][0]["arguments"] == '{"city": "Bonn"}'
    assert answer == {
        "role": "assistant", "content": "It rains.", "created": "1970-01-01T00:01:30+00:00", "model": "smol",
        "state": "stopped", "finish_reason": "cancelled", "reasoning": "Hm.",
        "usage": {"prompt_tokens": 10, "completion_tokens": 3},
    }  # fmt: skip
    assert bare["finish_reason"] is None and not {"reasoning", "steps", "attachments"} & bare.keys()
    assert json.loads(export(replace(CHAT, settings=ChatSettings()), [], "json"))["system"] is None
    assert "ünï" in export(replace(CHAT, title="ünï"), [], "json")


def test_as_a_line_for_fine_tuning() -> None:
    text = export(CHAT, [replace(QUESTION, text="Wie ist es? Schön?"), ANSWER], "jsonl")
    assert text.count("\n") == 1 and text.endswith("\n") and "Schön" in text
    system, question, first, result, second, stopped, last = json.loads(text)["messages"]
    assert system == {"role": "system", "content": "Be brief"}
    assert question == {"role": "user", "content": "Wie ist es? Schön?\n\nplace.txt:\n```\nBonn\n```"}

    def called(id: str, name: str, arguments: str, said: str) -> dict[str, Any]:
        call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        return {"role": "assistant", "content": said, "tool_calls": [call]}

    assert first == called("c1", "weather", '{"city": "Bonn"}', "Let me look.")
    assert result == {"role": "tool", "content": "rain", "tool_call_id": "c1"}
    assert second == called("c2", "sun", "{}", "")
    assert stopped == {"role": "tool", "content": "(stopped)", "tool_call_id": "c2"}
    assert last == {"role": "assistant", "content": "It rains."}
    assert json.loads(export(replace(CHAT, settings=ChatSettings()), [], "jsonl")) == {"messages": []}


def test_the_model_reads_an_answer_with_its_calls_and_its_text_if_it_has_one() -> None:
    call, result, *_, last = as_sent(ANSWER.steps, "It rains.")
    assert call == Message(
        "assistant", "Let me look.", (ToolCall("c1", "weather", '{"city": "Bonn"}'),), reasoning="Hm."
    )
    assert result == Message("tool", "rain", tool_call_id="c1", name="weather")
    assert last == Message("assistant", "It rains.")
    assert as_sent((), "") == () and len(as_sent(ANSWER.steps)) == 4


def test_a_title_is_the_first_words_that_fit() -> None:
    assert title_of(" a\n b ") == "a b"
    assert title_of("x" * MAX_TITLE) == "x" * MAX_TITLE
    assert title_of("x" * (MAX_TITLE + 1)) == "x" * (MAX_TITLE - 1) + "…"
    words = "word " * 40
    assert title_of(words) == "word " * 10 + "word…", "whole words"
    assert title_of(f"{'x' * (MAX_TITLE - 2)} yz") == "x" * (MAX_TITLE - 2) + "…"


@pytest.mark.parametrize(("text", "fence"), [("x", "```"), ("``", "```"), ("```\nx\n```", "````"), ("`````", "``````")])
def test_no_line_of_a_file_closes_its_fence(text: str, fence: str) -> None:
    assert with_files("see", [Attachment("a.md", f"{text}\n\n")]) == f"see\n\na.md:\n{fence}\n{text}\n{fence}"
    assert with_files("", [Attachment("a.md", text)]).startswith("a.md:")
