"""What a group of ranks does not do is refused before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.generation import GenerationRequest, TextPrompt
from squish.ipc.local_ranks import LocalRanks
from squish.models.store import Store
from squish.runtime import Runtime
from tests.api.ollama.test_routes import install


async def test_an_adapter_is_refused_with_what_to_do(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, cache_dir=tmp_path / "models")
    store = Store(settings.cache_dir)
    install(store, "base:1b")
    install(store, "tuned:1b")
    manifest = store.find("tuned:1b").manifest
    with store.staging("tuned:1b") as folder:
        (folder / "adapters.safetensors").write_bytes(b"")
        store.commit(folder, replace(manifest, base="base:1b"))
    async with Runtime(settings, LocalRanks(2)) as runtime:
        with pytest.raises(InvalidInput, match="tuned:1b is an adapter") as caught:
            runtime.sessions.generate(GenerationRequest("tuned:1b", (TextPrompt("a"),)))
        with pytest.raises(InvalidInput, match="answers without any"):
            await runtime.sessions.load("tuned:1b")
        assert runtime.sessions.status() == []
    assert caught.value.hint and "squish fuse" in caught.value.hint and caught.value.param == "model"
