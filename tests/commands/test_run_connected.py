"""`squish run --connect`: the model of a server, as a script meets it. The servers are small, the command is whole."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from squish.chats.chats import Chats
from squish.cli import cli, run_guarded
from squish.errors import ModelNotFound
from squish.remote.connection import ServerConnection
from squish.remote.fields import PLAIN
from squish.remote.models import RemoteModels
from squish.remote.plain_server import PlainServer
from tests.remote.small_server import NOT_FOUND, STREAM, Answer, chunk, event, reply, small_server
from tests.remote.test_connection import CHAT, END

ANSWER = STREAM + chunk(reasoning_content="Hm.") + chunk(content="Berlin.") + END


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SQUISH_API_KEY", "sk-secret")
    monkeypatch.setattr("squish.commands.answers.repl.with_stdin", lambda prompt: prompt)
    return tmp_path / ".squish"


async def run(url: str, *arguments: str) -> int:
    """The exit code of the command, which has an event loop of its own."""
    whole = ["run", "--connect", url, *arguments, "--prompt", "Capital?"]
    return await asyncio.to_thread(run_guarded, lambda: cli.main(whole, standalone_mode=False))


async def test_the_answer_is_on_stdout_and_the_chat_is_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with small_server({CHAT: ANSWER}) as server:
        assert await run(server.url, "m", "--temperature", "0", "--seed", "5", "--system", "Be short.", "--save") == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("Berlin.\n", "Hm.\n")
    _, body = next(each for each in server.seen if each[0].startswith("POST"))
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.0, 5, 512)
    assert [each["role"] for each in body["messages"]] == ["system", "user"]
    chats = Chats(home / "chats.db")
    question, answer = chats.branch(1)
    chats.close()
    assert (question.text, answer.text, answer.model) == ("Capital?", "Berlin.", "m")


async def test_who_names_no_preset_and_keeps_nothing_needs_no_database(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    (home / "chats.db").write_text("this is not a database " * 100)
    (home / "config.toml").write_text("[models.m]\nseed = 5\n")
    async with small_server({CHAT: ANSWER}) as server:
        assert await run(server.url, "m") == 0
    assert capsys.readouterr().out == "Berlin.\n"
    _, body = next(each for each in server.seen if each[0].startswith("POST"))
    assert body["seed"] == 5


async def test_a_server_with_one_model_needs_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    async with small_server({CHAT: ANSWER}) as server:
        assert await run(server.url, "--json") == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["model"], json.loads(out)["text"]) == ("m", "Berlin.")
    assert err == f"m at {server.url.partition('://')[2]}\nHm.\n"


@pytest.mark.parametrize(
    ("answers", "code", "says"),
    [
        ({"GET /v1/models": reply({}, "401 Unauthorized")}, 1, "refuses the key (401)"),
        ({"GET /v1/models": reply({"data": [{"id": "a"}, {"id": "b"}]})}, 3, "It has a, b."),
        ({"GET /v1/models": reply({"data": []})}, 3, "It has none"),
        ({"GET /v1/models": reply(b"<html>hi</html>", kind="text/html")}, 1, "a web page"),
        ({CHAT: reply({"error": {"message": "too long"}}, "400 Bad Request")}, 2, "answered 400: too long"),
        ({CHAT: NOT_FOUND}, 3, "no such path"),
        ({CHAT: STREAM + chunk(content="Ber")}, 1, "before it was complete"),
        ({CHAT: STREAM + event({"error": {"message": "out of memory"}})}, 1, "out of memory"),
        ({CHAT: reply({}, "500 Oops")}, 1, "answered 500"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_goes_wrong_is_one_sentence_and_a_code(
    answers: dict[str, Answer], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with small_server(answers) as server:
        assert await run(server.url, "m") == code
    out, err = capsys.readouterr()
    assert says in err
    assert "sk-secret" not in out + err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--draft", "n"], "--draft is set where the model runs"), (["--ranks", "2"], "--ranks is set where")],
)
async def test_how_a_model_is_loaded_is_not_said_from_here(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("127.0.0.1:9", "m", *arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("m", "m"),
        ("Tiny.Q4_1", "/models/tiny.Q4_1.gguf"),
        ("tiny.q4_1.gguf", "/models/tiny.Q4_1.gguf"),
        ("qwen3", "qwen3:8b"),
        ("LLAMA", "llama:latest"),
        ("llama:latest", "llama:latest"),
        ("gemma", None),
    ],
)
async def test_a_name_means_a_model_where_one_model_can_be_meant(written: str, meant: str | None) -> None:
    known = ["m", "M2", "qwen3:8b", "llama:latest", "gemma:2b", "gemma:7b", "/models/tiny.Q4_1.gguf"]
    async with small_server({"GET /v1/models": reply({"data": [{"id": each} for each in known]})}) as server:
        connection = ServerConnection(server.url)
        models = RemoteModels(PlainServer(connection, "/v1", "OpenAI's API", PLAIN), "server")
        await models.read()
        await connection.close()
    if meant is None:
        with pytest.raises(ModelNotFound, match="server has no model 'gemma'"):
            models.find(written)
    else:
        assert models.find(written).id == meant
