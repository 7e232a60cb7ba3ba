"""Asking the Hub: every answer has its time and its size, whoever answers, and passwords stay where they belong."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from squish.config.settings import Settings, resolve
from squish.doctor import network
from squish.errors import HubError, HubUnreachable, InvalidInput, ModelNotFound, SquishError
from squish.hub.client import Hub
from squish.hub.token import token
from tests.conftest import SQUISH, clean_environment
from tests.local_hub import GOOD_TOKEN, MIB, Fault, LocalHub, tiny_model

REPO = "org/tiny"
CALLS: dict[str, tuple[str, Callable[[Hub], Awaitable[Any]]]] = {
    "search": ("api", lambda hub: hub.search("tiny", "mlx")),
    "snapshot": ("api", lambda hub: hub.snapshot(REPO)),
    "card": ("README.md", lambda hub: hub.card(REPO)),
    "whoami": ("api", lambda hub: hub.whoami()),
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        hub.add_repo(REPO, tiny_model())
        yield hub


@pytest.fixture
def settings(tmp_path: Path, hub: LocalHub) -> Settings:
    return Settings(home=tmp_path, cache_dir=tmp_path / "models", hub_endpoint=hub.url, hf_token=GOOD_TOKEN)


def ask(settings: Settings, call: str) -> Any:
    async def asked() -> Any:
        return await CALLS[call][1](Hub(settings))

    return asyncio.run(asked())


@pytest.mark.parametrize("part", ["body", "head"])
@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_drips_is_given_up(
    hub: LocalHub, settings: Settings, call: str, part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squish.hub.ask.DEADLINE", 1.0)
    monkeypatch.setattr("squish.hub.client.DOCTOR_DEADLINE", 1.0)
    hub.fault(CALLS[call][0], Fault(drip=part, at_hub=call == "card"))
    with pytest.raises(HubUnreachable, match="did not answer within"):
        ask(settings, call)
    assert not hub.released.is_set(), "it would go on"


@pytest.mark.parametrize("kind", ["plain", "packed"])
@pytest.mark.parametrize("call", ["search", "snapshot"])
def test_an_answer_without_end_is_cut_off(
    hub: LocalHub, settings: Settings, call: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squish.hub.client.LARGEST", MIB)
    hub.fault("api", Fault(endless=kind))
    with pytest.raises(HubError, match="too long"):
        ask(settings, call)
    assert hub.requests[-1].sent < 64 * MIB, "what the sockets hold, no more"


@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_of_a_card_without_end_the_beginning_is_shown(hub: LocalHub, settings: Settings, kind: Any) -> None:
    hub.fault("README.md", Fault(endless=kind, at_hub=True))
    assert ask(settings, "card") == "\0" * 65_536


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{}", b"\xff", b"null", b'{"sha": "..", "siblings": []}', b"[1"])
def test_an_answer_that_makes_no_sense_is_an_error(settings: Settings, hub: LocalHub, body: bytes) -> None:
    hub.repos[REPO].answer = body
    for call in ("search", "snapshot"):
        with pytest.raises(HubError, match="cannot be understood"):
            ask(settings, call)


def test_what_the_hub_says_is_read_as_its_own_client_reads_it(hub: LocalHub, settings: Settings) -> None:
    info = HfApi(endpoint=hub.url, token=GOOD_TOKEN).model_info(REPO, files_metadata=True)
    found, siblings = ask(settings, "snapshot"), info.siblings or []
    assert (found.commit, found.repo_id, found.license) == (info.sha, info.id, "apache-2.0")
    assert [(each.path, each.size) for each in found.files] == [(each.rfilename, each.size) for each in siblings]
    hashes = {each.rfilename: (each.lfs and each.lfs.sha256, None if each.lfs else each.blob_id) for each in siblings}
    assert {each.path: (each.sha256, each.git_blob) for each in found.files} == hashes


def test_a_password_in_the_address_is_sent_and_never_shown(hub: LocalHub, tmp_path: Path) -> None:
    address = hub.url.replace("http://", "http://user:s3c@ret@")
    environment = clean_environment(tmp_path) | {"HF_ENDPOINT": address, "NO_PROXY": "127.0.0.1"}
    assert hub.url.rpartition("/")[2] in next(
        each.shown for each in resolve(environment).origins if "http" in each.shown
    )
    said = ""
    for command in (("pull", "org/none"), ("search", "tiny"), ("doctor",), ("config", "show")):
        done = subprocess.run([SQUISH, *command], env=environment, capture_output=True, text=True, check=False)
        said += done.stdout + done.stderr
    assert hub.url in said and "s3c" not in said and "ret@" not in said
    sent = {each.headers.get("authorization") for each in hub.requests}
    assert sent == {"Basic " + base64.b64encode(b"user:s3c@ret").decode()}
    assert "s3c" not in repr(Settings.from_environment(environment))


@pytest.mark.parametrize(
    "text",
    [
        "http://u:s3cret@127.0.0.1:9",
        "u:s3cret@host",
        "ftp://u:s3cret@host",
        "http://u:s3cret@[bad",
        "https://u:s3@cret@h/x",
    ],
)
def test_a_password_in_an_address_that_cannot_be_used_is_not_shown(tmp_path: Path, text: str) -> None:
    environment = clean_environment(tmp_path) | {"HF_ENDPOINT": text, "NO_PROXY": "*"}
    for command in (("pull", REPO), ("search", "x"), ("doctor", "--json"), ("config", "show"), ("pull", text)):
        done = subprocess.run([SQUISH, *command], env=environment, capture_output=True, text=True, check=False)
        assert "cret" not in done.stdout + done.stderr


def test_an_error_never_holds_a_password() -> None:
    error = SquishError("https://a:b@c/d and socks5://e:f@g:1 and a@b", hint="http://h:i@j")
    assert (error.message, error.hint) == ("https://c/d and socks5://g:1 and a@b", "http://j")
    assert str(InvalidInput("x://y:z@w")) == "x://w"


def test_the_token_of_a_login_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path, cache_dir=tmp_path)
    for variable in ("HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token(settings) is None
    for variable, value, file in (
        ("HOME", tmp_path, tmp_path / ".cache/huggingface/token"),
        ("XDG_CACHE_HOME", tmp_path / "xdg", tmp_path / "xdg/huggingface/token"),
        ("HF_HOME", tmp_path / "hf", tmp_path / "hf/token"),
        ("HF_TOKEN_PATH", tmp_path / "secret", tmp_path / "secret"),
    ):
        monkeypatch.setenv(variable, str(value))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"hf_{variable}\n")
        assert token(settings) == f"hf_{variable}"
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbfhf_marked\r\n")
    assert token(settings) == "hf_marked"
    (tmp_path / "secret").write_bytes(b"hf\xff\n")
    assert token(settings) is None, "nothing that a header cannot carry"


def test_a_repository_whose_name_is_too_long_is_not_asked_for(hub: LocalHub, settings: Settings) -> None:
    with pytest.raises(ModelNotFound):
        asyncio.run(Hub(settings).snapshot(f"org/{'x' * 100}"))
    assert not hub.requests


def test_the_doctor_does_not_wait_for_a_hub_that_drips(
    hub: LocalHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squish.hub.client.DOCTOR_DEADLINE", 1.0)
    hub.fault("api", Fault(drip="body"))
    [finding] = network.hub(settings)
    assert finding.status == "warning" and "did not answer" in finding.reason
