"""A server that answers at once, and what has to hold after every attack on it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import cast

import pytest
import pytest_asyncio

from squish.api.serving.options import Options
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


@dataclass
class Attacked(Server):
    """A server, and the store of its models."""

    store: Store


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str | None, Attacked]]:
    """By its key, a server for all attacks of a module: what one leaves behind, the next one meets."""
    async with AsyncExitStack() as stack:
        found = {}
        for key in (None, "right-key"):
            home = tmp_path_factory.mktemp("attacked")
            settings = Settings(home=home, cache_dir=home / "models", offline=True, api_key=key)
            found[key] = await stack.enter_async_context(answering(settings, OPEN))
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def server(servers: dict[str | None, Attacked], caplog: pytest.LogCaptureFixture) -> AsyncIterator[Attacked]:
    """One without a key, that has an embedding model."""
    store = servers[None].store
    for model in store.list():
        store.remove(model.id)
    with store.staging("m") as folder:
        (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
        store.commit(folder, replace(manifest("m"), kind="embedding"))
    async for each in unharmed(servers[None], caplog):
        yield each


@asynccontextmanager
async def answering(settings: Settings, options: Options) -> AsyncIterator[Attacked]:
    runtime, sessions = Runtime(settings), AnsweringSessions()
    runtime.sessions = cast(SessionManager, sessions)
    sessions.statuses = []  # nothing is loaded, so everything can be deleted
    async with serving(runtime, options) as address:
        yield Attacked(address, sessions, Store(settings.cache_dir))


async def unharmed(server: Attacked, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Attacked]:
    """When the attack is over it still answers, and its log has nothing that is the server's own fault."""
    caplog.set_level(logging.INFO)
    server.sessions.requests.clear()
    yield server
    assert (await ask(server, "GET", "/health")).status == 200
    records = [*caplog.get_records("call"), *caplog.records]  # of an attack, and of what is looked at after it
    assert not [record for record in records if record.exc_info or record.levelno >= logging.ERROR]
    assert records
    assert not any("\x1b" in record.getMessage() for record in records)


async def attacked(
    settings: Settings, caplog: pytest.LogCaptureFixture, options: Options = OPEN
) -> AsyncIterator[Attacked]:
    """A server of a test's own."""
    async with answering(settings, options) as server:
        async for each in unharmed(server, caplog):
            yield each
