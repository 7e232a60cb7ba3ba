"""The parameters of a chat through the keys: what is asked with, and a panel that can be used on a small screen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static, TextArea

from squish.chats.chats import Chats
from squish.chats.defaults import SCREEN
from squish.chats.messages import ChatSettings
from squish.config import model_defaults
from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.generation import ChatPrompt
from squish.sessions.backend import Offers
from squish.tui import preferences
from squish.tui.chat.conversation import Conversation
from squish.tui.chat.parameters import PARAMETERS, Parameter, with_value
from squish.tui.messages import ModelLoaded
from squish.tui.windows.form import FormScreen
from squish.tui.windows.named_picker import NamedPicker
from tests.tui.scenes import ask, note, prompt, ready, screen_text, shown, until, write
from tests.tui.scripted import MODELS, SMOL, ScriptedApp


async def test_penalties_and_a_format_are_asked_with() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o", "escape")
        for command in ("/set repeat 1.2", "/set pres 0.5", "/set freq -0.5", "/set format json"):
            prompt(pilot).put(command)
            await pilot.press("enter")
            await until(pilot, lambda: prompt(pilot).text == "")
        await until(pilot, lambda: "• format" in screen_text(pilot))
        changes = [str(each.render()) for each in app.screen.query(".notice")]
        assert len(changes) == 1 and changes[0].endswith("response_format json"), "the last of several counts"
        await ask(pilot, "q")
        sampling = app.engine.last.request.sampling
        assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1.2, 0.5, -0.5)
        assert sampling.response_format is not None and sampling.response_format.kind == "json_object"


async def test_a_context_limit_and_kv_bits_are_asked_with_and_the_meter_counts_to_the_limit() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    app.engine.counts = True
    async with app.run_test(size=(120, 36), notifications=True) as pilot:
        await ready(pilot)
        for command in ("/set ctx 50", "/set kv 8"):
            prompt(pilot).put(command)
            await pilot.press("enter")
            await until(pilot, lambda: prompt(pilot).text == "")
        prompt(pilot).put("x" * 80)
        await until(pilot, lambda: "0/50 +20" in screen_text(pilot))
        prompt(pilot).put("x" * 400)
        await until(pilot, lambda: "too long to send" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "Not sent: it has 100 tokens" in screen_text(pilot))
        assert not app.engine.generations
        assert "new chat (" not in screen_text(pilot), "which would have no room for it either"
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "• ctx    50" in screen_text(pilot))
        app.screen.query_one("#field-context", Input).value = "5000"
        await until(pilot, lambda: "0/5.0k +100" in screen_text(pilot))
        await pilot.press("escape", "enter")
        await until(pilot, lambda: len(app.engine.generations) == 1)
        assert (app.engine.last.request.sampling.context, app.engine.last.request.kv_bits) == (5000, 8)


async def test_what_cannot_be_chosen_is_said_in_the_panel_and_by_its_command() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    app._runtime.offers = Offers(no_kv_bits="not on a GPU", no_context="set on the server")  # type: ignore[misc]
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "not on a GPU" in screen_text(pilot))
        assert "set on the server" in screen_text(pilot)
        assert app.screen.query_one("#field-kv_bits", Input).disabled
        assert app.screen.query_one("#field-context", Input).disabled
        await pilot.press("escape")
        for line, said in (
            ("/set kv 8", "kv_bits cannot be set here: not on a GPU."),
            ("/set context 512", "context cannot be set here: set on the server."),
        ):
            prompt(pilot).put(line)
            await pilot.press("enter")
            await until(pilot, lambda said=said: any(said in each.message for each in app._notifications))  # type: ignore[misc]
        assert app.screen._chats.shown.settings == ChatSettings()  # type: ignore[attr-defined]
        prompt(pilot).put("/set kv_bits")
        await pilot.press("enter")
        await until(pilot, lambda: "All parameters are at their defaults" in screen_text(pilot))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("regex:(a", "response_format: not a pattern: missing ), unterminated subpattern at position 0. Write another"),
        ("regex:a)", "response_format: not a pattern: unbalanced parenthesis at position 1."),
        ("regex:[a", "response_format: not a pattern: unterminated character set at position 0."),
        ("regex:^(?!x)", "response_format: patterns have no look-around, such as (?!."),
        ("{", "response_format is not a JSON schema:"),
        ('{"$ref": "#"}', "response_format has a $ref that leads back to itself"),
        ("schema.json", "response_format must be text, json, a JSON schema or regex:…."),
    ],
)
async def test_a_format_that_is_none_is_said_when_it_is_set(value: str, said: str) -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        prompt(pilot).put(f"/set format {value}")
        await pilot.press("enter")
        await until(pilot, lambda: any(said in each.message for each in app._notifications))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: bool(app.screen.query("#field-response_format")))
        app.screen.query_one("#field-response_format", Input).value = value
        await until(pilot, lambda: "✕ format" in screen_text(pilot))
        assert app.screen._chats.shown.settings == ChatSettings()  # type: ignore[attr-defined]


@pytest.mark.parametrize("pattern", [r"\p{Lu}+", "a**", "[[:alpha:]]", r"\(?!", "(?<year>[0-9]{4})"])
def test_a_pattern_that_only_python_refuses_is_left_to_the_engine(pattern: str) -> None:
    assert with_value(ChatSettings(), "format", f"regex:{pattern}").response_format == f"regex:{pattern}"


@pytest.mark.parametrize("how", ["command", "panel", "loaded"])
async def test_the_loaded_model_is_asked_about_a_format_when_it_is_set(how: str, tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    chat = chats.create(SMOL.id, ChatSettings(response_format="regex:^*" if how == "loaded" else ""))
    chats.finish(chats.ask(chat, None, "one", SMOL.id)[1], "1")
    app = ScriptedApp(*MODELS, model=SMOL.id, chats=tmp_path / "chats.db")
    app.engine.unholdable = "The pattern cannot be used: no."
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("up")
        await until(pilot, lambda: "one" in screen_text(pilot))
        if how == "command":
            prompt(pilot).put("/set format regex:^*")
            await pilot.press("enter")
        elif how == "panel":
            await pilot.press("ctrl+o")
            await until(pilot, lambda: bool(app.screen.query("#field-response_format")))
            app.screen.query_one("#field-response_format", Input).value = "regex:^*"
        else:
            app.screen.post_message(ModelLoaded(SMOL.id, None))
        said = "response_format: The pattern cannot be used: no. /set format with another one, or alone to reset it."
        await until(pilot, lambda: any(said in each.message for each in app._notifications))
        assert not app.engine.generations


async def test_what_is_not_taken_here_is_left_out_of_a_chat_that_has_it_and_said(tmp_path: Path) -> None:
    """It was set on this machine, say, and the chat goes on at a server."""
    chats = Chats(tmp_path / "chats.db")
    chat = chats.create(SMOL.id, ChatSettings(kv_bits=8, context=50, top_k=3))
    chats.finish(chats.ask(chat, None, "one", SMOL.id)[1], "1")
    app = ScriptedApp(*MODELS, model=SMOL.id, chats=tmp_path / "chats.db")
    app._runtime.offers = Offers(no_kv_bits="set on the server", no_context="set on the server")  # type: ignore[misc]
    app.engine.counts = True
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("up")
        await until(pilot, lambda: "/8.2k" in screen_text(pilot))
        await ask(pilot, "two")
        request = app.engine.last.request
        assert (request.kv_bits, request.sampling.context, request.sampling.top_k) == (None, None, 3)
        app.engine.last.finish()
        await until(pilot, lambda: "⚠ kv_bits 8 is left out: set on the server. /set kv_bits resets it." in note(pilot))
        assert "⚠ context 50 is left out: set on the server. /set context resets it." in note(pilot)
        for name in ("kv_bits", "context"):
            prompt(pilot).put(f"/set {name}")
            await pilot.press("enter")
            await until(pilot, lambda: prompt(pilot).text == "")
        await ask(pilot, "three")
        app.engine.last.finish()
        await until(pilot, lambda: "empty answer" in note(pilot) and "left out" not in note(pilot))


async def test_the_panel_says_what_its_key_does_from_here_and_from_the_prompt() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "ctrl+o closes" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "ctrl+o edits" in screen_text(pilot))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "ctrl+o closes" in screen_text(pilot))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "ctrl+o" not in screen_text(pilot))


async def test_a_preset_is_chosen_in_the_panel() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    app.chats.keep_preset("translate", ChatSettings(system="To {{to}}"))
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o", "shift+tab", "enter", *"greedy", "enter")
        await until(pilot, lambda: "preset greedy" in screen_text(pilot) and "• temp   0.0" in screen_text(pilot))
        await pilot.press("tab", *"25")
        await until(pilot, lambda: "preset custom" in screen_text(pilot))
        await pilot.click("#preset")
        await pilot.press(*"translate", "enter")
        await until(pilot, lambda: isinstance(app.screen, FormScreen))
        await pilot.press(*"Dutch", "enter")
        await until(pilot, lambda: app.screen.query_one("#field-system", TextArea).text == "To Dutch")
        await pilot.press("escape")
        await ask(pilot, "hello")
        assert app.engine.last.request.sampling.temperature == 0.7


@pytest.mark.parametrize("how", ["panel", "command", "save"])
async def test_of_presets_that_are_alike_the_one_that_was_used_is_named_and_kept(how: str, tmp_path: Path) -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id, chats=tmp_path / "chats.db")
    app.chats.keep_preset("first", ChatSettings(0.3))
    if how != "save":
        app.chats.keep_preset("second", ChatSettings(0.3))
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        if how == "panel":
            await pilot.press("ctrl+o", "shift+tab", "enter", *"second", "enter")
        else:
            for line in ("/preset second",) if how == "command" else ("/set temperature 0.3", "/preset save second"):
                prompt(pilot).put(line)
                await pilot.press("enter")
            await pilot.press("ctrl+o")
        await until(pilot, lambda: "preset second" in screen_text(pilot))
        await pilot.press("f9")
        kept = partial(model_defaults.remembered, app.runtime.settings.home)
        await until(pilot, lambda: SMOL.id in kept() and kept()[SMOL.id].values == {"preset": "second"})
        await pilot.press("escape")
        prompt(pilot).put("/preset first")
        await pilot.press("enter")
        await until(pilot, lambda: "preset first" in screen_text(pilot))
        await pilot.press("ctrl+n")
        await until(pilot, lambda: "preset second" in screen_text(pilot))
        await ask(pilot, "hi")

    again = ScriptedApp(*MODELS, model=SMOL.id, chats=app.chats.path)
    async with again.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("up", "ctrl+o")
        await until(pilot, lambda: "preset second" in screen_text(pilot))


async def test_preset_alone_lets_the_user_choose_and_a_name_that_none_has_is_an_error() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test() as pilot:
        await ready(pilot)
        prompt(pilot).put("/preset")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NamedPicker) and "creative" in screen_text(pilot))
        await pilot.press(*"greedy", "enter")
        await until(pilot, lambda: "Preset greedy applied" in screen_text(pilot))
        prompt(pilot).put("/preset nobody")
        await pilot.press("enter")
        await until(pilot, lambda: any("No preset is named nobody." in each.message for each in app._notifications))
        await ask(pilot, "q")
        assert app.engine.last.request.sampling.temperature == 0


async def test_a_preset_asks_for_all_that_its_variables_need_at_once() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    app.chats.keep_preset("translate", ChatSettings(system="From {{from}} to {{to}}, {{tone|kindly}}, for {{model}}"))
    async with app.run_test() as pilot:
        await ready(pilot)
        prompt(pilot).put("/preset translate from=English")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, FormScreen))
        assert [str(each.placeholder) for each in app.screen.query(Input)] == ["", "kindly"]
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "✕ to" in screen_text(pilot))
        await write(pilot, "Low German")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "Preset translate applied" in screen_text(pilot))
        await ask(pilot, "q")
        (sent,) = app.engine.last.request.prompts
        assert isinstance(sent, ChatPrompt)
        assert sent.messages[0].content == f"From English to Low German, kindly, for {SMOL.id}"


async def test_a_template_becomes_a_draft_that_can_be_read_before_it_is_sent() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)

    async def command(line: str) -> None:
        prompt(pilot).put(line)
        await pilot.press("enter")

    async with app.run_test() as pilot:
        await ready(pilot)
        await command("/template save translate To {{language|English}} from {{source}}: {{input}}")
        await until(pilot, lambda: app.chats.prompts() != {})
        await command("/template translate goede morgen")
        await until(pilot, lambda: isinstance(app.screen, FormScreen))
        await until(pilot, lambda: "enter next · ↑↓ move · esc cancel" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "enter done · ↑↓ move · esc cancel" in screen_text(pilot))
        await write(pilot, "Dutch")
        await pilot.press("enter")
        await until(pilot, lambda: prompt(pilot).text == "To English from Dutch: goede morgen")
        assert app.engine.generations == [], "nothing is sent by itself"

        await command("/template")
        await until(pilot, lambda: "Prompt templates" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, FormScreen) and "input" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: bool(app.screen.query("#prompt")))
        await command("/template save sums /set {{x|a}}")
        await until(pilot, lambda: "sums" in app.chats.prompts())
        await command("/template sums")
        await until(pilot, lambda: isinstance(app.screen, FormScreen))
        await until(pilot, lambda: "enter done · esc cancel" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: prompt(pilot).text == " /set a")
        await command("/template rm sums")
        await until(pilot, lambda: list(app.chats.prompts()) == ["translate"])


def about(pilot: Pilot[None]) -> str:
    return str(pilot.app.screen.query_one("#about", Static).render())


async def test_parameters_are_kept_for_a_model_and_said_where_they_come_from(tmp_path: Path) -> None:
    file = model_defaults.read_all({SMOL.id: {"top_k": 9}}, "config.toml")
    settings = Settings(home=tmp_path, cache_dir=tmp_path, models=tuple(file.items()))
    app = ScriptedApp(*MODELS, model=SMOL.id, settings=settings)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "◦ top_k" in screen_text(pilot) and "• " not in screen_text(pilot))
        await write(pilot, "0.2")
        await until(pilot, lambda: "• temp" in screen_text(pilot) and "set in this chat" in screen_text(pilot))
        await pilot.press("f9")
        await until(pilot, lambda: "◦ temp" in screen_text(pilot) and SCREEN in about(pilot))
        await until(pilot, lambda: "takes precedence: it sets top_k" in " ".join(screen_text(pilot).split()))
        await pilot.press("tab", "tab")
        await until(pilot, lambda: "top_k: 0 (off) or more\nconfig.toml" in about(pilot))
        await pilot.press("backspace", "4", "escape", "ctrl+n")
        await ask(pilot, "q")
        sampling = app.engine.last.request.sampling
        assert (sampling.temperature, sampling.top_k) == (0.2, 9), "a new chat begins with what is set for its model"
        app.engine.last.finish()
        prompt(pilot).put("/defaults rm")
        await pilot.press("enter")
        await until(pilot, lambda: model_defaults.remembered(tmp_path) == {})


async def test_defaults_that_cannot_be_used_are_said_once(tmp_path: Path) -> None:
    file = model_defaults.read_all({SMOL.id: {"preset": "gone"}}, "config.toml")
    settings = Settings(home=tmp_path, cache_dir=tmp_path, models=tuple(file.items()))
    app = ScriptedApp(*MODELS, model=SMOL.id, settings=settings)
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        said = [each.message for each in app._notifications if "gone" in each.message]
        assert len(said) == 1 and "no preset is named gone" in said[0]
        await ask(pilot, "q")
        assert app.engine.last.request.sampling == ChatSettings().sampling()


async def test_project_files_are_offered_and_go_along_with_one_chat_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "AGENTS.md").write_text("Tabs, not spaces. \x1b]52;c;evil\x07" + "x" * 4000)
    (tmp_path / "CLAUDE.md").symlink_to("/etc/passwd")
    monkeypatch.chdir(tmp_path)
    settings = Settings(home=tmp_path, cache_dir=tmp_path, keys=(("chat.project", "f9"), ("chat.model", "f6")))
    app = ScriptedApp(*MODELS, model=SMOL.id, settings=settings)
    preferences.apply(app, settings)

    async def system(pilot: Pilot[None]) -> list[str]:
        await ask(pilot, "q")
        (sent,) = app.engine.last.request.prompts
        assert isinstance(sent, ChatPrompt)
        app.engine.last.finish(tokens=1)
        await until(pilot, lambda: "TTFT" in note(pilot))
        return [each.content for each in sent.messages if each.role == "system"]

    async with app.run_test() as pilot:
        await until(pilot, lambda: "F9  send AGENTS.md, about 1.0k tokens with this chat" in screen_text(pilot))
        assert "F6  choose a model" in " ".join(screen_text(pilot).split(" ")), "the key that the user set"
        assert await system(pilot) == []
        await pilot.press("f9")
        await until(pilot, lambda: "in the system prompt of this chat" in screen_text(pilot))
        (text,) = await system(pilot)
        assert "Tabs, not spaces" in text and "evil" not in text and "root:" not in text
        await pilot.press("ctrl+n")
        await until(pilot, lambda: shown(pilot) == "")
        assert await system(pilot) == []


def test_a_value_that_cannot_be_used_is_refused_with_what_may_stand_there() -> None:
    for name, text, must_be in (
        ("repeat", "0", "above 0"),
        ("pres", "x", "-2 to 2"),
        ("format", "xml", "text, json, a"),
        ("context", "1", "between 2"),
        ("kv", "4", "32, 16 or 8"),
    ):
        with pytest.raises(InvalidInput, match=must_be):
            with_value(ChatSettings(), name, text)


def test_an_answer_that_has_begun_is_not_held_to_a_format(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    talk = Conversation(chats, SMOL.id, float, settings=ChatSettings(response_format="json"))
    turn = talk.ask("q")
    assert talk.request(turn).sampling.response_format is not None
    turn.answer.text = '{"a"'
    with pytest.raises(InvalidInput, match="has begun already"):
        talk.request(turn)
    chats.close()


async def shows(pilot: Pilot[None], parameter: Parameter) -> None:
    """The focus is in its field, and what it may be is in sight."""
    field, about = f"field-{parameter.name}", f"{parameter.name}: {parameter.about}"
    await until(pilot, lambda: pilot.app.focused is not None and pilot.app.focused.id == field)
    await until(pilot, lambda: about in screen_text(pilot))


async def test_every_parameter_can_be_reached_on_a_small_screen_with_its_explanation() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(60, 20)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        for each in PARAMETERS:
            await shows(pilot, each)
            assert app.focused is not None
            visible = app.screen.query_one("#params").content_region.intersection(app.focused.region)
            assert visible.height >= 1, each.name
            if each.name == "response_format":
                await write(pilot, "regex")
                await until(pilot, lambda: "✕ format" in screen_text(pilot))
                assert "must be text, json, a JSON schema" in screen_text(pilot)
            await pilot.press("tab")


def test_a_name_that_is_nearly_a_parameter_is_suggested() -> None:
    for written, hint in (("temprature", "Did you mean temperature?"), ("top-k", "Did you mean top_k?")):
        with pytest.raises(InvalidInput) as caught:
            with_value(ChatSettings(), written, "1")
        assert (caught.value.message, caught.value.hint) == (f"{written} is not a parameter.", hint)
    with pytest.raises(InvalidInput) as caught:
        with_value(ChatSettings(), "xyz", "1")
    assert "temperature, top_p" in str(caught.value.hint)
