"""The whole card of a model: what its makers write is only text, and one of several files is chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from squish.config.settings import Settings
from squish.errors import GatedRepo
from squish.hub.client import Hub, HubFile, Snapshot
from squish.hub.search import Found
from squish.tui.hub import gguf_variants, readme
from squish.tui.messages import CardRead
from squish.tui.screens.hub import HubScreen
from squish.tui.windows.download_drawer import DownloadDrawer
from squish.tui.windows.model_card import ModelCardScreen
from tests.local_hub import Fault, LocalHub
from tests.tui.hub.test_hub import find, new_app, table
from tests.tui.scenes import screen_text, until, write
from tests.tui.scripted import FrozenMachine

REPO = "acme/tiny-GGUF"
README = b"""---
license: mit
---
# Tiny [/red] model
<div align="center"><img src="x.png"></div><!-- hidden words -->
It writes \x1b]52;c;aGk=\x07**short** texts.

```html
<b>kept</b>
```
"""


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        repo = running.add_repo(
            REPO, {"README.md": README, "tiny-Q4_K_M.gguf": b"4" * 5000, "tiny-Q8_0.gguf": b"8" * 9000}
        )
        repo.tags, repo.listed = ("gguf",), {"gguf": {"total": 8000, "architecture": "llama"}}
        yield running


@pytest.fixture
def settings(hub: LocalHub, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, cache_dir=tmp_path / "models", hub_endpoint=hub.url)


async def opened(pilot: Pilot[None], key: str) -> None:
    await find(pilot, REPO)
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, ModelCardScreen))


async def test_the_card_is_read_and_its_text_is_only_text(settings: Settings) -> None:
    app = new_app(settings)
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, "i")
        await until(pilot, lambda: "Tiny [/red] model" in screen_text(pilot))
        shown = screen_text(pilot)
        assert "It writes short texts." in shown and "<b>kept</b>" in shown
        assert not any(hidden in shown for hidden in ("\x1b", "aGk=", "license: mit", "<div", "hidden words"))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HubScreen))
        assert app.downloads.transfers == ()


async def test_one_of_several_files_is_chosen(hub: LocalHub, settings: Settings) -> None:
    hub.fault("tiny-Q4_K_M.gguf", Fault(hold_after=100))
    app = new_app(settings)
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, "enter")
        await until(pilot, lambda: "Q8_0" in screen_text(pilot) and "5.0 bits" in screen_text(pilot))
        assert app.screen.query_one(OptionList).highlighted == 1, "the best that fits"
        await pilot.press("up", "enter")
        await until(pilot, lambda: [each.name for each in app.downloads.transfers] == [f"{REPO}:Q4_K_M"])


async def test_of_a_repository_that_is_only_named_a_file_is_chosen_too(hub: LocalHub, settings: Settings) -> None:
    hub.repos[REPO].tags = ()
    hub.fault("tiny-Q8_0.gguf", Fault(hold_after=100))
    app = new_app(settings)
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HubScreen))
        await pilot.press("slash")
        await write(pilot, REPO)
        await until(pilot, lambda: table(pilot).marked == REPO)
        await pilot.press("enter", "enter")
        await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 2)
        await pilot.press("enter")
        await until(pilot, lambda: [each.name for each in app.downloads.transfers] == [f"{REPO}:Q8_0"])


async def test_a_download_with_nothing_to_choose_begins_below_the_list_of_downloads(settings: Settings) -> None:
    app = new_app(replace(settings, offline=True))
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.screen, HubScreen))
        await pilot.press("slash")
        await write(pilot, "acme/plain")
        await until(pilot, lambda: table(pilot).marked == "acme/plain")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "✕" in screen_text(pilot))
        card = app.screen
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, DownloadDrawer))
        card.post_message(CardRead("", (), None))  # an answer that comes late
        await until(pilot, lambda: [each.name for each in app.downloads.transfers] == ["acme/plain"])
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HubScreen))


async def test_where_safetensors_are_nothing_is_chosen(hub: LocalHub, settings: Settings) -> None:
    files = {"model.safetensors": b"x" * 200_000, "config.json": b"{}"}
    hub.add_repo("acme/plain", files | {"a-Q8_0.gguf": b"8", "a-Q4_0.gguf": b"4"}).tags = ()
    app = new_app(settings)
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.screen, HubScreen))
        await pilot.press("slash")
        await write(pilot, "acme/plain")
        await until(pilot, lambda: table(pilot).marked == "acme/plain")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: [each.name for each in app.downloads.transfers] == ["acme/plain"])


async def test_the_only_file_needs_no_choice(hub: LocalHub, settings: Settings) -> None:
    hub.fault("tiny-Q8_0.gguf", Fault(hold_after=100))
    del hub.repos[REPO].files["tiny-Q4_K_M.gguf"]
    app = new_app(settings)
    async with app.run_test() as pilot:
        await find(pilot, REPO)
        await pilot.press("enter")
        await until(pilot, lambda: [each.name for each in app.downloads.transfers] == [f"{REPO}:Q8_0"])


async def test_a_card_that_cannot_be_read_says_why(hub: LocalHub, settings: Settings) -> None:
    app = new_app(settings)
    async with app.run_test() as pilot:
        await find(pilot, REPO)
        hub.repos[REPO].gated = True
        await pilot.press("i")
        await until(pilot, lambda: "license is" in screen_text(pilot))
        await pilot.press("escape")
        hub.repos[REPO].gated = False
        del hub.repos[REPO].files["README.md"]
        await pilot.press("i")
        await until(pilot, lambda: "No model card" in screen_text(pilot))


def test_a_card_is_fetched_only_so_far(hub: LocalHub, settings: Settings) -> None:
    hub.repos[REPO].files["README.md"] = b"x" * 90_000
    assert len(asyncio.run(Hub(settings).card(REPO))) == 65_536
    hub.repos[REPO].gated = True
    with pytest.raises(GatedRepo):
        asyncio.run(Hub(settings).card(REPO))


def snapshot(**sizes: int) -> Snapshot:
    files = (HubFile(path.replace("__", "-") + ".gguf", "", size, None, None) for path, size in sizes.items())
    return Snapshot(REPO, "c", None, tuple(files))


def test_files_that_a_name_means_are_offered() -> None:
    machine = replace(FrozenMachine().for_models(), total=10**10, free=10**10)
    here = Found(REPO, REPO, "acme", "gguf", 8 * 10**9, None, 0, 0, None)
    files = snapshot(m__Q8_0=9 * 10**9, m__Q4_K_M=5 * 10**9, m__Q2_K=3 * 10**9, m__F16__00001__of__00002=8 * 10**9)
    offered = gguf_variants.of(here, files, 8192, machine)
    assert [(each.name, each.bits) for each in offered] == [
        (f"{REPO}:Q2_K", 3.0), (f"{REPO}:Q4_K_M", 5.0), (f"{REPO}:Q8_0", 9.0),
    ]  # fmt: skip
    assert gguf_variants.best(offered).tag == "Q4_K_M", "the largest that fits"
    small = replace(machine, total=10**9, free=10**9)
    assert gguf_variants.best(gguf_variants.of(here, files, 8192, small)).tag == "Q2_K", "or what comes closest"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a ![logo](x.png) b", "a logo b"),
        ("<p align=center>\n    <b>hi</b></p>", "hi"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<style>\nb {}\n</style>after", "after"),
        ("<!-- never closed", ""),
        ("- a\n    - b", "- a\n    - b"),
    ],
)
def test_cards_are_made_readable(written: str, shown: str) -> None:
    assert readme.readable(written) == shown


def test_a_long_card_is_cut() -> None:
    assert readme.readable("x" * (readme.MOST + 1)) == "x" * readme.MOST + "\n\n…"
