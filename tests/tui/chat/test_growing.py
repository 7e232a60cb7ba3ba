"""An answer looks while it is written as it does when it is finished and when its chat is opened again.

Each text comes in pieces to the widget of a growing answer, and is compared with the one that shows it at once.
"""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widget import Widget

from squish.text import clean
from squish.tui.widgets.markdown.cut import LIMIT
from squish.tui.widgets.markdown.growing import WHOLE
from squish.tui.widgets.markdown.live import LiveMarkdown, frozen
from squish.tui.widgets.markdown.searchable import Searchable
from tests.tui.random_markdown import RandomMarkdown
from tests.tui.scenes import answer, ask, until
from tests.tui.scripted import MODELS, SMOL, ScriptedApp

SENTENCE = "A sentence of words that says nothing. "
LONG = SENTENCE * (LIMIT // len(SENTENCE) + 20)
ROWS = "".join(f"| {number} | so |\n" for number in range(60))
WIDE = "| 60 | and then a row comes whose words need more room than all before it |\n"
FORMULAS = "So:\n\\[\na\n+ b \\\\\n- c \\, d\n= e\n\\]\n\nand:\n\n$$\n+ a\n$$\n"
BLANK = "".join(f"line_{number} = {number}\n\n" for number in range(60))


class LiveApp(App[None]):
    CSS = "LiveMarkdown, .settled, .tail, .frozen { height: auto; } VerticalScroll { scrollbar-size: 0 0; }"

    def compose(self) -> ComposeResult:
        yield VerticalScroll()


async def grow(pilot: Pilot[None], *pieces: str) -> LiveMarkdown:
    """An answer to which these pieces have come, all of them drawn."""
    live = LiveMarkdown(lambda: False)
    await around(pilot).mount(live)
    await pilot.pause()
    await add(live, *pieces)
    return live


async def add(live: LiveMarkdown, *pieces: str) -> None:
    for piece in pieces:
        live._pending += piece
        while live._pending:
            live._draw_pending()
    live._draw_tail()


def around(pilot: Pilot[None]) -> VerticalScroll:
    return pilot.app.screen.query_one(VerticalScroll)


def lines(*texts: Searchable) -> list[str]:
    """All lines that widgets show, without those that are empty at the end."""
    shown = [text.line(y).text.rstrip() for text in texts if text.display for y in range(text.size.height)]
    return "\n".join(shown).rstrip("\n").split("\n")


async def lines_of(pilot: Pilot[None], live: LiveMarkdown) -> list[str]:
    await pilot.pause()
    return lines(*live.query(Searchable))


async def at_once(pilot: Pilot[None], text: str) -> list[str]:
    whole = frozen(pilot.app, text)
    await around(pilot).mount(whole)
    await pilot.pause()
    found = lines(whole)
    await whole.remove()
    return found


def chopped(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


CASES = {
    "emphasis that ends far below": f"So *it begins {LONG}and ends* here. {LONG}",
    "bold that ends far below": f"So **it {LONG.replace('nothing', '**nothing**')} ends** here.",
    "code that ends far below": f"So `it begins {LONG}and ends` here. {LONG}",
    "a link whose text is long": f"So [it begins {LONG}and ends](https://a.example/x) here.",
    "a formula that ends far below": rf"So \(x {LONG}\) here.",
    "emphasis that never ends": f"So *it begins {LONG}",
    "a long paragraph in an item": f"1. one\n2. {LONG}\n\n   {LONG}\n3. three",
    "a long paragraph in a quote": f"> - said\n>\n>   *so {LONG}* end",
    "a long paragraph in lines": f"{SENTENCE}\n" * 120,
    "a long paragraph that becomes a heading": f"{LONG}\n---\nand on",
    "a long heading": f"# {LONG}\n\nand on",
    "a long paragraph without spaces": f"- **重要** {'中文字符，测试。' * 500}",
    "a word longer than all": "x" * (LIMIT + 1000),
    "a long line of code": f"> ```json\n> {'abcdefghijklmno ' * 250}\n> ```\n",
    "code with an empty line after each": f"- so\n\n  ```python\n  {BLANK.replace(chr(10), chr(10) + '  ')}\n  ```",
    "code where characters are joined": f"```python\n> {'word ' * 11}👩‍👩‍👧 1,000 of longer-word\n>\n```\n",
    "a row that needs more room than those before": f"| n | what |\n|--:|---|\n{ROWS}{WIDE}{ROWS}",
    "a table whose first row is long": f"| n | what |\n|--:|---|\n| 0 | {LONG}|\n{ROWS}",
    "a table with a long row": f"> | n | what |\n> |--:|---|\n> | 0 | {LONG}| more |\n> | 1 | so |\n",
    "rows that begin as items do": "| n |\n|---|\n" + "1 |\n**b** |\n" * 40,
    "rows that begin as formulas do": "| n |\n|---|\n" + "$$y$$ is |\n\\[x\\] is |\n" * 30,
    "an item whose number comes late": "".join(f"{number}. item\n\n" for number in range(1, 60)),
    "items that begin with emphasis": "- one\n*soft* words\n" * 30,
    "formulas with signs at the beginning of a line": FORMULAS * 12,
    "separators of lines that are none in Markdown": "one\u2028two\u2029three\n" * 60,
    "an address that comes in pieces": f"See [the manual][1].\n\n[1]: https://a.example/manual\n\n{SENTENCE}\n\n" * 9,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_it_looks_the_same_while_it_grows_and_afterwards(name: str) -> None:
    text = CASES[name]
    app = LiveApp()
    async with app.run_test(size=(60, 20)) as pilot:
        whole = await at_once(pilot, text)
        for size in (7 if len(text) < LIMIT else 90, 700):
            live = await grow(pilot, *chopped(text, size))
            if "[1]:" not in text:  # links whose addresses come later are found when nothing more comes
                assert await lines_of(pilot, live) == whole
            await live.finish()
            assert await lines_of(pilot, live) == whole
            await live.remove()


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 44))])
async def test_random_text_looks_the_same_while_it_grows_and_afterwards(seed: int) -> None:
    made = RandomMarkdown(seed)
    text = made.text()
    app = LiveApp()
    async with app.run_test(size=((60, 80, 120)[seed % 3], 20)) as pilot:
        whole = await at_once(pilot, text)
        live = await grow(pilot, *made.pieces(text))
        assert await lines_of(pilot, live) == whole
        await live.finish()
        assert await lines_of(pilot, live) == whole


@pytest.mark.parametrize("name", ["emphasis that ends far below", "a long line of code", "a table with a long row"])
async def test_it_looks_the_same_when_the_window_changes_while_it_grows(name: str) -> None:
    text = f"{CASES[name]}\n\n| n | what |\n|--:|---|\n{ROWS}{WIDE}{ROWS}\n\n{LONG}"
    pieces = chopped(text, 400)
    app = LiveApp()
    async with app.run_test(size=(60, 20)) as pilot:
        live = await grow(pilot)
        for at, width in enumerate((60, 100, 40, 80)):
            await pilot.resize_terminal(width, 20)
            await pilot.pause()
            await add(live, *pieces[at * len(pieces) // 4 : (at + 1) * len(pieces) // 4])
        assert await lines_of(pilot, live) == await at_once(pilot, text)


async def test_an_answer_too_long_to_be_drawn_at_once_looks_the_same_when_it_is_opened_again() -> None:
    blocks = [
        CASES["emphasis that ends far below"],
        f"```python\n'''\n{BLANK}'''\n```",
        CASES["a table with a long row"],
    ]
    text = "\n\n".join(blocks * (WHOLE // sum(map(len, blocks)) + 1))
    app = LiveApp()
    async with app.run_test(size=(80, 20)) as pilot:
        live = await grow(pilot, *chopped(text, 900))
        await live.finish()
        written, again = await lines_of(pilot, live), LiveMarkdown(lambda: True, text, is_complete=True)
        await live.remove()
        await around(pilot).mount(again)
        while again.source != text or again._growing.parts[-1].after.opening.code:
            await pilot.pause()
        assert await lines_of(pilot, again) == written == await at_once(pilot, text)


async def test_what_cannot_be_cut_is_drawn_less_often_the_longer_it_is() -> None:
    """All rows stand on one line of a table: another cell may begin beside its first line."""
    pieces = [f"| n | what |\n|--:|---|\n| 0 | {LONG * 2}", *[SENTENCE] * 200]
    app = LiveApp()
    async with app.run_test(size=(60, 20)) as pilot:
        live = await grow(pilot, pieces[0])
        drawn = list[int]()
        for piece in pieces[1:]:
            live._pending += piece
            live._draw_pending()
            drawn.append(live._drawn)
        assert len(set(drawn)) < 20
        await live.finish()
        assert await lines_of(pilot, live) == await at_once(pilot, "".join(pieces))


@pytest.mark.parametrize(
    "written",
    [
        "a&#8238;b", "a&#x2028;b", "a&ZeroWidthSpace;b", "[a](https://a.example/&#8238;x)",
        "![a&#8238;](x)", "`a\u200bb`", "```p&#8238;y\nx\n```", "| a&#8238; |\n|---|\n| \ufeffb |", "[&#8238;]: https://a.example\n\n[&#8238;]",
    ],
)  # fmt: skip
async def test_what_an_entity_writes_is_cleaned_too(written: str) -> None:
    app = LiveApp()
    async with app.run_test(size=(60, 20)) as pilot:
        live = await grow(pilot, *written)
        for shown in (await lines_of(pilot, live), await at_once(pilot, written)):
            assert [clean(line) for line in shown] == shown
            assert "\u202e" not in "".join(shown)


async def test_text_is_selected_with_the_mouse_as_it_is_shown() -> None:
    text = "# Title\n\nSome **bold** words, 日本 and `code`.\n\n" + "- one\n" * 30
    app = LiveApp()
    async with app.run_test(size=(60, 60)) as pilot:
        live = await grow(pilot, text)
        assert await select(pilot, (5, 2), (24, 2)) == "bold words, 日本 and"
        assert (await select(pilot, (0, 0), (6, 33))).endswith(" • one\n" * 2 + " • one")  # parts and the tail
        await live.remove()
        await around(pilot).mount(frozen(app, text))
        await pilot.pause()
        assert await select(pilot, (5, 2), (24, 2)) == "bold words, 日本 and"


async def test_what_is_selected_in_an_answer_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_TTY", "/dev/pts/0")
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(pilot, "go")
        await answer(pilot, "Some **bold** words.")
        await select(pilot, (5, 0), (8, 0), LiveMarkdown)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app.clipboard == "bold")


async def select(
    pilot: Pilot[None], start: tuple[int, int], end: tuple[int, int], on: type[Widget] = VerticalScroll
) -> str:
    """What is selected when the mouse is dragged from a place to another one."""
    await pilot.mouse_down(on, offset=start)
    await pilot.hover(on, offset=(start[0] + 2, start[1]))
    await pilot.hover(on, offset=end)
    await pilot.mouse_up(on, offset=end)
    await pilot.pause()
    return pilot.app.screen.get_selected_text() or ""
