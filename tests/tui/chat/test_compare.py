"""One question to several models: who is asked when, what is hidden, and what becomes of the answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from squish.chats.chats import Chats
from squish.chats.messages import ChatSettings
from squish.chats.presets import PRESETS
from squish.config import model_defaults
from squish.config.settings import Settings
from squish.errors import EngineError, LoadFailed
from squish.generation import ChatPrompt, Finished, Loading, Timings, Usage
from squish.tui.chat.comparison import Candidate, Comparison, Lineup, candidates
from squish.tui.chat.conversation import Conversation
from squish.tui.downloads import Transfer
from squish.tui.screens.compare import CompareScreen
from squish.tui.widgets.chat.contender_view import ContenderView
from squish.tui.windows.compare_picker import ComparePicker
from squish.tui.windows.confirm import ConfirmScreen
from tests.tui.scenes import ask, note, prompt, ready, screen_text, shown, until, write
from tests.tui.scripted import MODELS, SMOL, ScriptedApp

QWEN, LLAMA = "qwen3:8b", "llama3.1:8b"
ONE, TWO, THREE = Candidate(QWEN, ChatSettings()), Candidate(LLAMA, ChatSettings()), Candidate(QWEN, PRESETS["greedy"])


def begun(chats: Chats, *asked: Candidate, blind: bool = False, in_turn: bool = False) -> Comparison:
    talk = Conversation(chats, SMOL.id, float)
    entry = Lineup(asked, blind, in_turn)
    return Comparison.begin(talk, entry, "why", (), None, lambda order: order.reverse())


def test_the_chosen_model_comes_first_and_no_preset_twice() -> None:
    found = candidates(dict.fromkeys((LLAMA, QWEN), ChatSettings(system="Be brief")), QWEN, PRESETS)
    assert [each.name for each in found][:3] == [QWEN, LLAMA, f"{QWEN} · precise"]
    assert len(found) == 2 + 2 * 3, "balanced is how the chat asks"
    assert {each.settings.system for each in found} == {"Be brief"}


async def test_each_model_is_asked_as_is_set_for_it_below_what_the_chat_sets(tmp_path: Path) -> None:
    file = model_defaults.read_all({"qwen3:8b": {"temperature": 0.6, "top_k": 20}}, "config.toml")
    settings = Settings(home=tmp_path, cache_dir=tmp_path, models=tuple(file.items()))
    app = ScriptedApp(SMOL, *(each for each in MODELS if each.id == QWEN), model=SMOL.id, settings=settings)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        prompt(pilot).put("/set top_k 5")
        await pilot.press("enter")
        await until(pilot, lambda: prompt(pilot).text == "")
        prompt(pilot).put("/compare why")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ComparePicker))
        await pilot.press("enter")
        await until(pilot, lambda: len(app.engine.generations) == 2)
        asked = {each.request.model: each.request.sampling for each in app.engine.generations}
        assert {model: (each.temperature, each.top_k) for model, each in asked.items()} == {
            SMOL.id: (0.7, 5),
            QWEN: (0.6, 5),
        }
        for each in app.engine.generations:
            each.finish(tokens=1)


def test_all_are_asked_at_once_with_their_own_parameters(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    both = begun(chats, ONE, THREE)
    due = both.due()
    assert [each.candidate for each in due] == [ONE, THREE] and both.due() == []
    requests = [each.turn.conversation.request(each.turn) for each in due]
    assert [(each.model, each.sampling.temperature) for each in requests] == [(QWEN, 0.7), (QWEN, 0.0)]
    assert requests[0].prompts == requests[1].prompts
    (chat,) = chats.recent()
    assert len(chats.tree(chat.id).versions(due[0].turn.answer_id)) == 2
    chats.close()


def test_in_turn_one_waits_for_the_other(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    both = begun(chats, ONE, TWO, in_turn=True)
    (first,) = both.due()
    assert both.due() == [] and both.waits(both.contenders[1])
    assert both.ended(first.turn, None)
    assert [each.number for each in both.due()] == [2]
    chats.close()


def test_a_model_that_has_no_room_beside_another_is_asked_again_after_it(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    both = begun(chats, ONE, TWO)
    first, second = both.due()
    assert not both.ended(second.turn, LoadFailed("no room"))
    assert both.due() == [] and both.waits(second) and not both.over
    assert both.ended(first.turn, None)
    assert both.due() == [second]
    assert both.ended(second.turn, LoadFailed("no room")) and both.over, "alone it is tried once"
    assert second.turn.answer.phase == "failed"
    chats.close()


def test_two_sets_of_parameters_of_a_model_that_cannot_be_loaded_fail_at_once(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    both = begun(chats, ONE, THREE)
    assert all(both.ended(each.turn, LoadFailed("damaged")) for each in both.due()) and both.over
    chats.close()


def test_names_are_hidden_and_shuffled_until_the_choice(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    both = begun(chats, ONE, TWO, blind=True)
    assert [each.candidate for each in both.contenders] == [TWO, ONE]
    assert {both.name(each) for each in both.contenders} == {"?"}
    both.kept = both.contenders[0]
    assert [both.name(each) for each in both.contenders] == [LLAMA, QWEN]
    chats.close()


def test_who_was_stopped_or_failed_did_not_answer(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    all_three = begun(chats, ONE, TWO, THREE)
    first, second, third = all_three.due()
    assert all_three.outcome == "0 of 3 answered"
    first.turn.answer.apply(Finished(0, "stop", Usage(1, 1), Timings(0.1, 0.1)))
    all_three.ended(first.turn, None)
    assert all_three.outcome == "1 of 3 answered"
    second.turn.answer.apply(Finished(0, "cancelled", Usage(1, 1), Timings(0.1, 0.1)))
    all_three.ended(second.turn, None)
    all_three.ended(third.turn, EngineError("out of memory"))
    assert all_three.outcome == "1 of 3 answered, 1 stopped, 1 failed"
    chats.close()


def test_the_chat_goes_on_with_what_is_kept(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    both = begun(chats, ONE, THREE)
    for each in both.due():
        each.turn.answer.text = each.candidate.name
        both.ended(each.turn, None)
        each.turn.conversation.save(each.turn)
    both.keep(both.contenders[0])
    talk = both.conversation
    assert [each.answer.text for each in talk.turns] == [QWEN] and talk.turns[0].answers.label == "‹1/2›"
    assert (talk.model, talk.settings) == (QWEN, ONE.settings)
    saved = chats.get(talk.id or 0)
    assert (saved.model, [each.text for each in chats.branch(saved.id)]) == (QWEN, ["why", QWEN])
    chats.close()


def new_app(chats: Path | None = None) -> ScriptedApp:
    return ScriptedApp(*MODELS, model=SMOL.id, chats=chats)


async def compared(pilot: Pilot[None], app: ScriptedApp, *keys: str, question: str = "why", at_once: int = 2) -> None:
    """Ask two models. keys: pressed before enter; at_once: how many are asked at first."""
    await ready(pilot)
    before = len(app.engine.generations)
    prompt(pilot).put(question)
    await pilot.press("f8")
    await until(pilot, lambda: isinstance(app.screen, ComparePicker) and "[2]" in screen_text(pilot))
    await pilot.press(*keys, "enter")
    await until(
        pilot, lambda: isinstance(app.screen, CompareScreen) and len(app.engine.generations) == before + at_once
    )


async def test_two_answers_side_by_side_one_of_which_is_kept(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=(120, 36)) as pilot:
        await compared(pilot, app, question="why [/x] \x1b]52;c;evil\x07")
        one, two = app.engine.generations[-2:]
        assert (one.request.model, two.request.model) == (SMOL.id, "llama3.1:8b")
        one.say("The **first**")
        one.finish(tokens=12)
        two.put(Loading())
        await until(pilot, lambda: "12 tok" in screen_text(pilot) and "loading llama3.1:8b" in screen_text(pilot))
        two.say("The second [/x] \x1b[2J")
        await until(pilot, lambda: "The second [/x]" in screen_text(pilot))
        await pilot.press("2")
        two.finish(tokens=40)
        await until(pilot, lambda: "answers from here on" in screen_text(pilot))
        assert "‹2/2›" in screen_text(pilot) and prompt(pilot).text == ""
        await ask(pilot, "more")
        request = app.engine.last.request
        assert request.model == "llama3.1:8b"
        (sent,) = request.prompts
        assert isinstance(sent, ChatPrompt) and [each.role for each in sent.messages] == ["user", "assistant", "user"]
        assert sent.messages[1].content.startswith("The second")


async def test_a_draft_that_begins_with_the_command_is_compared_without_it() -> None:
    app = new_app()
    async with app.run_test(size=(90, 36)) as pilot:
        await compared(pilot, app, question="/compare why")
        assert app.screen.query_one("#question", Static).content == "why"
        assert len({each.region.y for each in app.screen.query(ContenderView)}) == 2, "one below the other"
        await pilot.press("escape", "escape")
        await until(pilot, lambda: not isinstance(app.screen, CompareScreen))
        prompt(pilot).put("/compare ")
        await pilot.press("ctrl+n", "f8")
        await until(pilot, lambda: prompt(pilot).text == "/compare ")
        assert not isinstance(app.screen, ComparePicker)


async def test_an_answer_that_fits_begins_at_the_top_also_in_a_terminal_that_has_grown() -> None:
    app = new_app()
    async with app.run_test(size=(60, 20)) as pilot:
        await compared(pilot, app)
        one, two = app.engine.generations[-2:]
        one.say("\n\n".join(f"Line {at} of many." for at in range(9)))
        two.say("Short.")
        await until(pilot, lambda: "Line 8" in screen_text(pilot) and "Line 0" not in screen_text(pilot))
        assert "Short." in screen_text(pilot).splitlines()[12]
        await pilot.resize_terminal(60, 60)
        await until(pilot, lambda: "Line 0" in screen_text(pilot).splitlines()[4])
        one.say("\n\nAnd more.")
        await until(pilot, lambda: "And more." in screen_text(pilot))
        assert "Line 0" in screen_text(pilot).splitlines()[4]
        await pilot.resize_terminal(60, 20)
        await until(pilot, lambda: "And more." in screen_text(pilot))
        one.finish(tokens=30)
        await until(pilot, lambda: "Line 0" in screen_text(pilot).splitlines()[4] and "30 tok" in screen_text(pilot))


async def test_a_blind_comparison_names_nobody_before_the_choice() -> None:
    app = new_app()
    async with app.run_test(size=(90, 36)) as pilot:
        await compared(pilot, app, "up", "up", "tab")
        one, two = app.engine.generations[-2:]
        one.put(Loading())
        two.fail(LoadFailed(f"{two.request.model} is damaged."))  # beside another model: it is tried once more
        await until(pilot, lambda: "loading the model" in screen_text(pilot) and "◌ waiting" in screen_text(pilot))
        one.say("A")
        one.finish()
        await until(pilot, lambda: len(app.engine.generations) == 3)
        app.engine.last.fail(LoadFailed(f"{two.request.model} is damaged."))
        await until(pilot, lambda: "the reason is shown with the names" in screen_text(pilot))
        names = (SMOL.id, "llama3.1:8b")
        assert not any(each in screen_text(pilot) for each in names)
        await pilot.press("2")
        await until(pilot, lambda: "This one has no answer to keep." in [each.message for each in app._notifications])
        await pilot.press("1")
        await until(pilot, lambda: "★ kept" in screen_text(pilot))
        assert all(each in screen_text(pilot) for each in names) and "damaged" in screen_text(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "answers from here on" in screen_text(pilot))


async def test_stop_ends_all_and_nothing_is_lost(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=(120, 36)) as pilot:
        await ask(pilot, "first")
        app.engine.last.say("one")
        app.engine.last.finish()
        await until(pilot, lambda: shown(pilot) == "one" and "TTFT" in note(pilot))
        await write(pilot, "/compare")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ComparePicker))
        await pilot.press("down", "down", "tab", "enter")
        await until(pilot, lambda: len(app.engine.generations) == 4)
        for at, each in enumerate(app.engine.generations[1:]):
            each.say(f"other {at}")
        await until(pilot, lambda: "other 2" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: screen_text(pilot).count("■ stopped") == 3)
        await until(pilot, lambda: "■ compared, 0 of 3 answered, 3 stopped" in screen_text(pilot))
        assert all(each.cancelled for each in app.engine.generations[1:])
        await pilot.press("escape")
        await until(pilot, lambda: "‹2/4›" in screen_text(pilot) and "Nothing was kept" in screen_text(pilot))
        (chat,) = app.chats.recent()
        assert len(app.chats.tree(chat.id).versions(app.chats.branch(chat.id)[-1].id)) == 4


@pytest.mark.parametrize("stop", ["escape", "ctrl+c"])
@pytest.mark.parametrize("downloading", [True, False])
async def test_stopping_and_quitting_mean_the_answers_and_a_download_goes_on(stop: str, downloading: bool) -> None:
    app = new_app()
    async with app.run_test(size=(120, 36)) as pilot:
        await compared(pilot, app)
        transfer = Transfer("acme/tiny", "acme/tiny", "running", "download", 1, 2)
        app.downloads._transfers += [transfer] if downloading else []
        await pilot.press("ctrl+q")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await until(pilot, lambda: "2 answers are being written" in screen_text(pilot))
        assert ("A download is running" in screen_text(pilot)) is downloading
        await pilot.press("ctrl+c")  # closes the question alone
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        assert not any(each.cancelled for each in app.engine.generations)
        await pilot.press(stop)
        await until(pilot, lambda: "■ compared, 0 of 2 answered, 2 stopped" in screen_text(pilot))
        assert all(each.cancelled for each in app.engine.generations) and transfer.state == "running"
        await pilot.press("ctrl+q")
        if downloading:
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen) and "acme/tiny" in screen_text(pilot))
            assert "answers are being written" not in screen_text(pilot)
            await pilot.press("y")
    assert app.return_code == 0


@pytest.mark.parametrize("kept", [1, 2])
async def test_what_was_kept_is_shown_also_if_the_program_ends_before_it_is_complete(tmp_path: Path, kept: int) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=(120, 36)) as pilot:
        await compared(pilot, app)
        for at, each in enumerate(app.engine.generations, 1):
            each.say(f"answer {at}")
        await until(pilot, lambda: "answer 1" in screen_text(pilot) and "answer 2" in screen_text(pilot))
        await pilot.press(str(kept))
        await until(pilot, lambda: "★ kept" in screen_text(pilot))
        assert app.engine.generations[kept - 1].request.model == app.chats.recent()[0].model, "not lost by a kill"
    chats = Chats(tmp_path / "chats.db")
    (chat,) = chats.recent()
    assert chats.branch(chat.id)[-1].text == f"answer {kept}"
    chats.close()


async def test_a_comparison_that_the_program_ended_shows_its_first_answer(tmp_path: Path) -> None:
    app = new_app(tmp_path / "chats.db")
    async with app.run_test(size=(120, 36)) as pilot:
        await compared(pilot, app, "up", "tab", at_once=1)  # one after the other
        app.engine.last.say("the only one")
        await until(pilot, lambda: "the only one" in screen_text(pilot))
    chats = Chats(tmp_path / "chats.db")
    assert [each.text for each in chats.branch(chats.recent()[0].id)] == ["why", "the only one"]
    chats.close()
