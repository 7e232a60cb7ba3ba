"""Pairs of the catalog: a small model that guesses for a large one of the same tokens."""

from __future__ import annotations

from squish.models.catalog import entries


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
