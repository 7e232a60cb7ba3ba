"""The chat as a user meets it: keys in, text on the screen out. The engine is scripted, everything else is real."""

from __future__ import annotations

import pytest
from textual.widgets import Input, OptionList
from textual.widgets._toast import Toast

from squish.errors import ContextLengthExceeded, LoadFailed, QueueFull
from squish.generation import ChatPrompt, Message, Preparing
from squish.memory.reservations import Shortage
from squish.tui import actions
from squish.tui.messages import UseModel
from squish.tui.screens.chat import ChatScreen
from squish.tui.screens.compare import CompareScreen
from squish.tui.screens.hub import HubScreen
from squish.tui.screens.library import LibraryScreen
from squish.tui.screens.server import ServerScreen
from squish.tui.widgets.chat.params import ParamsPanel
from squish.tui.widgets.chat.prompt import PromptInput
from squish.tui.widgets.chat.transcript import LIVE_ANSWERS, Transcript
from squish.tui.widgets.markdown.live import LiveMarkdown
from squish.tui.widgets.status import StatusStrip
from squish.tui.widgets.transfer_list import TransferList
from squish.tui.windows.help import HelpScreen
from squish.tui.windows.model_picker import ModelPicker
from tests.tui.scenes import answer, ask, empty_chat, note, prompt, ready, screen_text, shown, until, write
from tests.tui.scripted import MODELS, SMOL, ScriptedApp, ScriptedGeneration

NOTHING_ASKED = "No question has been asked in this chat yet."


def new_app() -> ScriptedApp:
    return ScriptedApp(*MODELS, model=SMOL.id)


def asked(generation: ScriptedGeneration) -> tuple[Message, ...]:
    (only,) = generation.request.prompts
    assert isinstance(only, ChatPrompt)
    return only.messages


async def test_an_answer_streams_and_ends_with_its_figures() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "hello")
        app.engine.last.say("Hi ", "there")
        await until(pilot, lambda: shown(pilot) == "Hi there")
        assert "esc stops" in note(pilot)
        app.engine.last.finish(tokens=212)
        await until(pilot, lambda: note(pilot) == "212 tok · 48.0 tok/s · TTFT 0.31 s")


async def test_nothing_stands_between_the_name_and_the_note_before_the_first_word() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "hello")
        app.engine.last.prefill(620, 1000)
        await until(pilot, lambda: "62 %" in note(pilot) and "◐ prefill ▰" in screen_text(pilot))
        lines = screen_text(pilot).splitlines()
        at = next(at for at, line in enumerate(lines) if "◐ prefill ▰" in line)
        assert lines[at - 1].split() == [SMOL.id]
        app.engine.last.say("Hi")
        await until(pilot, lambda: "Hi" in screen_text(pilot))


async def test_every_question_carries_the_chat_so_far() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        await answer(pilot, "first")
        prompt(pilot).put("/system Be brief")
        await pilot.press("enter")
        await ask(pilot, "two")
        assert asked(app.engine.last) == (
            Message("system", "Be brief"),
            Message("user", "one"),
            Message("assistant", "first"),
            Message("user", "two"),
        )


async def test_escape_stops_and_what_was_written_stays() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        app.engine.last.say("half an ans")
        await until(pilot, lambda: bool(shown(pilot)))
        await pilot.press("escape")
        await until(pilot, lambda: note(pilot).startswith("■ stopped"))
        assert app.engine.last.cancelled
        assert shown(pilot) == "half an ans"
        await ask(pilot, "go on")
        assert asked(app.engine.last)[1] == Message("assistant", "half an ans")


@pytest.mark.parametrize("phase", ["waiting", "prefill"])
async def test_escape_stops_before_the_first_word(phase: str) -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        if phase == "prefill":
            app.engine.last.prefill(10, 1000)
            await until(pilot, lambda: "1 %" in note(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "before the first word" in note(pilot))
        await pilot.press("up")
        await until(pilot, lambda: prompt(pilot).text == "one")
        await pilot.press("enter")
        await until(pilot, lambda: len(app.engine.generations) == 2)
        assert asked(app.engine.last) == (Message("user", "one"),), "a turn without an answer is not told to the model"


async def test_a_second_escape_leaves_an_engine_that_does_not_react() -> None:
    app = new_app()
    app.engine.deaf = True
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        app.engine.last.say("half")
        await until(pilot, lambda: bool(shown(pilot)))
        await pilot.press("escape")
        await until(pilot, lambda: "stopping" in note(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "stopped" in note(pilot))
        assert app.engine.last.left
        assert shown(pilot) == "half"


async def test_a_message_sent_meanwhile_waits_for_its_turn() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        await write(pilot, "two")
        await pilot.press("enter")
        await until(pilot, lambda: "two" in screen_text(pilot))
        assert len(app.engine.generations) == 1
        app.engine.last.say("first")
        app.engine.last.finish()
        await until(pilot, lambda: len(app.engine.generations) == 2)
        assert asked(app.engine.last)[-1] == Message("user", "two")


async def test_a_stop_brings_the_waiting_message_back() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        await write(pilot, "two")
        await pilot.press("enter", "escape")
        await until(pilot, lambda: prompt(pilot).text == "two")
        assert len(app.engine.generations) == 1


async def test_an_error_is_shown_in_its_place_and_the_chat_goes_on() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "long")
        app.engine.last.fail(ContextLengthExceeded("The chat has 9000 tokens [/foo].", hint="Begin a new chat."))
        await until(pilot, lambda: "9000 tokens [/foo]" in note(pilot) and "Begin a new chat" in note(pilot))
        app.engine.refuse = QueueFull("64 requests wait already.")
        await write(pilot, "again")
        await pilot.press("enter")
        await until(pilot, lambda: "64 requests" in note(pilot))
        app.engine.refuse = None
        await ask(pilot, "short")
        await answer(pilot, "fine")
        assert shown(pilot) == "fine"


async def test_what_happens_before_prefill_is_told_with_its_seconds() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        app.engine.last.put(Preparing())
        await until(pilot, lambda: note(pilot) == "◐ …")
        app.seconds.now += 5
        await until(pilot, lambda: note(pilot) == "◐ tokenizing … 5 s")
        app.engine.last.put(Preparing(grammar=True))
        await until(pilot, lambda: note(pilot) == "◐ compiling the grammar … 5 s")
        await answer(pilot, "fine")


async def test_where_memory_is_short_the_first_question_asks() -> None:
    app = new_app()
    app.engine.short = Shortage(SMOL.id, 5_200_000_000, 3_100_000_000)
    async with app.run_test() as pilot:
        await ready(pilot)
        assert app.engine.loads == [], "nothing is loaded ahead of it"
        for answered in ("n", "y"):
            await write(pilot, "one")
            await pilot.press("enter")
            await until(pilot, lambda: "needs 5.2 GB, and 3.1 GB are free" in screen_text(pilot))
            asked_at = app.seconds.now
            app.seconds.now += 60  # the user thinks about it
            await until(pilot, lambda: "waiting for you" in screen_text(pilot))
            await pilot.press(answered)
            if answered == "n":
                await until(pilot, lambda: "is not loaded: it needs 5.2 GB and 3.1 GB are free" in note(pilot))
                assert not app.engine.generations
        await until(pilot, lambda: len(app.engine.generations) == 1)
        (turn,) = [each for each in app.screen._shown.turns if each.answer.running]  # type: ignore[attr-defined]
        assert turn.answer.in_phase == 0 and app.seconds.now == asked_at + 60
        await answer(pilot, "fine")


async def test_a_fault_of_ours_is_one_sentence() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        app.engine.generate = lambda request, follower=None: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        await ready(pilot)
        await write(pilot, "one")
        await pilot.press("enter")
        await until(pilot, lambda: "ZeroDivisionError" in note(pilot))
        assert "Traceback" not in screen_text(pilot)


async def test_a_model_that_cannot_be_loaded_says_why_once() -> None:
    app = new_app()
    app.engine.load_error = LoadFailed("smollm2:135m does not fit into memory.", hint="Close something.")
    async with app.run_test() as pilot:
        await until(pilot, lambda: "does not fit" in screen_text(pilot))
        assert screen_text(pilot).count("does not fit") == 1


@pytest.mark.parametrize(
    "text",
    [
        "[/foo] [bold]x[/] [@click=app.quit]y[/]",
        "\x1b]52;c;aGk=\x07\x1b[2Jclear",
        "<div>seen</div>",
        "```\n[/x]\n```",
        "| a",
    ],
)
async def test_text_of_a_model_is_only_text(text: str) -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "[/foo] [red]")
        for character in text:
            app.engine.last.say(character)
        await answer(pilot)
        assert "\x1b" not in shown(pilot)
        assert "[/foo] [red]" in screen_text(pilot)
        if text.startswith("<"):
            assert "<div>seen</div>" in screen_text(pilot)


async def test_only_the_latest_answers_are_live() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        for turn in range(LIVE_ANSWERS + 3):
            await ask(pilot, f"q{turn}")
            await answer(pilot, f"# answer {turn}\n\n- [/foo]\n\n```py\nx = 1\n```\n")
        assert len(app.screen.query(LiveMarkdown)) == LIVE_ANSWERS
        assert len(app.screen.query(".frozen")) == 3
        app.screen.query_one(Transcript).scroll_home(animate=False)
        await until(pilot, lambda: "answer 0" in screen_text(pilot))
        assert "[/foo]" in screen_text(pilot)


async def test_what_streams_is_not_drawn_while_the_user_reads_further_up() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "long")
        app.engine.last.say("line\n\n" * 60)
        await until(pilot, lambda: shown(pilot).endswith("line\n\n"))
        await pilot.press("pageup")
        await until(pilot, lambda: "more below" in screen_text(pilot))
        app.engine.last.say("THE END")
        await until(pilot, lambda: app.screen.query_one(Transcript).max_scroll_y > 0)
        assert "THE END" not in shown(pilot)
        await pilot.press("ctrl+end")
        await until(pilot, lambda: "THE END" in screen_text(pilot))


async def test_scrolling_down_at_the_end_keeps_following() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "long")
        app.engine.last.say("line\n\n" * 60)
        await until(pilot, lambda: shown(pilot).endswith("line\n\n"))
        await pilot.press("pagedown")
        await pilot.pause()
        app.engine.last.say("THE END")
        await until(pilot, lambda: "THE END" in screen_text(pilot))


async def test_many_tokens_make_few_flushes() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "list")
        await answer(pilot, *["- item\n"] * 400)
        live = app.screen.query_one(LiveMarkdown)
        assert live.source.count("item") == 400
        assert live.flushes <= 40


async def test_nothing_installed_says_what_to_do_and_notices_a_pull() -> None:
    app = ScriptedApp()
    async with app.run_test() as pilot:
        await empty_chat(pilot)
        await until(pilot, lambda: "squish pull smollm2:135m" in screen_text(pilot))
        await write(pilot, "hello")
        await pilot.press("enter")
        await until(pilot, lambda: prompt(pilot).text == "hello")
        app.shelf.models.append(SMOL)
        await until(pilot, lambda: app.engine.loads == [SMOL.id])


async def test_a_wanted_model_that_is_missing_is_named() -> None:
    app = ScriptedApp(*MODELS, model="nothing:1b")
    async with app.run_test() as pilot:
        await until(pilot, lambda: "nothing:1b is not installed." in screen_text(pilot))
        assert "squish pull nothing:1b" in screen_text(pilot)


async def test_the_picker_narrows_and_takes() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("ctrl+l")
        await until(
            pilot, lambda: isinstance(app.screen, ModelPicker) and app.screen.query_one(OptionList).option_count == 5
        )
        await write(pilot, "QWEN")
        await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 3)
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen))
        await ask(pilot, "hello")
        assert app.engine.last.request.model == "qwen3:8b"


async def test_the_strip_names_the_model_that_answers_and_no_speed_of_another_one() -> None:
    app = new_app()
    async with app.run_test(size=(120, 36)) as pilot:
        await ask(pilot, "hello")
        app.engine.last.say("Hi ")
        strip = app.screen.query_one(StatusStrip)
        await until(pilot, lambda: strip.facts.state == "writing")
        app.screen.post_message(UseModel("qwen3:8b"))
        await until(pilot, lambda: "next qwen3:8b" in strip.render().plain)
        assert (strip.facts.model, strip.facts.state) == (SMOL.id, "writing")
        app.engine.last.finish(tokens=212)
        await until(pilot, lambda: strip.facts.model == "qwen3:8b")
        assert "tok/s" not in strip.render().plain and "next" not in strip.render().plain
        app.screen.post_message(UseModel(SMOL.id))
        await until(pilot, lambda: strip.facts.model == SMOL.id and strip.facts.speed > 0)


async def test_the_picker_closes_without_a_change() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: bool(app.screen.query(Input)))
        await write(pilot, "zzz")
        await until(pilot, lambda: "No installed model" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen))
        assert app.engine.loads == [SMOL.id]


@pytest.mark.parametrize("command", ["/again", "/continue", "/edit"])
async def test_what_needs_a_question_says_that_there_is_none(command: str) -> None:
    app = new_app()
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        prompt(pilot).put(command)
        await pilot.press("enter")
        await until(pilot, lambda: [each.message for each in app._notifications] == [NOTHING_ASKED])


async def test_an_answer_that_is_complete_is_retried_by_a_command_that_can_be_typed() -> None:
    app = new_app()
    async with app.run_test(notifications=True) as pilot:
        await ask(pilot, "one")
        await answer(pilot, "first")
        prompt(pilot).put("/continue")
        await pilot.press("enter")
        await until(pilot, lambda: any("/again retries it" in each.message for each in app._notifications))


async def test_slash_commands() -> None:
    app = new_app()
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        prompt(pilot).put("/model qwen3:8b")
        await pilot.press("enter")
        await until(pilot, lambda: app.engine.loads == [SMOL.id, "qwen3:8b"])
        prompt(pilot).put("/nonsense")
        await pilot.press("enter")
        await until(pilot, lambda: "/nonsense is not a command" in screen_text(pilot))
        [toast] = app.screen.query(Toast)
        assert not toast.region.overlaps(prompt(pilot).region)  # what is being written stays in sight
        await until(pilot, lambda: prompt(pilot).text == "/nonsense")
        prompt(pilot).put("")
        await write(pilot, "/he")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("escape")
        await ask(pilot, "/etc/hosts is a file")
        await answer(pilot, "So it is.")
        await write(pilot, "/quit")
        await pilot.press("enter")
        await until(pilot, lambda: not app.is_running or app._exit)


async def test_the_palette_runs_our_actions() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        await answer(pilot, "first")
        await pilot.press("ctrl+p")
        await until(pilot, lambda: "Choose model" in screen_text(pilot))
        await write(pilot, "new chat")
        await until(
            pilot, lambda: "Begin a new chat" in screen_text(pilot) and "another version" not in screen_text(pilot)
        )
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and "first" not in screen_text(pilot))


async def test_a_new_chat_forgets_and_the_old_answer_goes_on() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        app.engine.last.say("first")
        await until(pilot, lambda: bool(shown(pilot)))
        old = app.engine.last
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not shown(pilot))
        await ask(pilot, "two")
        await until(pilot, lambda: app.engine.last is not old)
        assert asked(app.engine.last) == (Message("user", "two"),)
        assert not old.left


async def test_copying_takes_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_TTY", "/dev/pts/0")
    app = new_app()
    async with app.run_test() as pilot:
        await ask(pilot, "one")
        await answer(pilot, "first **bold**")
        await pilot.press("alt+up", "y")
        await until(pilot, lambda: app.clipboard == "first **bold**")


async def test_writing_several_lines_and_walking_through_what_was_sent() -> None:
    app = new_app()
    async with app.run_test() as pilot:
        await ready(pilot)
        await write(pilot, "one\ntwo")
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.engine.generations))
        assert asked(app.engine.last) == (Message("user", "one\ntwo"),)
        await answer(pilot, "ok")
        await write(pilot, "draft")
        await pilot.press("up")
        await until(pilot, lambda: prompt(pilot).text == "one\ntwo")
        await pilot.press("down")
        await until(pilot, lambda: prompt(pilot).text == "draft")


def test_every_key_of_ours_has_an_id_and_no_key_is_given_twice() -> None:
    for cls in (ScriptedApp, ChatScreen, ModelPicker, HelpScreen, Transcript, PromptInput):
        keys: list[str] = []
        for binding in cls.__dict__.get("BINDINGS", []):
            assert binding.id, f"{cls.__name__}: {binding.key}"
            keys += binding.key.split(",")
        assert len(keys) == len(set(keys))


def test_every_action_exists() -> None:
    owners: dict[actions.Scope, type | tuple[type, ...]] = {
        "app": ScriptedApp,
        "chat": ChatScreen,
        "transcript": (Transcript, ChatScreen),
        "prompt": (PromptInput, ChatScreen),
        "hub": HubScreen,
        "library": LibraryScreen,
        "downloads": TransferList,
        "server": ServerScreen,
        "chats": ChatScreen,
        "params": (ParamsPanel, ChatScreen),
        "compare": CompareScreen,
    }
    for action in actions.ACTIONS:
        method = action.method.removeprefix("screen.").partition("(")[0]
        owner = owners[action.scope]
        assert any(hasattr(each, f"action_{method}") for each in (owner if isinstance(owner, tuple) else (owner,)))
