"""Markdown while it grows: complete blocks are drawn once, and what is finished looks as it did."""

from __future__ import annotations

import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from textual import events
from textual.pilot import Pilot

from squish.tui.widgets.markdown.cut import cut, joined
from squish.tui.widgets.markdown.document import Document, Palette, code_blocks
from squish.tui.widgets.markdown.live import BURST, TAIL_LINES, LiveMarkdown
from squish.tui.widgets.markdown.math_text import readable
from squish.tui.widgets.markdown.paragraph_cut import cut_paragraph
from tests.tui.scenes import ask, note, screen_text, shown, until
from tests.tui.scripted import MODELS, SMOL, ScriptedApp


def palette() -> Palette:
    return Palette("default", "default", "default", "default", dark=True)


LIST = "".join(f"{number}. item **{number}** with `code`\n" for number in range(1, 200))
CODE = "```python\n" + "".join(f"line_{number} = {number}\n" for number in range(150)) + "```\n"
TABLE = "| a | b |\n|---|--:|\n| x | 1 |\n"
MIXED = f"# Title\n\nFirst words.\n\n{TABLE}\n{LIST[:1200]}\n{CODE}\n> quote\n\n- one\n- two\n\nend"
PROSE = " ".join(
    f"Sentence {number} of a **long** paragraph says `code`, costs 2 * {number} and links to [it](https://a.example/{number})."
    for number in range(150)
)
LINES = ["para\n", "\n", "- a\n", "1. b\n", "  more\n", "```\n", "# h\n", "> q\n"]


def drawn(document: Document, width: int = 60) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(document)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().rstrip("\n").split("\n")]


def settled(text: str) -> list[str]:
    """What parts and tail show when a text has come to its end, one above the other."""
    lines: list[str] = []
    fences, continues = 0, False
    while found := cut(text):
        lines += drawn(Document(found.done, palette, fences, continues)) + [""] * found.gap
        fences += found.fences - (1 if continues and found.fences else 0)
        text, continues = found.rest, found.continues
    return lines + drawn(Document(text, palette, fences, continues))


@pytest.mark.parametrize(
    "text",
    [LIST, CODE, MIXED, f"{CODE}\n\n{CODE}\nend", "one\n\ntwo\n\n---\n\nthree"],
    ids=["list", "code", "mixed", "two", "short"],
)
def test_parts_look_as_the_whole_does(text: str) -> None:
    assert settled(text) == drawn(Document(text, palette))


@given(
    st.lists(st.sampled_from(["para\n", "\n", "- a\n", "1. b\n", "  more\n", "```\n", "# h\n", "> q\n"]), max_size=20)
)
def test_a_cut_loses_no_line(lines: list[str]) -> None:
    text = "".join(lines)
    found = cut(text)
    if found and not found.continues:
        assert found.done + found.rest == text


def lines_of(text: str) -> list[str]:
    return drawn(Document(text, palette))


def test_a_paragraph_is_cut_between_two_of_its_lines() -> None:
    found = cut_paragraph(PROSE, lines_of)
    assert found is not None
    assert found.done + found.rest == PROSE
    assert lines_of(found.done) + lines_of(found.rest) == lines_of(PROSE)
    assert len(lines_of(found.rest)) < 16


@pytest.mark.parametrize(
    "text",
    [
        f"**{PROSE.replace('**', '')}",
        f"[{PROSE.replace('[it]', 'it ')}",
        f"`{PROSE.replace('`', '')}",
        f"# {PROSE}",
        f"{PROSE}\n\nend",
    ],
    ids=["bold", "link", "code", "heading", "two"],
)
def test_a_paragraph_is_not_cut_within_markup_that_is_still_open(text: str) -> None:
    assert cut_paragraph(text, lines_of) is None


def test_code_that_was_cut_is_whole_again() -> None:
    found = cut(CODE)
    assert found is not None and found.continues
    assert joined(found.done, found.rest) == CODE
    assert code_blocks(joined(found.done, found.rest)) == code_blocks(CODE)


async def stream(pilot: Pilot[None], app: ScriptedApp, text: str) -> LiveMarkdown:
    await ask(pilot, "go")
    for at in range(0, len(text), 400):
        app.engine.last.say(*(text[at : at + 400][begin : begin + 8] for begin in range(0, 400, 8)))
        await until(pilot, lambda end=at + 400: len(shown(pilot)) >= min(end, len(text)))  # type: ignore[misc]
    return app.screen.query_one(LiveMarkdown)


@pytest.mark.parametrize(("text", "looks"), [(LIST, 2), (CODE * 2, 2), (PROSE, 15)], ids=["list", "code", "paragraph"])
async def test_an_update_costs_the_same_however_long_the_answer_is(
    text: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """looks: how often a line is looked at for a place to cut at."""
    looked_at: list[int] = []
    begin = Document.__init__

    def counted(self: Document, text: str, *more: object) -> None:
        looked_at.append(text.count("\n") + len(text) // 80)
        begin(self, text, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Document, "__init__", counted)
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test() as pilot:
        live = await stream(pilot, app, text)
        assert live.source == text
        assert max(looked_at) <= 3 * TAIL_LINES, "lines of any one document that was laid out"
        assert sum(looked_at) <= live.flushes * 2 * TAIL_LINES + looks * (text.count("\n") + len(text) // 80)
        parts = list(live.query(".part"))
        before = [each.id for each in parts]
        app.engine.last.finish()
        await until(pilot, lambda: "TTFT" in note(pilot))
        assert [each.id for each in parts] == before


async def test_what_comes_at_once_is_drawn_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the pieces keys are heard."""
    looked_at: list[int] = []
    begin = Document.__init__

    def counted(self: Document, text: str, *more: object) -> None:
        looked_at.append(len(text))
        begin(self, text, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Document, "__init__", counted)
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test() as pilot:
        await ask(pilot, "go")
        app.engine.last.say(LIST * 3)
        live = app.screen.query_one(LiveMarkdown)
        await until(pilot, lambda: live.source == LIST * 3)
        assert max(looked_at) <= 2 * BURST
        assert live.flushes >= len(LIST * 3) // BURST


async def test_a_link_finds_its_address_further_down() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    text = f"See [the manual][1].\n\n{LIST[:1200]}\n\n[1]: https://a.example/manual\n"
    async with app.run_test(size=(80, 80)) as pilot:
        await stream(pilot, app, text)
        app.engine.last.finish()
        await until(pilot, lambda: "TTFT" in note(pilot))
        assert "the manual (https://a.example/manual)" in screen_text(pilot)
        assert "[1]" not in screen_text(pilot)


async def test_esc_is_shown_without_another_look_at_the_answer() -> None:
    """Whatever streams: between the key and what it shows nothing of the text is laid out more than once."""
    app = ScriptedApp(*MODELS, model=SMOL.id)
    app.engine.deaf = True  # as an engine in the middle of a step
    async with app.run_test() as pilot:
        live = await stream(pilot, app, LIST)
        app.engine.last.say(*["more words "] * 500)
        parts, flushes = len(live.query(".part")), live.flushes
        app.post_message(events.Key("escape", None))
        while note(pilot) != "■ stopping …":  # seen at once: later, on a slow machine, more has been drawn
            await asyncio.sleep(0)
        assert live.flushes - flushes <= 1
        assert len(live.query(".part")) - parts <= 1


async def test_a_long_block_of_code_has_one_number_and_is_whole_at_the_end() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    code = "```python\n" + "".join(f"line_{number} = {number}\n" for number in range(3 * TAIL_LINES)) + "```\n"
    async with app.run_test(size=(80, 7 * TAIL_LINES)) as pilot:
        live = await stream(pilot, app, f"{code}\nsee\n\n{code}")
        assert screen_text(pilot).count("[1] python") == 1
        app.engine.last.finish()
        await until(pilot, lambda: "TTFT" in note(pilot) and "[2] python" in screen_text(pilot))
        assert screen_text(pilot).count(" python") == 2
        assert screen_text(pilot).count(f"line_{3 * TAIL_LINES - 1} = ") == 2
        assert len(live.query(".part")) <= 3


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        ("a^2", "a²"),
        (r"x_1 + x_{12}\,\text{m}", "x₁ + x₁₂ m"),
        (r"\frac{x+1}{2}", "(x+1)/2"),
        (r"\sqrt{b^2-4ac}", "√(b²-4ac)"),
        (r"\alpha \leq \infty", "α ≤ ∞"),
        (r"e^{i\pi}", None),
        (r"\begin{matrix}a\end{matrix}", None),
    ],
)
def test_simple_formulas_are_readable(formula: str, text: str | None) -> None:
    assert readable(formula) == text


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        (r"So \(a^2\) is", "So a² is"),
        (r"\[ e^{i\pi} \]", r"\[ e^{i\pi} \]"),
        (r"\( open", r"\( open"),
        (r"a \* b and \[optional\]", "a * b and [optional]"),
        (r"`\(a^2\)`", r"\(a^2\)"),
    ],
)
def test_formulas_keep_what_markdown_would_drop(written: str, seen: str) -> None:
    assert drawn(Document(written, palette)) == [seen]
