"""What a narrow or a new screen makes of its parts: facts stay whole, and columns get the width that there is."""

from __future__ import annotations

import pytest
from rich.text import Text
from textual.app import App, ComposeResult
from textual.content import Content

from squish.generation import Finished, FinishReason, Timings, Usage
from squish.hub.search import Found
from squish.tui.chat.answer_state import AnswerState
from squish.tui.widgets.chat.turns import _footer
from squish.tui.widgets.facts import FactLines, broken_at
from squish.tui.widgets.model_card import about, fit_lines
from squish.tui.widgets.table import Column, Table
from tests.tui.scenes import ready, screen_text, until
from tests.tui.scripted import MODELS, SMOL, FrozenMachine, ScriptedApp


def note(ttft: float, reason: FinishReason = "length", with_queue: bool = False) -> str:
    answer = AnswerState(lambda: 0.0)
    answer.apply(Finished(0, reason, Usage(5, 212), Timings(ttft, 60.0, with_queue=with_queue)))
    return _footer(answer)


@pytest.mark.parametrize("width", range(20, 70))
def test_no_fact_of_a_note_is_broken_at_any_width(width: int) -> None:
    whole = note(76.0)
    assert whole == "212 tok · 3.5 tok/s · TTFT 1 min 16 s · reached max tokens"
    lines = broken_at(Content(whole), width).plain.split("\n")
    assert " ".join(lines) == whole
    assert all(len(line) <= width for line in lines)
    facts = [fact for line in lines for fact in line.removesuffix(" ·").split(" · ")]
    assert facts == whole.split(" · ")


@pytest.mark.parametrize(
    ("reason", "said"), [("stop", ""), ("context", " · context full"), ("length", " · reached max tokens")]
)
def test_a_note_says_which_limit_ended_an_answer(reason: FinishReason, said: str) -> None:
    assert note(76.0, reason) == f"212 tok · 3.5 tok/s · TTFT 1 min 16 s{said}"


def test_a_fact_longer_than_a_line_and_its_style_are_left_to_be_wrapped() -> None:
    said = Content.assemble(("it fits because of this and that", "bold"), " · short")
    broken = broken_at(said, 12)
    assert broken.plain == "it fits because of this and that ·\nshort"
    assert [(each.start, each.end) for each in broken.spans] == [(0, 32)]


async def test_facts_are_broken_anew_when_the_terminal_changes() -> None:
    class Noted(App[None]):
        def compose(self) -> ComposeResult:
            yield FactLines(Content(note(76.0)))

    app = Noted()
    async with app.run_test(size=(60, 10)) as pilot:
        facts = app.query_one(FactLines)
        assert facts.size.height == 1
        await pilot.resize_terminal(40, 10)
        await pilot.pause()
        assert facts.size.height == 2 and "1 min 16 s" in facts.render_line(0).text
        await pilot.resize_terminal(60, 10)
        await pilot.pause()
        assert facts.size.height == 1


def test_a_ttft_that_counts_the_servers_queue_says_so() -> None:
    assert "TTFT 1.50 s with the server's queue" in note(1.5, with_queue=True)
    assert note(1.5, "stop").endswith("TTFT 1.50 s")


async def test_the_keys_of_an_empty_chat_are_whole_beside_the_list_of_chats() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "enter  send the message  ctrl+l  choose a model" in screen_text(pilot))
        await pilot.press("ctrl+b")
        await until(pilot, lambda: "Chats" in screen_text(pilot) and "ctrl+l  choose a model" in screen_text(pilot))
        lines = [line for line in screen_text(pilot).splitlines() if "ctrl+l" in line]
        assert "send the message" not in lines[0]
        await pilot.press("ctrl+b")
        await until(pilot, lambda: "enter  send the message  ctrl+l  choose a model" in screen_text(pilot))


async def test_the_chat_keeps_its_room_between_the_list_and_the_parameters() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(120, 24)) as pilot:
        await ready(pilot)

        def shown() -> tuple[bool, bool]:
            return app.screen.query_one("#chats").region.area > 0, app.screen.query_one("#params").region.area > 0

        await pilot.press("ctrl+b", "ctrl+o")
        await until(pilot, lambda: shown() == (True, True))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: shown() == (False, True))
        await pilot.press("ctrl+b")
        await until(pilot, lambda: shown() == (True, False))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: shown() == (False, True))
        assert app.focused is not None and app.focused.id == "field-temperature"
        assert app.screen.query_one("#main").size.width > 40


def test_a_card_says_once_that_the_size_is_unknown() -> None:
    unknown = Found("a/b", "a/b", "a", "mlx", 0, None, 0, 0, None, likes=1, updated="2026-01-31")
    shown = Content("\n").join([about(unknown, ""), *fit_lines(unknown, 4096, FrozenMachine().for_models())]).plain
    assert shown == "♥ 1 · updated 2026-01-31\nSize unknown; fit is checked on load."


async def test_columns_are_laid_out_once_and_for_the_width_that_the_table_gets() -> None:
    laid_out = list[int]()

    class Watched(Table):
        def add_column(self, label: Text, *, width: int | None = None, **rest: object) -> object:  # type: ignore[override]
            laid_out.append(width or 0)
            return super().add_column(label, width=width, **rest)  # type: ignore[arg-type]

    class Listed(App[None]):
        def compose(self) -> ComposeResult:
            yield Watched((Column("Model", 0), Column("Disk", 7, from_width=60)), id="rows")

        def on_mount(self) -> None:
            self.query_one(Table).fill([("one", (Text("one"), Text("1 GB"))), ("two", (Text("two"), Text("2 GB")))])
            assert self.query_one(Table).marked == "one"

    app = Listed()
    async with app.run_test(size=(80, 10)) as pilot:
        await pilot.pause()
        table = app.query_one(Table)
        assert table.row_count == 2
        assert len(laid_out) == 2 and sum(laid_out) + 4 == table.scrollable_content_region.width
