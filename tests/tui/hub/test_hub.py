"""Finding and downloading models, through the keys: the Hub is one on this machine, the pull and the store are real."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest
from textual.message_pump import MessagePump
from textual.pilot import Pilot
from textual.widgets import Input

from squish.config import model_defaults
from squish.config.settings import Settings
from squish.errors import HubUnreachable
from squish.hub import search
from squish.hub.search import Found
from squish.memory import fit
from squish.models import unfinished
from squish.models.store import Store
from squish.names import LocalPath, local_path
from squish.pull.events import Progress
from squish.runtime import Runtime
from squish.tui.app import SquishApp
from squish.tui.download_words import how_far, one_line
from squish.tui.downloads import Transfer
from squish.tui.hub import filters, local_model
from squish.tui.hub.filters import Filters
from squish.tui.hub.model_search import ModelSearch
from squish.tui.messages import DownloadModel
from squish.tui.screens.chat import ChatScreen
from squish.tui.screens.hub import HubScreen
from squish.tui.screens.library import LibraryScreen
from squish.tui.widgets.hub_row import nothing_found
from squish.tui.widgets.model_card import ModelCard
from squish.tui.widgets.status import StatusStrip
from squish.tui.widgets.table import Table
from squish.tui.widgets.transfer_list import TransferList
from squish.tui.windows.confirm import ConfirmScreen
from tests.conftest import share_compiled
from tests.local_hub import Fault, LocalHub, tiny_model
from tests.tui.scenes import first_run, ready, screen_text, until, write
from tests.tui.scripted import MODELS, SMOL, FrozenMachine, ScriptedApp

REPO = "acme/tiny-llama-4bit"
MIB = 2**20
WEIGHTS = 4 * MIB


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        files = tiny_model(WEIGHTS)
        config = json.loads(files["config.json"]) | {"quantization": {"bits": 4, "group_size": 64}}
        running.add_repo(REPO, files | {"config.json": json.dumps(config).encode()})
        yield running


@pytest.fixture
def settings(hub: LocalHub, tmp_path: Path) -> Settings:
    share_compiled(tmp_path / "cache")
    return Settings(home=tmp_path, cache_dir=tmp_path / "models", hub_endpoint=hub.url)


def new_app(settings: Settings) -> SquishApp:
    app = SquishApp(Runtime(settings), machine=FrozenMachine())
    app.animation_level = "none"
    return app


async def find(pilot: Pilot[None], text: str) -> None:
    """Search, and mark the first row with exactly this name."""
    await until(pilot, lambda: isinstance(pilot.app.screen, HubScreen) and bool(pilot.app.screen.query(Table)))
    await pilot.press("slash")
    await write(pilot, text.replace("/", " "))
    await until(pilot, lambda: text in listed(pilot))
    await pilot.press("enter")
    await until(pilot, lambda: table(pilot).marked == text)


def table(pilot: Pilot[None]) -> Table:
    return pilot.app.screen.query_one(Table)


def listed(pilot: Pilot[None]) -> list[str]:
    return table(pilot).keys


async def test_a_model_is_found_downloaded_and_opens_the_chat(hub: LocalHub, settings: Settings) -> None:
    app = new_app(settings)
    async with app.run_test() as pilot:
        await until(pilot, lambda: "Welcome" in screen_text(pilot))
        await find(pilot, REPO)
        await pilot.press("enter")
        await until(pilot, lambda: Store(settings.cache_dir).list() != [])
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and REPO in screen_text(pilot))


async def test_a_model_on_this_machine_is_named_by_its_path_and_the_hub_does_not_hear_of_it(
    hub: LocalHub, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / "my models" / "Tiny").mkdir(parents=True)
    for name, content in tiny_model(WEIGHTS).items():
        (folder / name).write_bytes(content)
    app = new_app(settings)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "Welcome" in screen_text(pilot))
        await pilot.press("slash")
        app.screen.query_one(Input).value = "./my models"
        await until(
            pilot, lambda: "./my models is neither a GGUF file nor a directory with safetensors." in screen_text(pilot)
        )
        app.screen.query_one(Input).value = "./my models/Tiny"
        await until(pilot, lambda: listed(pilot) == ["./my models/Tiny"] and "on this machine" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "⏎ import" in screen_text(pilot) and "i card" not in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and "tiny" in screen_text(pilot))
        assert [each.id for each in Store(settings.cache_dir).list()] == ["tiny"]
        await pilot.press("f3")
        await until(pilot, lambda: "✓ ./my models/Tiny" in screen_text(pilot) and "⏎ chat" in screen_text(pilot))
        assert "✓ installed" in screen_text(pilot) and "import" not in screen_text(pilot)
        await pilot.press("enter")
        # It is chosen again, and cannot be loaded again, which may be known before it is looked for here.
        said = "tiny has no chat template"
        await until(
            pilot,
            lambda: (
                isinstance(app.screen, ChatScreen)
                and (app.screen._chats.shown.model == "tiny" or screen_text(pilot).count(said) == 2)
            ),
        )
        assert not [each.path for each in hub.requests if "iny" in each.path or "my" in each.path]


async def test_what_a_path_names_is_looked_at_and_never_a_fault(tmp_path: Path) -> None:
    (tmp_path / "sha256-abc").write_bytes(b"GGUF and more")
    (tmp_path / "notes.txt").write_bytes(b"text")
    (tmp_path / "whole.GGUF").write_bytes(b"GGUF")
    found = {path: [(each.kind, each.size) for each in local_model.at(LocalPath(Path(path)))] for path in (
        f"{tmp_path}/sha256-abc", f"{tmp_path}/whole.GGUF", f"{tmp_path}/notes.txt", f"{tmp_path}", f"{tmp_path}/none",
        "~nobody-here/x.gguf", "/dev/null", "./" + "x" * 5000,
    )}  # fmt: skip
    assert [each for each in found.values() if each] == [[("gguf", 13)], [("gguf", 4)], [("safetensors", 4)]]
    assert local_path("org/repo") is None and local_path("a b c") is None


def test_a_file_that_has_changed_since_its_import_is_offered_again(tmp_path: Path) -> None:
    first, second = tmp_path / "big-00001-of-00002.gguf", tmp_path / "big-00002-of-00002.gguf"
    first.write_bytes(b"GGUF")
    second.write_bytes(b"GGUF")
    imported = replace(SMOL, id="big", source=f"file:{first}", installed_at=datetime.now(UTC))
    for part in (first, second):  # whichever is named, it is the same model
        assert local_model.installed_as(LocalPath(part), [SMOL, imported]) == "big"
    assert local_model.installed_as(LocalPath(tmp_path), [imported]) == ""
    assert local_model.installed_as(LocalPath(Path("~nobody-here/x.gguf")), [imported]) == ""
    later = imported.installed_at.timestamp() + 10
    os.utime(first, (later, later))
    assert local_model.installed_as(LocalPath(first), [imported]) == ""


async def test_the_row_of_keys_says_what_enter_does(settings: Settings) -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, HubScreen) and SMOL.id in listed(pilot))

        async def mark(name: str, said: str) -> None:
            table(pilot).move_cursor(row=listed(pilot).index(name))
            await until(pilot, lambda: table(pilot).marked == name and said in screen_text(pilot).splitlines()[-1])

        await mark(SMOL.id, "⏎ chat")
        assert "download" not in screen_text(pilot).splitlines()[-1]
        await mark("smollm2:1.7b", "⏎ download")
        app.downloads._transfers.append(paused := Transfer("smollm2:1.7b", "smollm2:1.7b", "paused", "download", 1, 2))
        await until(pilot, lambda: "⏎ resume" in screen_text(pilot))
        paused.state = "running"
        await until(pilot, lambda: "⏎" not in screen_text(pilot).splitlines()[-1])
        await mark(SMOL.id, "⏎ chat")
        await pilot.press("i")
        await until(pilot, lambda: "enter chat · " in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen))


async def test_the_catalog_is_there_without_a_connection_and_the_screen_says_so(settings: Settings) -> None:
    app = new_app(replace(settings, offline=True))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "offline: only the catalog" in screen_text(pilot))
        assert "smollm2:135m" in screen_text(pilot)


async def test_an_answer_that_comes_too_late_is_dropped(
    hub: LocalHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def everywhere(wanted: search.SearchQuery, settings: Settings) -> list[Found]:
        return [Found(f"acme/{wanted.query or 'all'}", "acme/x", "acme", "mlx", 10**9, 4.5, 10**9, 0, None)]

    monkeypatch.setattr(search, "everywhere", everywhere)
    app = new_app(settings)
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(app.screen.query(Table)) and "acme/all" in listed(pilot))
        await pilot.press("slash")
        await write(pilot, "phi")
        await until(pilot, lambda: "acme/phi" in listed(pilot))
        assert "acme/all" not in listed(pilot)


async def test_a_list_that_stays_as_it_is_makes_no_rows(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    app = new_app(replace(settings, offline=True))
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.screen, HubScreen) and "only the catalog" in screen_text(pilot))
        screen = app.screen
        assert isinstance(screen, HubScreen)
        read = Mock(side_effect=app.runtime.store.list)
        monkeypatch.setattr(app.runtime.store, "list", read)
        screen._show()
        assert read.call_count == 1, "what is installed is read once for a picture"
        made = screen._rows.made
        assert made <= len(screen._search.everything()), "each of them once"
        screen._show()
        assert screen._rows.made == made
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: screen._rows.made > made)


async def test_what_the_hub_said_of_other_words_is_not_shown_while_it_searches(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else enter would download something else than what was typed."""
    asked: list[str] = []

    async def everywhere(wanted: search.SearchQuery, settings: Settings) -> list[Found]:
        asked.append(wanted.query)
        if wanted.query not in ("", "acme"):
            await asyncio.Event().wait()
        return [Found(f"acme/{each}", "acme/x", "acme", "mlx", 10**9, 4.5, 10**9, 0, None) for each in ("one", "two")]

    monkeypatch.setattr(search, "everywhere", everywhere)
    monkeypatch.setattr("squish.tui.hub.model_search.DEBOUNCE", 0)
    app = new_app(settings)
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(app.screen.query(Table)) and "acme/one" in listed(pilot))
        await pilot.press("slash", *"acme")
        await until(pilot, lambda: listed(pilot) == ["acme/one", "acme/two"])
        await write(pilot, "/two")
        await until(pilot, lambda: listed(pilot) == ["acme/two"] and asked[-1] == "acme/two")
        await write(pilot, "-GGUF")
        await until(pilot, lambda: listed(pilot) == ["acme/two-GGUF"])
        await write(pilot, " x")
        await until(pilot, lambda: "Nothing in the catalog; searching the Hub …" in screen_text(pilot))
        assert "No model matches" not in screen_text(pilot)


async def test_the_download_of_one_file_is_shown_at_its_repository(settings: Settings) -> None:
    app = new_app(replace(settings, offline=True))
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(app.screen.query(Table)))
        running = Transfer("acme/two:Q8_0", "acme/two:Q8_0", "running", "download", 10, 40, speed=1.0, eta=30.0)
        app.downloads._transfers.append(running)
        await pilot.press("slash")
        await write(pilot, "acme/two")
        await until(pilot, lambda: "⇣ Q8_0 downloading 25 %" in screen_text(pilot))
        assert "⇣ acme/two" in screen_text(pilot)


def told_everywhere(app: SquishApp) -> list[str]:
    """The percents of a download in the strip, at the model in the list, and in the drawer over that."""
    below, drawer = app.screen_stack[0], app.screen.query_one(TransferList)
    shown = (below.query_one(StatusStrip).render(), below.query_one(ModelCard).visual, drawer.options[0].prompt)
    return [each for text in shown for each in re.findall(r"\d+ %", str(text))]


async def test_the_same_figures_are_shown_wherever_a_download_is(settings: Settings) -> None:
    app = new_app(replace(settings, offline=True))
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: bool(app.screen.query(Table)))
        running = Transfer("acme/two", "acme/two", "running")
        running.apply(Progress("verify", 16, 100))
        app.downloads._transfers.append(running)
        await pilot.press("slash")
        await write(pilot, "acme/two")
        await until(pilot, lambda: "⇣ verifying 16 %" in screen_text(pilot))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: bool(app.screen.query(TransferList)) and told_everywhere(app) == ["16 %"] * 3)
        running.apply(Progress("verify", 50, 100))  # between two looks, whatever is drawn meanwhile
        app.screen.query_one(TransferList).refill()
        app.screen_stack[0]._show()  # type: ignore[attr-defined]
        assert told_everywhere(app) == ["16 %"] * 3
        app._show_background_work()
        assert told_everywhere(app) == ["50 %"] * 3, "also below the window"


async def test_a_model_that_is_installed_once_more_does_not_begin_with_all_of_it(
    hub: LocalHub, settings: Settings
) -> None:
    app = new_app(replace(settings, offline=True))
    async with app.run_test():
        again = Transfer(REPO, REPO, "done", "verify", 98, 98)
        app.downloads._transfers.append(again)
        app.downloads.start(REPO)
        assert (again.state, again.phase, how_far(again)) == ("waiting", "resolve", "")


async def test_what_to_do_about_a_failed_download_is_said_with_it(hub: LocalHub, settings: Settings) -> None:
    hub.add_repo("acme/gated", tiny_model(), gated=True)
    app = new_app(settings)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: bool(app.screen.query(Table)))
        app.post_message(DownloadModel("acme/gated"))
        await until(pilot, lambda: any(each.title == "Not installed" for each in app._notifications))
        (said,) = (each.message for each in app._notifications if each.title == "Not installed")
        assert "Accept the license at" in said or said.endswith("ctrl+t says what to do.")


async def test_not_every_letter_asks_the_hub(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def everywhere(wanted: search.SearchQuery, settings: Settings) -> list[Found]:
        asked.append(wanted.query)
        return []

    monkeypatch.setattr(search, "everywhere", everywhere)
    monkeypatch.setattr("squish.tui.hub.model_search.DEBOUNCE", 0)
    searching = ModelSearch(Runtime(settings), MessagePump())
    asking = []
    for written in ("", "p", "ph", "phi"):
        searching.begin(written)
        asking.append(asyncio.create_task(searching.ask_hub()))
        await asyncio.sleep(0)  # it begins to wait for more; what comes now is more
    await asyncio.gather(*asking)
    assert asked == ["", "phi"]


async def test_a_search_is_given_up_for_the_next_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up: list[str] = []

    async def everywhere(wanted: search.SearchQuery, settings: Settings) -> list[Found]:
        if wanted.query:
            return [Found("acme/phi", "acme/x", "acme", "mlx", 10**9, 4.5, 10**9, 0, None)]
        try:
            await asyncio.Event().wait()  # a Hub that does not answer
        finally:
            given_up.append(wanted.query)
        raise AssertionError("it was waited for")

    monkeypatch.setattr(search, "everywhere", everywhere)
    app = new_app(settings)
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(app.screen.query(Table)))
        await pilot.press("slash")
        await write(pilot, "phi")
        await until(pilot, lambda: "acme/phi" in listed(pilot))
        assert given_up == [""]


async def test_filters_narrow_and_the_context_decides_what_fits(settings: Settings) -> None:
    app = new_app(replace(settings, offline=True))
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: bool(app.screen.query(Table)) and len(listed(pilot)) > 5)
        assert "qwen3:32b" not in listed(pilot), "a first run shows what fits"
        await pilot.press("f", "f")
        await until(pilot, lambda: "qwen3:32b" in listed(pilot))
        await pilot.press("slash")
        await write(pilot, "qwen3:32b")
        await pilot.press("enter")
        await until(pilot, lambda: "It does not fit: it needs" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, ConfirmScreen))
        assert app.downloads.transfers == ()
        before = screen_text(pilot)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "16.4k tokens" in screen_text(pilot))
        assert screen_text(pilot) != before


class PlainMachine(FrozenMachine):
    """One without a GPU, on which the bits of a KV cache can be chosen."""

    def for_models(self) -> fit.Machine:
        return fit.Machine("RAM", 16_000_000_000, 11_200_000_000, float32=True)


async def test_the_card_counts_the_cache_with_the_bits_that_are_set_meanwhile(settings: Settings) -> None:
    app = SquishApp(Runtime(replace(settings, offline=True, kv_bits="32")), machine=PlainMachine())
    app.animation_level = "none"

    def cache() -> float:
        (line,) = [each for each in screen_text(pilot).splitlines() if "weights" in each and "cache" in each]
        number, unit = line.partition("cache ")[2].split()[:2]
        return float(number) * {"MB": 1, "GB": 1000}[unit]

    async with app.run_test(size=(120, 36)) as pilot:
        await find(pilot, "qwen3:0.6b")
        await until(pilot, lambda: "cache" in screen_text(pilot))
        full = cache()
        await pilot.press("f2")
        model_defaults.remember(settings.home, "qwen3:0.6b", {"kv_bits": 16})
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, HubScreen) and cache() < full)
        assert cache() == pytest.approx(full / 2, rel=0.1)


async def test_what_a_repository_writes_is_only_text(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = Found("acme/[/red]\x1b]52;c;aGk=\x07x", "acme/x", "acme", "mlx", 10**9, 4.5, 10**9, 0, None, updated="[/b]")

    async def everywhere(wanted: search.SearchQuery, settings: Settings) -> list[Found]:
        return [evil]

    monkeypatch.setattr(search, "everywhere", everywhere)
    app = new_app(settings)
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(app.screen.query(Table)) and len(listed(pilot)) > 5)
        await pilot.press("slash")
        await write(pilot, "zzz")
        await until(pilot, lambda: listed(pilot) == [evil.name])
        assert "acme/[/red]x" in screen_text(pilot)
        assert "updated [/b]" in screen_text(pilot)
        assert "\x1b" not in screen_text(pilot)


async def test_help_begins_with_the_keys_of_the_screen(settings: Settings) -> None:
    app = new_app(replace(settings, offline=True))
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.screen, HubScreen))
        await pilot.press("f1")
        await until(pilot, lambda: "Show models of one precision" in screen_text(pilot))


async def test_a_download_is_paused_taken_up_and_cancelled(hub: LocalHub, settings: Settings) -> None:
    hub.fault("model.safetensors", Fault(hold_after=2 * MIB + 1000))
    app = new_app(settings)
    async with app.run_test() as pilot:
        await find(pilot, REPO)
        await pilot.press("enter")
        await until(pilot, lambda: any(each.done >= MIB for each in app.downloads.transfers))
        await until(pilot, lambda: "⇣1" in screen_text(pilot))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "downloading" in screen_text(pilot))
        await pilot.press("p")
        await until(pilot, lambda: "paused" in screen_text(pilot))
        assert unfinished.find(Store(settings.cache_dir))[0].bytes >= MIB
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: app.downloads.transfers == ())
        assert unfinished.find(Store(settings.cache_dir)) == ()


async def test_a_download_survives_a_restart_of_the_program(hub: LocalHub, settings: Settings) -> None:
    hub.fault("model.safetensors", Fault(hold_after=2 * MIB + 1000))
    app = new_app(settings)
    async with app.run_test() as pilot:
        await find(pilot, REPO)
        await pilot.press("enter")
        await until(pilot, lambda: any(each.done >= MIB for each in app.downloads.transfers))
    sent = hub.sent("model.safetensors")
    again = new_app(settings)
    async with again.run_test() as pilot:
        await until(pilot, lambda: "⇣1 paused" in screen_text(pilot))
        await until(pilot, lambda: f"The download of {REPO} is paused. ctrl+t r resumes it." in screen_text(pilot))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "so far" in screen_text(pilot))
        await pilot.press("r")
        await until(pilot, lambda: Store(settings.cache_dir).list() != [])
        assert hub.sent("model.safetensors") < sent + WEIGHTS, "it went on where it was"
        await until(pilot, lambda: again.downloads.transfers[0].state == "done")
        await until(pilot, lambda: again.current_mode == "chat" and bool(again.screen.query(".notice")))


async def test_a_paused_download_is_taken_up_on_the_models_screen_without_a_model(
    hub: LocalHub, settings: Settings
) -> None:
    hub.fault("model.safetensors", Fault(hold_after=MIB))
    app = new_app(settings)
    async with app.run_test(size=(80, 24)) as pilot:
        await find(pilot, REPO)
        await pilot.press("enter")
        await until(pilot, lambda: any(each.done for each in app.downloads.transfers))
        await pilot.press("f4")
        await until(pilot, lambda: "p pause" in screen_text(pilot))
        await pilot.press("p")
        await until(pilot, lambda: "r resume" in screen_text(pilot))
        hub.release()
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen))


async def test_a_failed_download_says_why_and_is_tried_again(hub: LocalHub, settings: Settings) -> None:
    hub.fault("model.safetensors", Fault(status=404))
    app = new_app(settings)
    async with app.run_test(notifications=True) as pilot:
        await find(pilot, REPO)
        await pilot.press("enter")
        await until(pilot, lambda: "answered 404" in screen_text(pilot))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "✕" in screen_text(pilot) and "failed" in screen_text(pilot))
        await pilot.press("r")
        await until(pilot, lambda: Store(settings.cache_dir).list() != [])
        # The first model ends in a chat, which is not left while it opens.
        await until(pilot, lambda: app.current_mode == "chat" and bool(app.screen.query(".notice")))


async def test_the_list_of_downloads_has_room_for_what_comes_into_it() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    moving = Transfer("qwen3:8b", "qwen3:8b", "running", "download", 2_900_000_000, 4_610_000_000)
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "No downloads." in screen_text(pilot))
        app.downloads._transfers.append(moving)
        await until(pilot, lambda: "2.9 GB of 4.6 GB" in screen_text(pilot))
        moving.state, moving.error = "failed", HubUnreachable("It broke off. " * 8, hint="Check the network.")
        await until(pilot, lambda: "✕ qwen3:8b" in screen_text(pilot) and "Check the network." in screen_text(pilot))


async def test_a_model_is_loaded_pinned_and_deleted() -> None:
    app = ScriptedApp(*MODELS)
    removed: list[str] = []
    app.shelf.remove = lambda name: removed.append(name) or 4_520_000_000  # type: ignore[method-assign,func-returns-value,assignment,misc]
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, LibraryScreen) and table(pilot).row_count == 4)
        await pilot.press("down", "down", "l")
        await until(pilot, lambda: "in memory" in screen_text(pilot))
        assert "qwen3:8b" in app.engine.loads
        await pilot.press("p")
        await until(pilot, lambda: app.engine.pinned == {"qwen3:8b"} and "pinned" in screen_text(pilot))
        await pilot.press("l")
        await until(pilot, lambda: "qwen3:8b" not in app.engine.states)
        await pilot.press("delete")
        await until(pilot, lambda: "This frees 4.6 GB" in screen_text(pilot))
        await pilot.press("n", "delete", "y")
        await until(pilot, lambda: removed == ["qwen3:8b"] and "4.5 GB freed" in screen_text(pilot))


def found(name: str, parameters: int, bits: float, downloads: int | None = None) -> Found:
    return Found(name, name, "a", "mlx", parameters, bits, int(parameters * bits / 8), 0, None, downloads=downloads)


def test_the_hub_adds_to_what_is_known_here() -> None:
    known = [found("a/one", 10**9, 4.5)]
    hub = [found("a/two", 10**9, 4.5, 7), found("a/one", 10**9, 4.5, 5)]
    merged = search.merged(known, hub)
    assert [(each.name, each.downloads) for each in merged] == [("a/one", 5), ("a/two", 7)]


def test_filters_and_orders() -> None:
    machine = FrozenMachine().for_models()
    all_ = [found("big", 70 * 10**9, 4.5, 9), found("mid", 8 * 10**9, 8.5, 5), found("small", 10**9, 4.5, 1)]

    def names(choice: Filters) -> list[str]:
        return [each.name for each in filters.chosen(all_, choice, machine)]

    assert names(Filters()) == ["big", "mid", "small"]
    assert names(Filters(fit=1)) == ["mid", "small"]
    assert names(Filters(order=1)) == ["small", "mid", "big"]
    assert names(Filters(parameters=1)) == ["small"]
    assert names(Filters(bits=3)) == ["mid"]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Filters(fit=1), "Loosen “fits” (f), which hides 1, or shorten the search."),
        (Filters(parameters=1), "Loosen “size ≤2B” (p), which hides 1, or shorten the search."),
        (Filters(fit=1, bits=2), "Loosen “fits” (f) and “bits 5–6” (b), which together hide 1, or shorten the search."),
    ],
)
def test_the_filter_that_hides_everything_is_named(choice: Filters, said: str) -> None:
    keys = {"hub.fit": "f", "hub.parameters": "p", "hub.bits": "b"}
    machine, all_ = FrozenMachine().for_models(), [found("big", 70 * 10**9, 4.5)]
    assert filters.chosen(all_, choice, machine) == []
    shown = nothing_found(filters.hiding(all_, choice, machine), 1, keys.__getitem__)
    assert shown == f"No model matches. {said}"


async def test_a_search_without_a_match_says_whether_words_or_a_filter_are_the_reason() -> None:
    app = ScriptedApp()
    async with app.run_test() as pilot:
        await first_run(pilot)
        await pilot.press("slash", *"zzz")
        await until(pilot, lambda: "No model matches. Shorten the search" in screen_text(pilot))
        await pilot.press("enter", "escape", "slash", *"135m", "enter", "p", "p")
        await until(pilot, lambda: "“size 2–9B” (p), which hides" in screen_text(pilot))


@pytest.mark.parametrize(
    ("query", "names"), [("acme/x", ["acme/x"]), ("acme/x:Q8_0", ["acme/x:Q8_0"]), ("acme x", []), ("a/known", [])]
)
def test_a_repository_named_in_full_can_always_be_pulled(query: str, names: list[str]) -> None:
    assert [each.name for each in search.exact(query, [found("a/known", 10**9, 4.5)])] == names


async def test_the_first_model_that_is_offered_is_one_to_chat_with() -> None:
    app = ScriptedApp()
    async with app.run_test() as pilot:
        await first_run(pilot)
        found = app.screen._found  # type: ignore[attr-defined]
        assert found and not any(each.kind == "embedding" for each in found.values())
        await pilot.press("slash", *"minilm")
        await until(pilot, lambda: "all-minilm:22m" in screen_text(pilot))


def test_a_wait_without_a_known_end_shows_its_seconds() -> None:
    unmeasured = Transfer("smol", "smol", "running", "import", 0, 98, in_phase=12.3)
    assert (how_far(unmeasured), str(one_line([unmeasured]))) == ("12 s", "⇣1 importing 12 s"), "not 0 % all the while"
    complete = Transfer("smol", "smol", "running", "import", 98, 98, in_phase=12.3)
    assert (how_far(complete), str(one_line([complete]))) == ("100 % · 12 s", "⇣1 importing 100 % 12 s")
    measured = Transfer("smol", "smol", "running", "download", 49, 98, speed=7.0, eta=7.0, in_phase=12.3)
    assert (how_far(measured), str(one_line([measured]))) == ("50 %", "⇣1 50 % 7 B/s 7 s left")
