"""`squish serve` as a user meets it: what it says, how it ends, what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from squish.api import openapi
from squish.api.errors import BY_CODE
from squish.config.settings import Settings
from tests.conftest import MODEL, PATIENCE, SQUISH

Run = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def serving(
    environment: dict[str, str], log: Path, *arguments: str, by: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server on a free port, and its address. It has to have ended, well, when the block is over.

    by: the command that starts it.
    """
    with log.open("wb") as stderr:
        command = [*by, SQUISH, "serve", "--port", "0", *arguments]
        process = subprocess.Popen(command, env=environment, stderr=stderr)
    try:
        while not (found := re.search(r"at (http://\S+)/v1", log.read_text(encoding="utf-8"))):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.02)
        yield process, found[1].replace("0.0.0.0", "127.0.0.1")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def get(url: str, data: bytes | None = None, **headers: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=PATIENCE) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_who_starts_it_with_ctrl_c_ignored_does_not_end_it_so(environment: dict[str, str], tmp_path: Path) -> None:
    """As shells do with what a script puts in the background."""
    ignoring = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
    with serving(environment, tmp_path / "log", by=ignoring) as (process, url):
        process.send_signal(signal.SIGINT)
        assert get(f"{url}/ready")[0] == 200
        if (status := Path(f"/proc/{process.pid}/status")).exists():
            [ignored] = re.findall(r"SigIgn:\s*(\w+)", status.read_text())
            assert int(ignored, 16) & 1 << signal.SIGINT - 1
        process.terminate()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGINT])
def test_a_signal_ends_it_well(environment: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    with serving(environment, log) as (process, url):
        assert get(f"{url}/health") == (200, {"status": "ok"})
        process.send_signal(number)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert re.match(r"Squish serves \d+ models? at http://127\.0\.0\.1:", lines[0])
    assert re.search(r"INFO    127\.0\.0\.1 GET /health 200 \d+ ms req_\w+$", lines[1])
    assert lines[-1].startswith("Stopping")


def test_a_preloaded_model_answers_a_request_that_a_signal_meets(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(environment, log, MODEL, "--keep-alive", "-1") as (process, url):
        body = {"model": MODEL, "prompt": "The sky is", "max_tokens": 20}
        request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body | {"stream": True}).encode())
        with urllib.request.urlopen(request, timeout=PATIENCE) as stream:
            assert stream.readline().startswith(b": ")
            process.send_signal(signal.SIGTERM)
            assert stream.read().endswith(b"data: [DONE]\n\n")
    text = log.read_text(encoding="utf-8")
    assert f"{MODEL} is loaded: " in text
    assert "completion=" in text
    assert "The sky is" not in text


def test_a_key_file_and_an_open_address(environment: dict[str, str], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("  secret-key \n", encoding="utf-8")
    key.chmod(0o600)
    log = tmp_path / "log"
    with serving(environment, log, "--host", "0.0.0.0", "--api-key-file", str(key)) as (process, url):
        assert get(f"{url}/v1/models")[0] == 401
        assert get(f"{url}/v1/models", authorization="Bearer secret-key")[0] == 200
        process.terminate()
    assert "secret-key" not in log.read_text(encoding="utf-8")
    assert "WARNING" not in log.read_text(encoding="utf-8")
    with serving(environment, log, "--host", "0.0.0.0", "--log-level", "warning") as (process, url):
        get(f"{url}/health")
        process.terminate()
    assert "WARNING: anyone who can reach 0.0.0.0 may use this server" in log.read_text(encoding="utf-8")
    assert "/health" not in log.read_text(encoding="utf-8")


def test_a_model_that_cannot_be_loaded_ends_the_server_and_nobody_is_cut_off(
    environment: dict[str, str], tmp_path: Path, real_home: Path
) -> None:
    home = tmp_path / "home"
    name = "smollm2+135m"
    shutil.copytree(real_home / ".squish" / "models" / name, home / ".squish" / "models" / name)
    weights = home / ".squish" / "models" / name / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        command = [SQUISH, "serve", MODEL, "--port", "0"]
        process = subprocess.Popen(command, env=environment | {"HOME": str(home)}, stderr=stderr)
    try:
        while not (found := re.search(r"requests to (http://\S+) wait", log.read_text(encoding="utf-8"))):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.02)
        assert get(f"{found[1]}/health") == (200, {"status": "ok"})
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        status, answer = get(f"{found[1]}/v1/chat/completions", json.dumps(body).encode())
        assert (status, answer["error"]["code"]) == (503, "server_ending")
        assert "model.safetensors" in answer["error"]["message"]
        assert process.wait(PATIENCE) == 1
    finally:
        process.kill()
        process.wait()
    text = log.read_text(encoding="utf-8")
    assert "squish: model.safetensors of smollm2:135m is damaged." in text
    assert "Squish serves" not in text
    assert "Traceback" not in text


def test_pages_of_every_origin_without_a_key_are_warned_of(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    for key, warned in ((None, True), ("secret-key", False)):
        with serving(environment | ({"SQUISH_API_KEY": key} if key else {}), log, "--cors-origin", "*") as (process, _):
            process.terminate()
        assert ("WARNING: every web page" in log.read_text(encoding="utf-8")) is warned


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("nothing:1b",), 3, "nothing:1b is not installed."),
        (("--host", "no.such.host.invalid"), 2, "The host 'no.such.host.invalid' cannot be resolved."),
        (("--host", " "), 2, "The host to listen on is empty."),
        (("--host", "203.0.113.7"), 2, "This machine does not have the address 203.0.113.7."),
        (("--port", "70000"), 2, "70000 is not in the range"),
        (("--port", "abc"), 2, "'abc' is not a whole number. Write one from 0 to 65535."),
        (("--api-key-file", "/no/such/file"), 2, "The key file /no/such/file cannot be read"),
        (("--api-key-file", "/dev/null"), 2, "The key file /dev/null holds no usable key."),
        (("--cors-origin", "app.example"), 2, "'app.example' is not a web origin."),
        (("--cors-origin", "http://*.example.com"), 2, "a part of an origin cannot be *"),
        (("--keep-alive", "soon"), 2, "'soon' is not a time."),
        (("--max-queue", "-1"), 2, "-1 is not in the range"),
        (("--log-level", "loud"), 2, "'loud' is not one of"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_one_sentence(
    squish: Run, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    done = squish("serve", *arguments)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_port_that_is_taken(squish: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = squish("serve", "--port", port)
    assert (done.returncode, f"Port {port} on 127.0.0.1 is already in use." in done.stderr) == (2, True)


def test_the_document_is_printed(squish: Run) -> None:
    done = squish("serve", "--print-openapi")
    assert (done.returncode, done.stdout) == (0, openapi.document())


def test_the_help_tells_the_defaults_of_the_code(squish: Run, tmp_path: Path) -> None:
    text = " ".join(squish("serve", "--help").stdout.partition("Options:")[2].split())
    defaults = Settings(home=tmp_path, cache_dir=tmp_path)
    for option in ("host", "port", "max_queue", "max_concurrency", "keep_alive"):
        value = getattr(defaults, option)
        shown = f"{value:g}" if isinstance(value, float) else value
        described = text.partition(f"--{option.replace('_', '-')} ")[2].partition(" --")[0]
        assert f"[default: {shown}]" in described


def test_the_page_of_the_server_tells_every_route_status_and_option(squish: Run) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "server.md").read_text(encoding="utf-8")
    for path in openapi.openapi()["paths"]:
        assert f"{path}`" in page
    for status in {wire.status for wire in BY_CODE.values()} | {401, 403, 408, 413, 415, 417, 500, 503}:
        assert f"| {status} |" in page
    for option in re.findall(r"--[a-z][a-z-]+", squish("serve", "--help").stdout):
        assert option == "--help" or f"`{option}" in page
