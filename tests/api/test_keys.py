"""Several keys: who gets in, what each may, whose turn it is, and what is counted."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from squish.api.clients.clients import SINGLE
from squish.api.clients.keys import ApiKey, KeyFile
from squish.api.clients.limits import KeyLimits
from squish.api.clients.usage import UsageFile
from squish.api.errors import Refused
from squish.api.serving.opening import Opening
from squish.config.settings import Settings
from squish.errors import ConfigError, InvalidInput
from squish.generation import Usage
from squish.models.store import Store
from tests.api.ollama.test_routes import install
from tests.api.raw_http import CHAT, Answer, Server, ask, connected, request_bytes, scripted

PATH = "/v1/chat/completions"
TURN = CHAT["messages"]
TOO_MUCH = "The key alice may send 1 request a minute."
OF_ANTHROPIC = {"type": "rate_limit_error", "message": TOO_MUCH}
OF_OPENAI = {"message": TOO_MUCH, "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}


@pytest.fixture(autouse=True)
def _within_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: meanwhile a key would get back what it may send in a minute."""
    monkeypatch.setattr(KeyLimits.__init__, "__defaults__", (lambda: 0.0,))


def settings(home: Path, **fields: Any) -> Settings:
    return Settings(home=home, cache_dir=home / "models", **fields)


def key(home: Path, name: str, **fields: Any) -> str:
    return KeyFile(home).add(ApiKey(name=name, hash="", **fields))


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def answered(server: Server, secret: str, path: str = PATH, body: Any = CHAT) -> Answer:
    asking = asyncio.create_task(ask(server, "POST", path, body, **bearer(secret)))
    done, _ = await asyncio.wait(
        [asking, got := asyncio.create_task(server.sessions.admitted.get())], return_when=asyncio.FIRST_COMPLETED
    )
    if got in done:
        got.result().answer("fine")
    got.cancel()
    return await asking


async def test_a_key_is_needed_once_there_is_one_and_none_is_good_when_all_are_taken_away(tmp_path: Path) -> None:
    async with scripted(settings(tmp_path)) as server:
        assert (await ask(server, "GET", "/v1/models")).status == 200
        alice = key(tmp_path, "alice")
        assert (await ask(server, "GET", "/v1/models")).error["code"] == "invalid_api_key"
        assert (await ask(server, "GET", "/v1/models", **bearer(alice))).status == 200
        bob = key(tmp_path, "bob")
        KeyFile(tmp_path).remove("alice")
        assert (await ask(server, "GET", "/v1/models", **bearer(alice))).status == 401
        KeyFile(tmp_path).remove("bob")
        for headers in ({}, bearer(bob)):
            assert (await ask(server, "GET", "/v1/models", **headers)).status == 401
        KeyFile(tmp_path).path.unlink()
        assert (await ask(server, "GET", "/v1/models")).status == 401
        assert (await ask(server, "GET", "/ready")).status == 200


async def test_the_key_of_the_environment_goes_on_beside_others(tmp_path: Path) -> None:
    alice = key(tmp_path, "alice")
    async with scripted(settings(tmp_path, api_key="only")) as server:
        for secret in (alice, "only"):
            assert (await ask(server, "GET", "/v1/models", **bearer(secret))).status == 200
        assert (await ask(server, "GET", "/v1/models", **bearer("other"))).status == 401


async def test_a_key_uses_only_its_models(tmp_path: Path) -> None:
    alice = key(tmp_path, "alice", models=("n",))
    async with scripted(settings(tmp_path)) as server:
        refused = await ask(server, "POST", PATH, CHAT, **bearer(alice))
        assert (refused.status, refused.error["code"]) == (403, "model_not_allowed")
        assert server.sessions.requests == []


async def test_what_is_too_much_for_a_key_is_refused_with_a_time(tmp_path: Path) -> None:
    alice, bob = key(tmp_path, "alice", concurrent_requests=1), key(tmp_path, "bob")
    async with scripted(settings(tmp_path)) as server:
        first = asyncio.create_task(ask(server, "POST", PATH, CHAT, **bearer(alice)))
        script = await server.sessions.admitted.get()
        refused = await ask(server, "POST", PATH, CHAT, **bearer(alice))
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert (await answered(server, bob)).status == 200
        script.answer("fine")
        assert (await first).status == 200
        assert (await answered(server, alice)).status == 200


async def test_an_answer_whose_reader_has_gone_is_counted_too(tmp_path: Path) -> None:
    alice = key(tmp_path, "alice")
    async with scripted(settings(tmp_path)) as server:
        body = CHAT | {"stream": True}
        async with connected(server, request_bytes("POST", PATH, body, **bearer(alice))) as (reader, _):
            script = await server.sessions.admitted.get()
            script.accept()
            script.say("Once")
            await reader.readuntil(b"Once")
        left = await server.sessions.cancelled.get()
        assert left is script.generation
        script.finish(reason="cancelled", usage=Usage(7, 2, 3))  # as the worker says it, when it has let the row go
        text = (await ask(server, "GET", "/metrics", **bearer(alice))).body.decode()
        assert 'squish_key_requests_total{key="alice"} 1.0' in text
        for kind, tokens in (("prompt", 7), ("cached", 3), ("completion", 2)):
            assert f'squish_key_tokens_total{{key="alice",kind="{kind}"}} {tokens}.0' in text
        assert 'squish_completion_tokens_total{model="m"} 2.0' in text


async def test_a_named_key_sees_its_own_figures_and_the_server_s_one_key_those_of_all(tmp_path: Path) -> None:
    alice, bob = key(tmp_path, "alice"), key(tmp_path, "bob", models=("n:1b",))
    async with scripted(settings(tmp_path, api_key="geheim")) as server:
        for secret in (alice, "geheim"):
            assert (await answered(server, secret)).status == 200
        keys, models = {}, {}
        for name, secret in (("alice", alice), ("bob", bob), (SINGLE, "geheim")):
            text = (await ask(server, "GET", "/metrics", **bearer(secret))).body.decode()
            keys[name], models[name] = (set(re.findall(rf'{label}="([^"]+)"', text)) for label in ("key", "model"))
            assert 'squish_http_requests_total{method="POST",' in text
        assert keys == {"alice": {"alice"}, "bob": set(), SINGLE: {"alice", SINGLE}}
        assert models == {"alice": {"m"}, "bob": set(), SINGLE: {"m"}}


async def test_only_what_is_answered_counts_as_one_of_a_minute_s_requests(tmp_path: Path) -> None:
    alice = key(tmp_path, "alice", requests_per_minute=2, models=("m:1b",))
    for id in ("m:1b", "n:1b"):
        install(Store(settings(tmp_path).cache_dir), id)
    asked = {"model": "m:1b", "messages": CHAT["messages"], "think": True, "stream": False}
    async with scripted(settings(tmp_path)) as server:
        for _ in range(3):  # clients of Ollama look before they ask
            assert (await ask(server, "POST", "/api/show", {"model": "m:1b"}, **bearer(alice))).status == 200
        assert (await ask(server, "POST", "/api/show", {"model": "n:1b"}, **bearer(alice))).status == 403
        statuses = [(await answered(server, alice, "/api/chat", asked)).status for _ in range(3)]
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        (PATH, {"messages": TURN}, {"error": OF_OPENAI}),
        ("/v1/responses", {"input": "x"}, {"error": OF_OPENAI}),
        ("/v1/embeddings", {"input": "x"}, {"error": OF_OPENAI}),
        ("/v1/messages", {"messages": TURN, "max_tokens": 1}, {"type": "error", "error": OF_ANTHROPIC}),
        ("/v1/messages/count_tokens", {"messages": TURN}, {"type": "error", "error": OF_ANTHROPIC}),
        ("/api/chat", {"messages": TURN}, {"error": TOO_MUCH}),
        ("/api/embed", {"input": "x"}, {"error": TOO_MUCH}),
    ],
)
async def test_every_dialect_says_in_its_own_words_that_it_is_too_much(
    path: str, body: Any, error: Any, tmp_path: Path
) -> None:
    alice = key(tmp_path, "alice", requests_per_minute=1)
    async with scripted(settings(tmp_path)) as server:
        assert (await answered(server, alice)).status == 200
        for stream in ({}, {"stream": True}) if "messages" in body and not path.endswith("tokens") else ({},):
            refused = await ask(server, "POST", path, {"model": "m", **body, **stream}, **bearer(alice))
            assert refused.status == 429
            assert 0 < int(refused.headers["retry-after"]) <= 60
            said = json.loads(refused.body)
            said.pop("request_id", None)
            assert said == error


def test_a_minute_s_requests_come_back_evenly() -> None:
    now = 0.0
    limits = KeyLimits(lambda: now)
    alice = ApiKey(name="alice", hash="", requests_per_minute=2)

    def asks() -> str | None:
        try:
            with limits.asking(alice):
                return None
        except Refused as refused:
            return refused.headers["retry-after"]

    assert [asks(), asks(), asks()] == [None, None, "30"]
    now = 30.0
    assert [asks(), asks()] == [None, "30"]
    now = 600.0
    assert [asks(), asks(), asks()] == [None, None, "30"]


async def test_what_a_key_used_is_on_disk_when_the_server_has_ended(tmp_path: Path) -> None:
    alice = key(tmp_path, "alice", background=True)
    async with scripted(settings(tmp_path)) as server:
        for _ in range(2):
            assert (await answered(server, alice)).status == 200
        assert [(each.account, each.background) for each in server.sessions.requests] == [("alice", True)] * 2
    [used] = UsageFile(tmp_path).since("2000-01-01")
    assert (used.key, used.model, used.requests, used.prompt, used.cached, used.completion) == (
        "alice",
        "m",
        2,
        14,
        6,
        4,
    )


def test_usage_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    usage = UsageFile(tmp_path)
    usage.count("alice", "m", requests=1)
    usage.flush()
    with closing(sqlite3.connect(usage.path)) as connection:
        connection.execute("ALTER TABLE usage RENAME TO other")
        usage.count("alice", "m", requests=2)
        usage.path.chmod(0o400)
        connection.execute("ALTER TABLE other RENAME TO usage")
    usage.path.chmod(0o600)
    usage.flush()
    assert [each.requests for each in usage.since("2000-01-01")] == [3]


async def test_a_client_sees_no_files_of_another(tmp_path: Path) -> None:
    alice, bob = bearer(key(tmp_path, "alice")), bearer(key(tmp_path, "bob"))
    form = b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    form += b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--x--\r\n'
    async with scripted(settings(tmp_path)) as server:
        file = json.loads((await ask(server, "POST", "/v1/files", form, **alice)).body)
        assert (await ask(server, "GET", f"/v1/files/{file['id']}/content", **alice)).body == b"{}"
        for path in (f"/v1/files/{file['id']}", f"/v1/files/{file['id']}/content"):
            assert (await ask(server, "GET", path, **bob)).status == 404
        assert json.loads((await ask(server, "GET", "/v1/files", **bob)).body)["data"] == []
        body = {"input_file_id": file["id"], "endpoint": PATH, "completion_window": "24h"}
        assert (await ask(server, "POST", "/v1/batches", body, **bob)).error["param"] == "input_file_id"


async def test_a_client_cannot_read_continue_or_delete_a_response_of_another(tmp_path: Path) -> None:
    path, body = "/v1/responses", {"model": "m", "input": "Hi"}
    async with scripted(settings(tmp_path)) as server:
        alice, bob = key(tmp_path, "alice"), key(tmp_path, "bob")
        id = json.loads((await answered(server, alice, path, body)).body)["id"]
        found = [await ask(server, method, f"{path}/{id}", **bearer(bob)) for method in ("GET", "DELETE")]
        assert [each.error["code"] for each in found] == ["response_not_found"] * 2
        next_turn = body | {"previous_response_id": id}
        assert (await answered(server, bob, path, next_turn)).error["param"] == "previous_response_id"
        assert (await answered(server, alice, path, next_turn)).status == 200
        assert json.loads((await ask(server, "GET", f"{path}/{id}", **bearer(alice))).body)["id"] == id
        assert (await ask(server, "DELETE", f"{path}/{id}", **bearer(alice))).status == 200
        assert (await ask(server, "GET", f"{path}/{id}", **bearer(alice))).status == 404


async def test_a_batch_uses_only_the_models_of_its_key(tmp_path: Path) -> None:
    alice = bearer(key(tmp_path, "alice", models=("n",)))
    line = json.dumps({"custom_id": "1", "url": PATH, "body": CHAT}).encode()
    form = b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    form += b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + line + b"\r\n--x--\r\n"
    async with scripted(settings(tmp_path)) as server:
        file = json.loads((await ask(server, "POST", "/v1/files", form, **alice)).body)
        body = {"input_file_id": file["id"], "endpoint": PATH, "completion_window": "24h"}
        batch = json.loads((await ask(server, "POST", "/v1/batches", body, **alice)).body)
        while batch["status"] != "completed":
            batch = json.loads((await ask(server, "GET", f"/v1/batches/{batch['id']}", **alice)).body)
        errors = (await ask(server, "GET", f"/v1/files/{batch['error_file_id']}/content", **alice)).body
        assert json.loads(errors)["response"]["body"]["error"]["code"] == "model_not_allowed"
        assert server.sessions.requests == []


async def test_a_server_is_ready_when_it_lets_requests_in(tmp_path: Path) -> None:
    opening = Opening(5)
    async with scripted(settings(tmp_path), opening=opening) as server:
        waiting = await ask(server, "GET", "/ready")
        assert (waiting.status, json.loads(waiting.body)) == (503, {"status": "loading"})
        assert (await ask(server, "GET", "/health")).status == 200
        opening.open()
        assert (await ask(server, "GET", "/ready")).status == 200


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[alice]\nhash = 3\n", "[alice]"),
        ("[alice]\nhash = 'abc'\n", "SHA-256"),
        (f"[alice]\nhash = '{'0' * 65}'\n", "SHA-256"),
        ("[alice", "not valid TOML"),
        ("alice = 1\n", "[alice]"),
        (f"[alice]\nhash = '{'0' * 64}'\nrequests_per_minute = 0\n", "requests_per_minute"),
        (f"[alice]\nhash = '{'0' * 64}'\nmodel = 'x'\n", "model is not a field of a key"),
        (f"[alice]\nhash = '{'0' * 64}'\nmodels = []\n", "models must be a list of names"),
        (f"[alice]\nhash = '{'0' * 64}'\nmodels = 'x'\n", "models must be a list of names"),
        (f"[alice]\nhash = '{'0' * 64}'\nbackground = 1\n", "background must be true or false"),
        (f"[alice]\nhash = '{'0' * 64}'\nname = 'bob'\n", "name must be that of the table"),
        (f"[alice]\nhash = '{'0' * 64}'\n[bob]\nhash = '{'0' * 64}'\n", "[bob]: hash is that of [alice] too"),
        (f"['a b']\nhash = '{'0' * 64}'\n", "a name has up to 64 letters"),
        ("[alice]\n", "[alice]: hash is missing"),
    ],
)
async def test_a_broken_file_of_keys_is_told_and_lets_nobody_in(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told.replace("[", r"\[")):
        KeyFile(tmp_path).keys()
    path.unlink()
    alice = key(tmp_path, "alice")
    async with scripted(settings(tmp_path)) as server:
        path.write_text(text)
        assert (await ask(server, "GET", "/v1/models")).status == 401
        assert (await ask(server, "GET", "/v1/models", **bearer(alice))).status == 200


async def test_a_file_of_keys_that_cannot_be_looked_at_leaves_the_keys_from_before(tmp_path: Path) -> None:
    alice, path = key(tmp_path, "alice"), tmp_path / "keys.toml"
    async with scripted(settings(tmp_path)) as server:
        assert (await ask(server, "GET", "/v1/models", **bearer(alice))).status == 200
        path.unlink()
        path.symlink_to(path)
        for _ in range(2):
            assert (await ask(server, "GET", "/v1/models")).status == 401
            assert (await ask(server, "GET", "/v1/models", **bearer(alice))).status == 200


def test_that_a_file_cannot_be_read_is_said_once(tmp_path: Path) -> None:
    file, secret = KeyFile(tmp_path), key(tmp_path, "alice")
    known = file.keys()
    file.path.unlink()
    file.path.symlink_to(file.path)
    with pytest.raises(ConfigError, match=r"keys\.toml cannot be read: \w"):
        file.keys()
    assert file.keys() == known and file.find(secret) is not None
    file.path.unlink()
    assert file.keys() == {}


def test_a_key_of_any_bytes_is_compared_and_a_name_says_what_it_may_be(tmp_path: Path) -> None:
    key(tmp_path, "alice")
    assert KeyFile(tmp_path).find("\udcff\ud800"[:1]) is None
    with pytest.raises(InvalidInput) as refused:
        key(tmp_path, "a b")
    assert refused.value.hint == "A name has up to 64 letters, digits, dots and dashes."


@pytest.mark.parametrize("models", ["['']", "[' ']", "['m', 1]", "[1]", "[['m']]"])
def test_a_name_of_a_model_is_a_text_that_says_something(tmp_path: Path, models: str) -> None:
    (tmp_path / "keys.toml").write_text(f"[alice]\nhash = '{'0' * 64}'\nmodels = {models}\n")
    with pytest.raises(ConfigError, match="models must be a list of names") as refused:
        KeyFile(tmp_path).keys()
    assert refused.value.hint == "docs/keys.md shows one; squish keys add writes it."


def test_a_home_that_is_not_there_is_made_for_its_first_key(tmp_path: Path) -> None:
    secret = key(tmp_path / "a" / "home", "alice")
    assert KeyFile(tmp_path / "a" / "home").find(secret) is not None


async def test_a_model_that_a_key_may_not_use_is_not_described_to_it(tmp_path: Path) -> None:
    install(Store(tmp_path / "models"), "tiny:1b")
    alice, bob = key(tmp_path, "alice", models=("other:1b",)), key(tmp_path, "bob")
    async with scripted(settings(tmp_path)) as server:
        assert (await ask(server, "GET", "/v1/models/tiny:1b", **bearer(bob))).status == 200
        assert (await ask(server, "GET", "/v1/models/tiny:1b", **bearer(alice))).error["code"] == "model_not_allowed"


def test_a_key_is_kept_as_its_hash_for_its_owner_only(tmp_path: Path) -> None:
    secret = key(tmp_path, "alice")
    path = tmp_path / "keys.toml"
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    for name in ("alice", "", "a b", "../x"):
        with pytest.raises(InvalidInput):
            key(tmp_path, name)
