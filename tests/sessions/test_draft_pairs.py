"""A draft model of other tokens is refused before anything of the large model is looked at but its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from squish.config.settings import Settings
from squish.errors import ConfigError, CorruptModel, SquishError
from squish.models.store import Store
from squish.runtime import Runtime
from tests.worker import said
from tests.worker.group import tiny

LARGE, SAME, OTHER = "large:8b", "same:1b", "other:1b"


async def test_tokens_are_compared_before_a_model_is_built(tmp_path: Path) -> None:
    """The large model cannot even be built, which is only found where its draft fits."""
    settings = Settings(home=tmp_path, cache_dir=tmp_path / "models", draft=((LARGE, OTHER),))
    store = Store(settings.cache_dir)
    for id in (LARGE, SAME):
        tiny.install(store, id, "llama", key_heads=2, layers=1)
    said.install(store, OTHER)
    _spoil(store.find(LARGE).path / "config.json")
    refused = await _refusal(settings)
    assert isinstance(refused, ConfigError)
    assert "other:1b cannot guess for large:8b, because their tokens differ: " in refused.message
    assert refused.param == "draft"
    found = await _refusal(Settings(home=tmp_path, cache_dir=tmp_path / "models", draft=((LARGE, SAME),)))
    assert isinstance(found, CorruptModel)
    assert "do not fit together" in found.message


def _spoil(file: Path) -> None:
    """Let config.json ask for other weights than there are, in as many bytes."""
    text = file.read_text(encoding="utf-8")
    assert json.loads(text)["intermediate_size"] == 96
    file.write_text(text.replace('"intermediate_size": 96', '"intermediate_size": 97'), encoding="utf-8")


async def _refusal(settings: Settings) -> SquishError:
    async with Runtime(settings) as runtime:
        with pytest.raises(SquishError) as caught:
            await runtime.sessions.load(LARGE)
    return caught.value
