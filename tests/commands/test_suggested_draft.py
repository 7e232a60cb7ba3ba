"""Where the catalog's draft for a model is installed and not used, each front door says so; with it, it guesses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from squish.config.settings import Settings
from squish.models.store import Store
from tests.commands.test_run import Terminal
from tests.commands.test_serve import get, serving
from tests.conftest import SQUISH, Run, clean_environment, home_settings
from tests.worker.group import tiny

LARGE, SMALL = "smollm2:1.7b", "smollm2:135m"
SAID = f"{SMALL} is installed and can draft for {LARGE}: --draft {SMALL}, or [draft] in config.toml"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a model that has the catalog's name for a large one."""
    _install(home_settings(tmp_path), LARGE)
    return tmp_path


def _install(settings: Settings, id: str) -> None:
    tiny.install(Store(settings.cache_dir), id, "llama", key_heads=2, layers=1)


def test_show_says_which_one_and_how_to_come_by_it(home: Path, forked: Run) -> None:
    def shown() -> str:
        found = forked(("show", LARGE), clean_environment(home), home).stdout
        return next(line for line in found.splitlines() if line.startswith("draft")).removeprefix("draft").strip()

    use = f"--draft {SMALL}, or [draft] in config.toml"
    assert shown() == f"{SMALL} can draft for it: squish pull {SMALL}, then {use}"
    _install(home_settings(home), SMALL)
    assert shown() == f"{SMALL} can draft for it: {use}"
    found = json.loads(forked(("show", LARGE, "--json"), clean_environment(home), home).stdout)
    assert (found["draft"], found["suggested_draft"]) == (None, SMALL)
    (home / ".squish" / "config.toml").write_text(f'[draft]\n"{LARGE}" = "{SMALL}"\n')
    assert shown() == f"{SMALL} drafts for it, by [draft] in config.toml"
    (home / ".squish" / "config.toml").write_text(f'[draft]\n"{LARGE}" = "gone:1b"\n')
    assert shown() == "gone:1b is to draft for it, by [draft] in config.toml, and is not installed"


@pytest.mark.parametrize("used", [pytest.param(False, marks=pytest.mark.long), True], ids=["installed", "used"])
def test_a_server_says_so_and_with_it_tokens_are_guessed(used: bool, home: Path) -> None:
    _install(home_settings(home), SMALL)
    log = home / "log"
    with serving(clean_environment(home), log, LARGE, *(("--draft", SMALL) if used else ())) as (process, url):
        assert (SAID in log.read_text(encoding="utf-8")) == (not used)
        asked = {"model": LARGE, "prompt": "once", "max_tokens": 20, "temperature": 0}
        status, answer = get(f"{url}/v1/completions", json.dumps(asked).encode())
        process.terminate()
    assert status == 200
    assert not used or answer["timings"]["draft_n_accepted"] > 10, "they are the same model here"


def test_a_conversation_begins_with_it_and_one_prompt_does_not(home: Path, forked: Run) -> None:
    _install(home_settings(home), SMALL)
    environment = clean_environment(home)
    with Terminal([SQUISH, "run", LARGE], environment, home) as terminal:
        terminal.expect(SAID)
        terminal.expect(">>> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    done = forked(("run", LARGE, "--prompt", "a", "--max-tokens", "2"), environment, home)
    assert done.returncode == 0
    assert SAID not in done.stderr
