"""A pull over the API: its lines, what it needs, and what breaks it off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squish.api.serving.options import Options
from squish.config.settings import Settings
from squish.errors import ModelInUse
from squish.models.store import Store
from tests.api.raw_http import ask, connected, request_bytes, scripted
from tests.conftest import share_compiled
from tests.local_hub import GOOD_TOKEN, Fault, LocalHub, tiny_model

REPO = "org/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def settings(tmp_path: Path, hub: LocalHub) -> Settings:
    found = Settings(home=tmp_path, cache_dir=tmp_path / "models", hub_endpoint=hub.url, hf_token=GOOD_TOKEN)
    share_compiled(found.worker_cache)
    return found


async def pulled(settings: Settings, body: dict[str, Any], allowed: bool = True) -> tuple[int, list[dict[str, Any]]]:
    async with scripted(settings, Options(allow_pull=allowed)) as server:
        answer = await ask(server, "POST", "/api/pull", body)
    lines = [line for line in answer.body.split(b"\n") if line.startswith(b"{")]
    return answer.status, [json.loads(line) for line in lines]


async def test_the_lines_of_a_pull(settings: Settings, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model())
    status, lines = await pulled(settings, {"model": f"{REPO}:full"})
    assert status == 200
    assert (lines[0], lines[-1]) == ({"status": "pulling manifest"}, {"status": "success"})
    downloads = [line for line in lines if line["status"] == f"pulling {REPO}:full"]
    assert downloads
    assert all(0 <= line["completed"] <= line["total"] for line in downloads)
    assert len({line["digest"] for line in downloads}) == 1
    assert len(downloads[0]["digest"]) == len("sha256:") + 64
    assert [each.id for each in Store(settings.cache_dir).list()] == [f"{REPO}:full"]


async def test_nothing_is_asked_of_the_hub_without_the_switch(settings: Settings, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model())
    status, [refused] = await pulled(settings, {"model": REPO}, allowed=False)
    assert (status, "--allow-pull" in refused["error"]) == (403, True)
    assert hub.requests == []


@pytest.mark.parametrize("stream", [True, False])
async def test_what_breaks_it_off_is_the_last_line_or_a_status(settings: Settings, hub: LocalHub, stream: bool) -> None:
    status, lines = await pulled(settings, {"model": "org/missing", "stream": stream})
    assert (status, len(lines)) == ((200, 2) if stream else (404, 1))
    assert "org/missing" in lines[-1]["error"]
    offline = replace(settings, offline=True)
    status, [refused] = await pulled(offline, {"model": "no-such-name:1b", "stream": stream})
    assert (status, "not in the catalog" in refused["error"]) == (404, True)


async def test_a_client_that_leaves_ends_the_pull(settings: Settings, hub: LocalHub) -> None:
    hub.add_repo(REPO, tiny_model())
    hub.fault("model.safetensors", Fault(hold_after=100))
    store = Store(settings.cache_dir)
    async with scripted(settings, Options(allow_pull=True)) as server:
        async with connected(server, request_bytes("POST", "/api/pull", {"model": f"{REPO}:full"})) as (reader, _):
            await reader.readuntil(b'"completed"')
            with pytest.raises(ModelInUse), store.lock(f"{REPO}:full", wait=False):
                pass
        while True:
            try:
                with store.lock(f"{REPO}:full", wait=False):
                    break
            except ModelInUse:
                await asyncio.sleep(0.01)
    hub.release()
