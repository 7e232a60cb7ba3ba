"""A server that answers at once, and what has to hold after every attack on it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from squish.api.options import Options
from squish.config.settings import Settings
from squish.models.store import Store
from squish.runtime import Runtime
from squish.sessions.answer import Generation
from squish.sessions.manager import SessionManager
from tests.api.raw_http import Server, ask
from tests.api.scripted import Script, ScriptedSessions, serving
from tests.models.test_store import manifest

OPEN = Options(allow_pull=True)


class AnsweringSessions(ScriptedSessions):
    """An engine that answers every row at once."""

    def admit(self, generation: Generation) -> None:
        Script(generation).answer(*["fine"] * generation.rows)


@pytest.fixture(params=[None, "right-key"], ids=["open", "key"])
def key(request: pytest.FixtureRequest) -> str | None:
    """The server's key, if it has one."""
    return cast("str | None", request.param)


@pytest.fixture
async def server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Server]:
    settings = Settings(home=tmp_path, cache_dir=tmp_path / "models", offline=True)
    with (store := Store(settings.cache_dir)).staging("m") as folder:
        (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
        store.commit(folder, replace(manifest("m"), kind="embedding"))
    async for each in attacked(settings, caplog):
        yield each


async def attacked(
    settings: Settings, caplog: pytest.LogCaptureFixture, options: Options = OPEN
) -> AsyncIterator[Server]:
    """A server; when the attack is over it still answers, and its log has nothing that is the server's own fault."""
    caplog.set_level(logging.INFO)
    runtime, sessions = Runtime(settings), AnsweringSessions()
    runtime.sessions = cast(SessionManager, sessions)
    sessions.statuses = []  # nothing is loaded, so everything can be deleted
    async with serving(runtime, options) as address:
        server = Server(address, sessions)
        yield server
        assert (await ask(server, "GET", "/health")).status == 200
    records = [*caplog.get_records("call"), *caplog.records]  # of an attack, and of what is looked at after it
    assert not [record for record in records if record.exc_info or record.levelno >= logging.ERROR]
    assert records
    assert not any("\x1b" in record.getMessage() for record in records)
