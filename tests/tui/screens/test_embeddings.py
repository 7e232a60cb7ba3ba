"""An embedding model in the full-screen application: shown as one, and not there to chat with."""

from __future__ import annotations

import pytest
from textual.widget import Widget

from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.runtime import Runtime
from squish.tui.chat.model_choice import ModelChoice
from squish.tui.widgets.model_row import details_of
from tests.conftest import EMBEDDING_MODEL


async def test_the_library_shows_the_kind_and_the_chat_leaves_it_out(embedding_settings: Settings) -> None:
    async with Runtime(embedding_settings) as runtime:
        [manifest] = runtime.store.list()
        assert "embedding model · bert" in details_of(manifest, None, False, None, 1, 1).plain
        choice = ModelChoice(runtime, Widget())
        assert choice.installed() == []
        with pytest.raises(InvalidInput, match="is an embedding model"):
            choice.choose(EMBEDDING_MODEL)
        assert choice.manifest is None
