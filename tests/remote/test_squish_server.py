"""Another Squish: what it tells to whom, and the whole screen on its models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from squish.api.clients.keys import ApiKey, KeyFile
from squish.config.settings import Settings
from squish.errors import RemoteError
from squish.figures import size
from squish.generation import (
    TITLE,
    Accepted,
    ChatPrompt,
    Finished,
    GenerationRequest,
    Message,
    Prefill,
    TextDelta,
    Timings,
    is_title,
)
from squish.remote.connected import connected
from squish.runtime import Runtime
from squish.sessions.activity import RequestStatus
from squish.sessions.model_status import ModelStatus
from squish.sessions.request_details import RequestDetails
from squish.tui.app import SquishApp
from tests.api.scripted import scripted_runtime, serving
from tests.conftest import MODEL
from tests.tui.chat.test_real import command, wait_for
from tests.tui.scenes import note, prompt, ready, screen_text, shown
from tests.tui.scripted import SMOL, ScriptedStore

QUESTION = "Repeat the word lighthouse a thousand times."


@asynccontextmanager
async def closing(runtime: Runtime) -> AsyncIterator[None]:
    """There are no engines behind it."""
    yield
    runtime.chats.close()


def row(id: int, key: str, client: str = "/v1/chat/completions 10.0.0.7") -> RequestStatus:
    return RequestStatus(id, client, SMOL.id, 1, "writing", 7, 2, 0.1, 20.0, 1.0, None, RequestDetails(key=key))


async def test_a_client_sees_the_requests_that_are_its_own(tmp_path: Path) -> None:
    settings = Settings.from_environment({"HOME": str(tmp_path), "SQUISH_API_KEY": "whole"})
    key = KeyFile(settings.home).add(ApiKey(name="anna", hash="0" * 64))
    runtime, sessions = scripted_runtime(settings)
    runtime.store = ScriptedStore(SMOL)
    sessions.rows, sessions.statuses = [row(1, "anna"), row(2, "bert")], []
    here = Settings.from_environment({"HOME": str(tmp_path / "other")})
    async with closing(runtime), serving(runtime) as address:
        seen = {}
        for given in (key, "whole"):
            async with connected(here, address.url, given) as backend:
                seen[given] = [each.id for each in backend.sessions.activity()]
        assert seen == {key: [1], "whole": [1, 2]}
        with pytest.raises(RemoteError, match=r"refuses the key \(401\)"):
            async with connected(here, address.url, "wrong"):
                pass


async def test_a_request_for_a_title_is_one_on_the_server_too(tmp_path: Path) -> None:
    """It steps back behind requests that somebody waits for, and has a row that says what it is."""
    runtime, sessions = scripted_runtime(Settings.from_environment({"HOME": str(tmp_path)}))
    runtime.store = ScriptedStore(SMOL)
    sessions.statuses = []
    here = Settings.from_environment({"HOME": str(tmp_path / "other")})
    asked = GenerationRequest(SMOL.id, (ChatPrompt((Message("user", "Hi"),)),))
    async with closing(runtime), serving(runtime) as address, connected(here, address.url) as backend:
        for request in (asked, replace(asked, client=TITLE, background=True)):
            async with backend.sessions.generate(request):
                await sessions.admitted.get()
    question, title = sessions.requests
    assert (question.client, question.background) == ("/v1/chat/completions 127.0.0.1", False)
    assert (title.client, title.background) == ("chat title 127.0.0.1", True)
    assert is_title(title.client) and not is_title(question.client)


async def test_what_a_squish_lists_is_what_it_has_installed(tmp_path: Path) -> None:
    runtime, sessions = scripted_runtime(Settings.from_environment({"HOME": str(tmp_path)}))
    runtime.store = ScriptedStore(SMOL)
    sessions.statuses = []
    async with closing(runtime), serving(runtime) as address, connected(runtime.settings, address.url) as backend:
        (model,) = backend.store.list()
        assert (model.id, model.size, model.context_length) == (SMOL.id, SMOL.size, SMOL.context_length)
        assert backend.program.startswith("Squish ")
        assert (backend.offers.delete, backend.offers.unload, backend.offers.where) == (False, True, backend.name)
        asked = GenerationRequest(SMOL.id, (ChatPrompt((Message("user", "Hi"),)),))
        async with backend.sessions.generate(asked) as generation:
            admitted = await sessions.admitted.get()
            admitted.accept(7)
            admitted.tell(Prefill(0, 2, 5))
            admitted.say("Hello")
            admitted.finish()
            *events, end = [event async for event in generation]
        assert events == [Accepted((7,)), Prefill(0, 0, 7), Prefill(0, 2, 5), TextDelta(0, "Hello")]
        assert isinstance(end, Finished)
        assert (end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.cached_tokens) == (7, 2, 3)
        assert end.timings == Timings(0.1, 0.2, server=backend.name), "the server's own, without its queue"


async def test_ttft_is_the_servers_own_though_it_loaded_the_model_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("squish.remote.generation.time", clock)
    runtime, sessions = scripted_runtime(Settings.from_environment({"HOME": str(tmp_path)}))
    runtime.store = ScriptedStore(SMOL)
    sessions.statuses = []
    async with closing(runtime), serving(runtime) as address, connected(runtime.settings, address.url) as backend:
        asked = GenerationRequest(SMOL.id, (ChatPrompt((Message("user", "Hi"),)),))
        async with backend.sessions.generate(asked) as generation:
            admitted = await sessions.admitted.get()
            sessions.statuses = [ModelStatus(SMOL.id, "loading", 0, 1, None, 0, 0, "", None, compiling=True)]
            clock.now = 57.0
            await backend.sessions.look()
            (status,) = backend.sessions.status()
            assert (status.state, status.compiling) == ("loading", True)
            clock.now = 58.5
            admitted.answer("Hello")
            *_, end = [event async for event in generation]
        assert isinstance(end, Finished)
        assert end.timings.ttft == 0.1, "as the server says"


async def test_the_screens_work_on_the_models_of_another_squish(tireless: dict[str, str], tmp_path: Path) -> None:
    here = Settings.from_environment({"HOME": str(tmp_path), "SQUISH_OFFLINE": "1", "SQUISH_CHAT_TITLES": "0"})
    async with (
        Runtime(Settings.from_environment(tireless | {"SQUISH_OFFLINE": "1"})) as runtime,
        serving(runtime) as address,
        connected(here, address.url) as backend,
    ):
        app = SquishApp(backend)
        async with app.run_test() as pilot:
            await ready(pilot)
            assert runtime.sessions.status() == []  # nobody has asked anything
            await command(pilot, "/set max_tokens 7000")  # else a machine that is slow to stop it finds it complete
            prompt(pilot).put(QUESTION)
            await pilot.press("enter")
            await wait_for(pilot, lambda: len(shown(pilot)) > 20)
            await pilot.press("escape")
            await wait_for(pilot, lambda: "stopped" in note(pilot))
            await wait_for(pilot, lambda: runtime.sessions.status()[0].running == 0)

            prompt(pilot).put(QUESTION)
            await pilot.press("enter")
            await wait_for(pilot, lambda: runtime.sessions.status()[0].running == 1)
            await pilot.press("f5")
            await wait_for(pilot, lambda: "● connected" in screen_text(pilot) and "writing" in screen_text(pilot))
            while "cancel" not in screen_text(pilot):  # a request that has just come in moves the mark
                await pilot.press("up")
            await pilot.press("x")
            await wait_for(pilot, lambda: runtime.sessions.status()[0].running == 0)

            await pilot.press("f4")
            await wait_for(pilot, lambda: MODEL in screen_text(pilot) and "· idle ·" in screen_text(pilot))
            (there,) = backend.sessions.status()
            assert there.pid is None and there.process_bytes > 1_000_000
            await wait_for(pilot, lambda: size(backend.sessions.status()[0].process_bytes) in screen_text(pilot))
            await pilot.press("l")
            await wait_for(pilot, lambda: runtime.sessions.status() == [])
            await pilot.press("f3")
            await wait_for(pilot, lambda: "The models are on" in screen_text(pilot))
