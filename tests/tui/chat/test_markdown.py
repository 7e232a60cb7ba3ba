"""Markdown while it grows: complete blocks are drawn once, and what is finished looks as it did."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from textual import events
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widget import Widget

from squish.generation import EVENTS_AT_ONCE
from squish.tui.chat.answer_state import AnswerState
from squish.tui.widgets.chat.turns import AnswerView
from squish.tui.widgets.markdown.cut import LIMIT, cut
from squish.tui.widgets.markdown.document import Document
from squish.tui.widgets.markdown.growing import TAIL_LINES
from squish.tui.widgets.markdown.line_cut import cut_line
from squish.tui.widgets.markdown.live import BURST, LiveMarkdown
from squish.tui.widgets.markdown.math_text import readable
from squish.tui.widgets.markdown.palette import Palette
from squish.tui.widgets.markdown.reopening import CLOSED, Reopening
from tests.tui.scenes import answer, ask, note, screen_text, shown, until
from tests.tui.scripted import MODELS, SMOL, ScriptedApp


def palette() -> Palette:
    return Palette("default", "default", "default", "default", dark=True)


LIST = "".join(f"{number}. item **{number}** with `code`\n" for number in range(1, 200))
CODE = "```python\n" + "".join(f"line_{number} = {number}\n" for number in range(150)) + "```\n"
TABLE = "| a | b |\n|---|--:|\n| x | 1 |\n"
MIXED = f"# Title\n\nFirst words.\n\n{TABLE}\n{LIST[:1200]}\n{CODE}\n> quote\n\n- one\n- two\n\nend"
SENTENCES = [
    f"Sentence {number} of a **long** paragraph says `code`, costs 2 * {number} and links to [it](https://a.example/{number})."
    for number in range(150)
]
PROSE = " ".join(SENTENCES)
SHORTER = " ".join(SENTENCES[:30])  # long enough to be cut
# Each as it can grow without an end within its one block.
NESTED = "1. first\n\n   more\n2. second\n" + "".join(
    f"   - item {number}\n     1. *deep* {number}\n     2. deeper\n" for number in range(60)
)
QUOTE = "".join(f"> said **{number}**\n>\n> - one\n> - two\n>\n" for number in range(40))
ROWS = "| n | what | so |\n|--:|---|:-:|\n" + "".join(
    f"| {number} | `row` {number} | x |\n" for number in range(100, 180)
)
ONES = "".join(f"1. item {number}\n" for number in range(90))
ODD = "".join(
    f"- 日本語のテキスト {number} 👩‍👩‍👧 e\u0301\u0327 שלום \u200b {'ab' * 40}\n  - ไทย नमस्ते\n" for number in range(30)
)
CLASSES = "```python\n" + "\n\n\n".join(f"class A{number}:\n    b = 1\n\n    c = 2" for number in range(30)) + "\n```\n"
SPARSE = "> ```\n" + "".join(f"> line {number}\n>\n> next\n" for number in range(30)) + "> ```\n"
RULES = "".join(
    f"{block}\n\n---\n\n" for block in ("Words.", "- a\n- b", "1. a", "> q", "# h", "```\nx\n```", TABLE) * 4
)
WIDE = "| n | what |\n|--:|---|\n" + "".join(f"| {number} | {'words of a long row ' * 12}|\n" for number in range(20))
EVEN = "- so\n\n  | a | b |\n  |---|---|\n" + "".join(
    f"  | {'a row of words that take all the room ' * (number > 30)} | y |\n" for number in range(60)
)
LINES = ["para\n", "\n", "- a\n", "1. b\n", "  more\n", "```\n", "# h\n", "> q\n"]


def drawn(document: Document, width: int = 60) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(document)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().removesuffix("\n").split("\n")]


def settled(text: str, width: int) -> list[str]:
    """What parts and tail show when a text has come to its end, one above the other."""
    lines: list[str] = []
    opening = CLOSED
    while found := cut(text, opening):
        done = Document(found.done, palette, opening, is_cut=found.opening.code)
        lines += drawn(done, width) + [""] * found.gap
        text, opening = found.rest, found.opening
    return lines + drawn(Document(text, palette, opening), width)


@pytest.mark.parametrize(
    "text",
    [
        LIST,
        CODE,
        MIXED,
        f"{CODE}\n\n{CODE}\nend",
        "one\n\ntwo\n\n---\n\nthree",
        NESTED,
        QUOTE,
        ROWS,
        ONES,
        ODD,
        f"1. see\n\n   {ROWS.replace(chr(10), chr(10) + '   ')}\n2. next",
        f"- so\n  {CODE.replace(chr(10), chr(10) + '  ')}",
        f"> - {NESTED.replace(chr(10), chr(10) + '>   ')}",
        CLASSES,
        SPARSE,
        RULES,
        WIDE,
        EVEN,
        f"\n\n{LIST}",
    ],
    ids=[
        "list",
        "code",
        "mixed",
        "two",
        "short",
        "nested",
        "quote",
        "table",
        "ones",
        "odd",
        "table in list",
        "code in list",
        "nested in quote",
        "code with empty lines",
        "quoted code",
        "rules",
        "long rows",
        "short column",
        "empty lines before",
    ],
)
def test_parts_look_as_the_whole_does(text: str) -> None:
    for width in (60, 32):
        assert settled(text, width) == drawn(Document(text, palette), width)


@given(
    st.lists(st.sampled_from(["para\n", "\n", "- a\n", "1. b\n", "  more\n", "```\n", "# h\n", "> q\n"]), max_size=20)
)
def test_a_cut_loses_no_line(lines: list[str]) -> None:
    text = "".join(lines)
    found = cut(text)
    if found:
        assert found.done + found.opening.shown(found.rest) == text


def test_no_word_in_a_table_is_cut_off() -> None:
    address = "https://a.example/" + "path/" * 8
    shown = drawn(Document(f"| so | where |\n|---|---|\n| incomprehensibilities | {address} |\n", palette), 40)
    column = shown[0].index("where")
    assert "".join(line[column:].strip() for line in shown[2:]) == address


@pytest.mark.parametrize("block", ["words", "- a", "1. a", "> q", "# h", "```\nx\n```", TABLE.rstrip(), "---"])
def test_between_two_blocks_is_one_empty_line(block: str) -> None:
    alone = drawn(Document(block, palette))
    above, below = drawn(Document("above", palette)), drawn(Document("---", palette))
    lines = drawn(Document(f"above\n\n{block}\n\n---\n\n{block}", palette))
    assert [line.replace("[2]", "[1]") for line in lines] == [
        *above,
        "",
        *alone,
        "",
        *below,
        "",
        *alone,
    ]


def lines_of(text: str) -> list[str]:
    return drawn(Document(text, palette))


class Drawing:
    """Draws lines, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, text: str, opening: Reopening = CLOSED) -> list[str]:
        self.times += 1
        return drawn(Document(text, palette, opening))


@pytest.mark.parametrize("text", [PROSE, SHORTER], ids=["long", "shorter"])
def test_a_paragraph_is_cut_between_two_of_its_lines(text: str) -> None:
    draw = Drawing()
    found = cut_line(text, CLOSED, draw, len(text))
    assert found is not None
    assert draw.times <= 12
    assert found.done + found.rest == text
    assert lines_of(found.done) + lines_of(found.rest) == lines_of(text)
    assert len(lines_of(found.rest)) < 16


@pytest.mark.parametrize(
    "text",
    [
        f"**{SHORTER.replace('**', '')}",
        f"[{SHORTER.replace('[it]', 'it ')}",
        f"`{SHORTER.replace('`', '')}",
        f"# {SHORTER}",
        f"{SHORTER}\n\nend",
    ],
    ids=["bold", "link", "code", "heading", "two"],
)
def test_a_paragraph_is_not_cut_within_markup_that_is_still_open(text: str) -> None:
    draw = Drawing()
    assert cut_line(text, CLOSED, draw, len(text)) is None
    assert draw.times <= 12


def test_code_that_was_cut_is_whole_again() -> None:
    found = cut(CODE)
    assert found is not None and found.opening.code
    assert found.done + found.opening.shown(found.rest) == CODE


async def stream(pilot: Pilot[None], app: ScriptedApp, text: str) -> LiveMarkdown:
    await ask(pilot, "go")
    for at in range(0, len(text), 400):
        app.engine.last.say(*(text[at : at + 400][begin : begin + 8] for begin in range(0, 400, 8)))
        await until(pilot, lambda end=at + 400: len(shown(pilot)) >= min(end, len(text)))  # type: ignore[misc]
    return app.screen.query_one(LiveMarkdown)


class Counted:
    """What is done in every turn of the loop. parsed: characters; measured: widgets; begun: events and documents."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parsed = self.measured = self.events = 0
        parse, measure, apply = MarkdownIt.parse, Widget._get_box_model, AnswerState.apply

        def counted_parse(parser: MarkdownIt, text: str, *more: Any) -> Any:
            self.parsed += len(text)
            return parse(parser, text, *more)

        def counted_measure(widget: Widget, *more: Any, **named: Any) -> Any:
            self.measured += 1
            return measure(widget, *more, **named)

        def counted_apply(answer: AnswerState, event: Any) -> str:
            self.events += 1
            return apply(answer, event)

        monkeypatch.setattr(MarkdownIt, "parse", counted_parse)
        monkeypatch.setattr(Widget, "_get_box_model", counted_measure)
        monkeypatch.setattr(AnswerState, "apply", counted_apply)

    def take(self) -> tuple[int, int, int]:
        """What was counted since the last time."""
        taken = self.parsed, self.measured, self.events
        self.parsed = self.measured = self.events = 0
        return taken


class LiveApp(App[None]):
    """Nothing but an answer that is drawn when the test says so."""

    CSS = "LiveMarkdown, .settled, .tail { height: auto; }"

    def compose(self) -> ComposeResult:
        yield VerticalScroll()


MEASURED = 14  # the screen, what is around the text, its two parts, and what is measured twice
GROWING: dict[str, Callable[[int], str]] = {
    "list": lambda n: "".join(f"{number}. item **{number}**\n" for number in range(1, n)),
    "nested": lambda n: (
        f"1. first\n{''.join(f'   - item {number}{chr(10)}     1. deep{chr(10)}' for number in range(n // 2))}"
    ),
    "table": lambda n: "| n | what |\n|--:|---|\n" + "".join(f"| {number} | `row` |\n" for number in range(n)),
    "quote": lambda n: "".join(f"> said **{number}**\n>\n" for number in range(n)),
    "code": lambda n: "```python\n" + "".join(f"line = {number}\n" for number in range(n)),
    "code in a list": lambda n: "- so\n\n  ```\n" + "".join(f"  line = {number}\n" for number in range(n)),
    "indented": lambda n: "".join(f"    line {number}\n" for number in range(n)),
    "one line": lambda n: "```json\n" + "abcdefghijklmno " * n,
    "paragraph": lambda n: "A sentence of words. " * n,
    "quoted paragraph": lambda n: "> " + "A sentence of words. " * n,
    "open markup": lambda n: "[**`" + "A sentence of words. " * n,
    "addresses": lambda n: "".join(f"[a{number}]: https://a.example\n" for number in range(n)),
    "spaces": lambda n: "one\n\n" + "\n" * 12 * n,
}


EACH_TIME = ("list", "table", "code", "one line", "paragraph")


@pytest.mark.parametrize(
    "kinds",
    [EACH_TIME, pytest.param(tuple(kind for kind in GROWING if kind not in EACH_TIME), marks=pytest.mark.long)],
    ids=["some", "others"],
)
async def test_an_update_costs_the_same_however_long_what_grows_is(
    kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven times the text: not one character more is parsed for an update, and not one widget more is measured."""
    counted = Counted(monkeypatch)
    app = LiveApp()
    async with app.run_test(size=(60, 20)) as pilot:
        for kind in kinds:
            short = await cost_of_updates(pilot, counted, GROWING[kind](60))
            long = await cost_of_updates(pilot, counted, GROWING[kind](420))
            assert long[0] <= 4 * LIMIT, f"characters that are parsed for an update of {kind}"
            assert 0 < long[1] <= MEASURED and short[1] <= MEASURED, (
                f"widgets that are measured for an update of {kind}"
            )


async def cost_of_updates(pilot: Pilot[None], counted: Counted, text: str) -> tuple[int, int]:
    """The most that one of the last updates costs: characters that are parsed, widgets that are measured."""
    live = LiveMarkdown(lambda: False)
    around = pilot.app.screen.query_one(VerticalScroll)
    await around.mount(live)
    live._pending = text[:-400]
    while live._pending:
        live._draw_pending()
    costs = list[tuple[int, int]]()
    for at in range(len(text) - 400, len(text), 100):
        live._pending = text[at : at + 100]
        await pilot.pause()
        counted.take()
        live._draw_pending()
        await pilot.pause()
        costs.append(counted.take()[:2])
    assert live.source == text
    await live.remove()
    return max(parsed for parsed, _ in costs), max(measured for _, measured in costs)


async def test_what_comes_at_once_is_drawn_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the pieces keys are heard: whoever waits has a turn after little work."""
    counted = Counted(monkeypatch)
    turns = list[tuple[int, int, int]]()

    loop = asyncio.get_running_loop()
    turn = loop._run_once  # type: ignore[attr-defined]

    def counted_turn() -> None:
        turn()
        turns.append(counted.take())

    monkeypatch.setattr(loop, "_run_once", counted_turn)
    text = LIST
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test() as pilot:
        await ask(pilot, "go")
        await answer(pilot, *(text[at : at + 3] for at in range(0, len(text), 3)))
        assert app.screen.query_one(LiveMarkdown).source == text
    assert max(parsed for parsed, _, _ in turns) <= 10 * (BURST + LIMIT)
    assert max(events for _, _, events in turns) <= 4 * EVENTS_AT_ONCE


def test_a_paragraph_with_an_image_is_shown_whole_and_in_order() -> None:
    words = [f"word{number}" for number in range(30)]
    text = " ".join([*words[:15], "![a *cat*](cat.png)", *words[15:]])
    shown = " ".join(drawn(Document(text, palette))).split()
    assert shown == [*words[:15], "🌆", "a", "cat", "(cat.png)", *words[15:]]


async def test_a_link_finds_its_address_further_down() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    text = f"See [the manual][1].\n\n{LIST[:1200]}\n\n[1]: https://a.example/manual\n"
    async with app.run_test(size=(80, 80)) as pilot:
        await stream(pilot, app, text)
        app.engine.last.finish()
        await until(pilot, lambda: "TTFT" in note(pilot))
        assert "the manual (https://a.example/manual)" in screen_text(pilot)
        assert "[1]" not in screen_text(pilot)


async def test_esc_is_shown_while_there_is_still_much_to_draw() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    app.engine.deaf = True  # as an engine in the middle of a step
    async with app.run_test() as pilot:
        live = await stream(pilot, app, LIST[:400])
        app.engine.last.say(*["more words " * 100] * 500)
        app.post_message(events.Key("escape", None))
        while note(pilot) != "■ stopping …":  # seen at once: later, on a slow machine, more has been drawn
            await asyncio.sleep(0)
        assert len(live.source) < 100_000, "of half a million characters"


async def test_what_comes_after_esc_is_drawn_once_and_with_the_end() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    app.engine.deaf = True
    async with app.run_test() as pilot:
        live = await stream(pilot, app, LIST[:400])
        state, flushes = app.screen.query_one(AnswerView).turn.answer, live.flushes
        await pilot.press("escape")
        app.engine.last.say(" and some", " more words")
        await until(pilot, lambda: state.text.endswith("more words"))
        assert note(pilot) == "■ stopping …"
        assert live.flushes == flushes
        app.engine.last.finish("cancelled")
        await until(pilot, lambda: note(pilot).startswith("■ stopped"))
        await until(pilot, lambda: live.source == state.text)
        assert live.flushes == flushes + 1


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
        assert len(live._growing.parts) <= 3


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
