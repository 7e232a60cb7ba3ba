"""Finding words in all chats leads to the words themselves, also deep in a long message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from textual.pilot import Pilot
from textual.widgets import OptionList

from squish.chats.chats import Chats
from squish.chats.messages import Hit
from squish.tui.widgets.chat.transcript import Transcript
from squish.tui.widgets.markdown.searchable import place
from squish.tui.windows.chat_search import ChatSearchScreen, row
from tests.tui.at_rest import drawn_lines
from tests.tui.scenes import ready, screen_text, until, write
from tests.tui.scripted import MODELS, SMOL, ScriptedApp

LONG = "\n\n".join(f"Paragraph {at}: a **lantern** burns." for at in range(60))


def long_chat(path: Path) -> None:
    """A question and an answer of more than a screen, each with one odd word far down."""
    store = Chats(path)
    chat = store.create(SMOL.id, title="Long")
    _, answer = store.ask(chat, None, f"{LONG}\n\nWhere is the harbour?\n\n{LONG}", SMOL.id)
    text = LONG.replace("Paragraph 41: a **lantern**", "Paragraph 41: a **Lighthouse** lantern")
    store.finish(answer, f"- one\n- two\n\n```python\nlight = 1\n```\n\n{text}")
    store.close()


def reversed_words(pilot: Pilot[None]) -> list[str]:
    lines = drawn_lines(pilot.app)
    return [each.text for line in lines for each in line if each.style and each.style.reverse and each.text.isalpha()]


async def find(pilot: Pilot[None], words: str) -> None:
    await pilot.press("ctrl+s")
    await until(pilot, lambda: isinstance(pilot.app.screen, ChatSearchScreen))
    await write(pilot, words)
    # An older search, for fewer letters, may have found the same message for another word.
    await until(pilot, lambda: any(f"\x02{words}" in each.snippet.lower() for each in search_of(pilot)._hits))
    await until(pilot, lambda: pilot.app.screen.query_one(OptionList).option_count == 1)
    await pilot.press("enter")


def search_of(pilot: Pilot[None]) -> ChatSearchScreen:
    assert isinstance(pilot.app.screen, ChatSearchScreen)
    return pilot.app.screen


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
async def test_a_place_deep_in_a_long_message_is_in_view_and_stands_out(tmp_path: Path, size: tuple[int, int]) -> None:
    long_chat(tmp_path / "chats.db")
    app = ScriptedApp(*MODELS, model=SMOL.id, chats=tmp_path / "chats.db")
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        await find(pilot, "lighth")
        await until(pilot, lambda: "Paragraph 41: a Lighthouse" in screen_text(pilot))
        assert reversed_words(pilot) == ["Lighthouse"]
        await find(pilot, "harbour")
        await until(pilot, lambda: "Where is the harbour?" in screen_text(pilot))
        assert reversed_words(pilot) == ["harbour"]
        assert app.screen.query_one(Transcript).current[1] == "question"  # type: ignore[index]
        await pilot.press("i")
        await until(pilot, lambda: "harbour" not in reversed_words(pilot))


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("A **\x02bold\x03** word, *soft* and `x ** y`", "A \x02bold\x03 word, soft and x ** y"),
        ("…the end** of it", "…the end of it"),
        ("a **start…", "a start…"),
        ("f(*args, **kwargs), 2 * 3 * 4, snake_case_name", "f(*args, **kwargs), 2 * 3 * 4, snake_case_name"),
        ("# Title\n- one\n* two\n1. three\n\n---\n> it", "Title\n• one\n• two\n1. three\n\nit"),
        ("| a | b |\n| --- | :-: |\n| 1 | \x022\x03 |", "a · b\n1 · \x022\x03"),
        ("…Blue | \x02Red\x03 |\n| Green | x |", "…Blue · \x02Red\x03\nGreen · x"),
        ("ls | wc | cat", "ls | wc | cat"),
        ("```python\ndef f(**kw):\n    return '**'\n```\nafter", "def f(**kw):\n    return '**'\nafter"),
        ("see [the \x02docs\x03](https://x.y/a_b_c) ***now***", "see the \x02docs\x03 now"),
        ("[" * 2000, "[" * 2000),
        ("**a" * 600, "**a" * 600),
    ],
)
def test_a_place_in_an_answer_is_listed_without_the_marks_of_markdown(written: str, shown: str) -> None:
    hit = Hit(1, "t", 2, "assistant", written, 0.0, False)
    said = re.sub("[\x02\x03]", "", shown).replace("\n", " ")
    assert row(hit, 50).plain.partition("\n  ")[2] == " ".join(said.split(" "))
    asked = replace(hit, role="user")
    assert row(asked, 50).plain.partition("\n  ")[2] == re.sub("[\x02\x03]", "", written).replace("\n", " ")


def test_the_place_is_the_occurrence_that_was_found() -> None:
    text = "a moon, two moons, the Moon again"
    assert place("…two \x02moons\x03, the…", text).occurrence == 0  # type: ignore[union-attr]
    found = place("…, the \x02Moon\x03 again", text)
    assert found is not None and (found.words, found.occurrence) == (("Moon",), 1)
    assert place("nothing is marked", text) is None
    assert place("\x02moon\x03", "another text").occurrence == 0  # type: ignore[union-attr]
