"""Asking the Hub: every answer has its time and its size, whoever answers, and passwords stay where they belong."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
from huggingface_hub import HfApi

from squish.config.settings import Settings, resolve
from squish.doctor import network
from squish.doctor.examine import config
from squish.errors import HubError, HubUnreachable, InvalidInput, ModelNotFound, SquishError
from squish.hub.client import Hub
from tests.conftest import Run, clean_environment
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
    monkeypatch.setattr("squish.hub.ask.LARGEST", MIB)
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


def test_of_every_file_its_address_size_and_hash_are_read(hub: LocalHub, settings: Settings) -> None:
    repo = hub.add_repo(REPO, tiny_model() | {"sub dir/ä?#%.txt": b"odd"})
    found = ask(settings, "snapshot")
    assert (found.commit, found.repo_id, found.license) == (repo.commit, REPO, "apache-2.0")
    assert {each.path: (each.size, each.sha256 or each.git_blob) for each in found.files} == {
        name: (len(content), repo.etag(name)) for name, content in repo.files.items()
    }
    assert [each.path for each in found.files if each.sha256] == ["model.safetensors"]
    place = f"{hub.url}/{REPO}/resolve/{repo.commit}"
    assert {unquote(each.url) for each in found.files} == {f"{place}/{name}" for name in repo.files}
    assert all(each.url.isascii() and not set("?# ") & set(each.url) for each in found.files)


def test_a_password_in_the_address_is_sent_and_never_shown(hub: LocalHub, tmp_path: Path, forked: Run) -> None:
    address = hub.url.replace("http://", "http://user:{s3c@ret@")
    environment = clean_environment(tmp_path) | {"HF_ENDPOINT": address, "NO_PROXY": "127.0.0.1"}
    assert hub.url.rpartition("/")[2] in next(
        each.shown for each in resolve(environment).origins if "http" in each.shown
    )
    said = ""
    for command in (("pull", "org/none"), ("pull", REPO), ("search", "tiny"), ("config", "show")):
        done = forked(command, environment, tmp_path)
        said += done.stdout + done.stderr
    said += repr([*config(resolve(environment)), *network.hub(resolve(environment).settings)])  # what the doctor says
    assert hub.url in said and "s3c" not in said and "ret@" not in said
    sent = {each.headers.get("authorization") for each in hub.requests if each.server == "hub"}
    assert sent == {"Basic " + base64.b64encode(b"user:{s3c@ret").decode()}
    assert "s3c" not in repr(Settings.from_environment(environment))


@pytest.mark.parametrize(
    "text",
    [
        "http://u:s3cret@127.0.0.1:9",
        "u:s3cret@host",
        "ftp://u:s3cret@host",
        "http://u:s3cret@[bad",
        pytest.param("https://u:s3@cret@h/x", marks=pytest.mark.long),
    ],
)
def test_a_password_in_an_address_that_cannot_be_used_is_not_shown(tmp_path: Path, text: str, forked: Run) -> None:
    environment = clean_environment(tmp_path) | {"HF_ENDPOINT": text, "NO_PROXY": "*"}
    for command in (("pull", REPO), ("search", "x"), ("config", "show"), ("pull", text)):
        done = forked(command, environment, tmp_path)
        assert "cret" not in done.stdout + done.stderr
    found = [*config(resolve(environment)), *network.hub(resolve(environment).settings)]
    assert "cret" not in repr(found)  # what the doctor says


def test_an_error_never_holds_a_password() -> None:
    error = SquishError("https://a:b@c/d and socks5://e:f@g:1 and a@b", hint="http://h:i@j")
    assert (error.message, error.hint) == ("https://c/d and socks5://g:1 and a@b", "http://j")
    assert str(InvalidInput("x://y:z@w")) == "x://w"


LOGIN = """
import sys
from pathlib import Path
from squish.config.settings import Settings
from squish.hub.token import token

file, settings = Path(sys.argv[1]), Settings(home=Path(), cache_dir=Path())
print(token(settings))
file.parent.mkdir(parents=True, exist_ok=True)
for written in (b"hf_login\\n", b"\\xef\\xbb\\xbfhf_marked\\r\\n", b"hf\\xff\\n"):
    file.write_bytes(written)
    print(token(settings))
"""


@pytest.mark.parametrize(
    ("variables", "file"),
    [
        ({}, ".cache/huggingface/token"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/huggingface/token"),
        ({"XDG_CACHE_HOME": "xdg", "HF_HOME": "hf"}, "hf/token"),
        ({"HF_HOME": "hf", "HF_TOKEN_PATH": "secret"}, "secret"),
    ],
)
def test_the_token_of_a_login_is_found(tmp_path: Path, variables: dict[str, str], file: str) -> None:
    set_to = {name: str(tmp_path / value) for name, value in variables.items()}
    environment = {"HOME": str(tmp_path)} | set_to
    command = [sys.executable, "-c", LOGIN, str(tmp_path / file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    before, *found, cannot_be_carried = done.stdout.split()
    assert (before, found) == ("None", ["hf_login", "hf_marked"])
    assert cannot_be_carried == "None", "nothing that a header cannot carry"


@pytest.mark.parametrize("name", [f"org/{'x' * 100}", "org/a--b", "org/a..b"])
def test_a_name_that_no_repository_can_have_is_not_asked_for(hub: LocalHub, settings: Settings, name: str) -> None:
    for call in (Hub(settings).snapshot, Hub(settings).card):
        with pytest.raises(ModelNotFound):
            asyncio.run(call(name))
    assert not hub.requests


def test_a_call_that_is_cancelled_leaves_no_thread_that_waits(hub: LocalHub, settings: Settings) -> None:
    hub.fault("api", Fault(hold_after=0))

    async def stopped() -> None:
        call = asyncio.create_task(Hub(settings).snapshot(REPO))
        while not hub.requests:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(stopped())
    assert not hub.released.is_set(), "the Hub still holds its answer back"


def test_the_library_reaches_the_hub_through_us_only(hub: LocalHub, settings: Settings) -> None:
    ask(settings, "search")
    asked = len(hub.requests)
    with pytest.raises(httpx2.UnsupportedProtocol):
        HfApi(hub.url, token=GOOD_TOKEN).model_info(REPO)
    assert len(hub.requests) == asked


def test_the_doctor_does_not_wait_for_a_hub_that_drips(
    hub: LocalHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squish.hub.client.DOCTOR_DEADLINE", 1.0)
    hub.fault("api", Fault(drip="body"))
    [finding] = network.hub(settings)
    assert finding.status == "warning" and "did not answer" in finding.reason
