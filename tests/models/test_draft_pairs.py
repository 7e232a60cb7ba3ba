"""Pairs of the catalog: a small model that guesses for a large one of the same tokens. And those of a user."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from squish.errors import ConfigError
from squish.format.embedding import ModelKind
from squish.models import drafts
from squish.models.catalog import entries
from squish.models.manifest import Manifest
from squish.models.store import Store
from tests.models.test_store import manifest


def test_a_draft_is_a_much_smaller_model_with_the_same_vocabulary() -> None:
    known = {entry.id: entry for entry in entries()}
    pairs = [(entry, known[entry.draft]) for entry in entries() if entry.draft]
    assert len(pairs) > 10
    for large, small in pairs:
        assert small.parameters * 5 < large.parameters
        assert large.shape
        assert small.shape
        assert not small.shape.window_layers
        # Qwen pads the embeddings of its larger models; the tokens are the same.
        assert 0 <= large.shape.vocabulary - small.shape.vocabulary <= 256


LARGE, SMALL = "smollm2:1.7b", "smollm2:135m"


@pytest.mark.parametrize("kind", ["chat", "completion", "embedding", "rerank"])
def test_a_draft_is_another_model_that_is_here_and_writes(tmp_path: Path, kind: ModelKind) -> None:
    store = Store(tmp_path)
    for id in (LARGE, SMALL):
        with store.staging(id) as staging:
            (staging / "config.json").write_bytes(b"{}")
            store.commit(staging, replace(manifest(id), kind=kind))
    with pytest.raises(ConfigError, match=f"The draft model of {LARGE}, none:1b, is not installed") as gone:
        drafts.chosen(store, LARGE, "none:1b")
    assert "squish pull none:1b" in str(gone.value.hint)
    with pytest.raises(ConfigError, match=f"{LARGE} cannot be the draft model of {LARGE}: ") as same:
        drafts.chosen(store, LARGE, LARGE)
    assert same.value.message.endswith("it is that model.")
    assert gone.value.param == same.value.param == "draft"
    if kind in ("chat", "completion"):
        assert drafts.chosen(store, LARGE, SMALL).manifest.id == SMALL
        return
    with pytest.raises(ConfigError, match=rf"it is an? {kind}\w* model and generates no text\.$") as silent:
        drafts.chosen(store, LARGE, SMALL)
    assert silent.value.param == "draft"


def test_the_catalogs_draft_is_suggested_where_it_is_here_and_none_is_set() -> None:
    large, small = manifest(LARGE), manifest(SMALL)
    published = manifest("mine:1.7b", "hub:mlx-community/SmolLM2-1.7B-Instruct")
    other = manifest("mine:1b", "hub:mlx-community/Nobody-Knows-It")
    assert [drafts.known(each) for each in (large, published, other, small)] == [SMALL, SMALL, None, None]

    def unused(model: Manifest, *set_for: str, here: tuple[Manifest, ...] = (large, small)) -> str | None:
        return drafts.unused(model, here, set_for)

    assert [unused(each) for each in (large, published, other, small)] == [SMALL, SMALL, None, None]
    assert unused(large, LARGE) is None
    assert unused(large, SMALL) == SMALL
    assert unused(large, here=()) is unused(large, here=(large,)) is None
