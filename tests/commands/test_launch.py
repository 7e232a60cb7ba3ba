"""`squish launch`: a program gets what it needs to use a model, for one run, and nothing of the user's is changed."""

from __future__ import annotations

import json
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from squish.api.clients.keys import ApiKey, KeyFile
from squish.commands.programs import PROGRAMS, Use, written
from tests.commands.test_serve import serving
from tests.conftest import EMBEDDING_MODEL, MODEL, clean_environment

Squish = Callable[..., "subprocess.CompletedProcess[str]"]
TARGET = Use("http://localhost:11435", "the-key", "org/model:1b", 32_768)


def program(folder: Path, name: str, body: str) -> str:
    """A program of that name; the PATH on which it comes first."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, urllib.request\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"{path.parent}:{Path(sys.executable).parent}:/usr/bin:/bin"


@contextmanager
def elsewhere(models: Any, key: str = "k") -> Iterator[str]:
    """The address of a server that says it has these models."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["authorization"] == f"Bearer {key}"
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(json.dumps(models).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_gets_the_address_the_model_and_the_key_and_no_key_where_others_read_it(name: str) -> None:
    setup = PROGRAMS[name].setup(TARGET)
    files, flags = written(setup, Path("/tmp/x"))
    everything = json.dumps([dict(setup.variables), flags, {str(path): text for path, text in files.items()}])
    assert TARGET.url in everything
    assert TARGET.model in everything
    assert TARGET.key in everything
    assert not any(TARGET.key in flag for flag in flags)  # other users see what a process was started with


def test_what_would_be_set_is_a_script_that_sets_it(squish: Squish, tmp_path: Path) -> None:
    path = program(tmp_path, "claude", "print(json.dumps([sys.argv[1:], dict(os.environ)]))")
    printed = squish("launch", "claude", "--model", MODEL, "--print", "--", "-p", "a b", SQUISH_API_KEY="secret")
    assert printed.returncode == 0
    assert "secret" not in printed.stdout
    ran = subprocess.run(
        ["/bin/sh", "-c", printed.stdout], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PATH": path, "SQUISH_API_KEY": "secret", "ANTHROPIC_API_KEY": "the user's"},
    )  # fmt: skip
    arguments, environment = json.loads(ran.stdout)
    assert arguments == ["-p", "a b"]
    assert environment["ANTHROPIC_AUTH_TOKEN"] == "secret"
    assert environment["ANTHROPIC_BASE_URL"] == "http://localhost:11435"
    assert "ANTHROPIC_API_KEY" not in environment


def test_files_that_would_be_written_are_printed_too(squish: Squish) -> None:
    printed = squish("launch", "aider", "--model", MODEL, "--print").stdout
    text = re.search(r'cat > "\$SQUISH_LAUNCH/model-settings-file.json" <<END\n(.*?)\nEND\n', printed, re.DOTALL)
    assert text
    assert json.loads(text[1])[0]["name"] == f"openai/{MODEL}"
    last = shlex.split(printed.splitlines()[-1])
    assert last[:3] == ["aider", "--model-settings-file", "$SQUISH_LAUNCH/model-settings-file.json"]


def test_the_printed_lines_write_over_no_file_where_they_are_run(squish: Squish, tmp_path: Path) -> None:
    path = program(tmp_path, "cn", 'print(json.load(open(sys.argv[2]))["models"][0]["model"], sys.argv[3:])')
    (tmp_path / "config.yaml").write_text("mine")
    printed = squish("launch", "cn", "--model", MODEL, "--print", "--", "-p", "$HOME", TMPDIR=str(tmp_path)).stdout
    environment = {"PATH": path, "TMPDIR": str(tmp_path)}
    command = ["/bin/sh", "-c", printed]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert ran.stdout == f"{MODEL} ['-p', '$HOME']\n"
    assert (tmp_path / "config.yaml").read_text() == "mine"


def test_a_program_is_run_with_all_that_and_its_exit_code_is_ours(
    squish: Squish, tmp_path: Path, environment: dict[str, str]
) -> None:
    before = sorted(Path(environment["HOME"]).glob("*"))
    body = """
files = {flag: open(sys.argv[sys.argv.index(flag) + 1]).read() for flag in sys.argv if flag.endswith("-file")}
print(json.dumps([sys.argv[1:], os.environ["OPENAI_API_BASE"], os.environ["NO_PROXY"], files]))
sys.exit(7)"""
    path = program(tmp_path, "aider", body)
    with elsewhere({"data": [{"id": "other:1b"}]}) as url:
        options = ("--url", url, "--", "--message", "hi")
        done = squish("launch", "aider", *options, PATH=path, HTTP_PROXY="http://proxy:1", SQUISH_API_KEY="k")
    assert done.returncode == 7
    arguments, base, no_proxy, files = json.loads(done.stdout)
    assert (base, arguments[-2:]) == (f"{url}/v1", ["--message", "hi"])
    assert "localhost" in no_proxy
    assert json.loads(files["--model-settings-file"])[0]["name"] == "openai/other:1b"
    assert not any(Path(each).exists() for each in arguments if each.endswith(".json"))
    assert sorted(Path(environment["HOME"]).glob("*")) == before


def test_where_no_server_runs_one_does_for_as_long_as_the_program(
    squish: Squish, tmp_path: Path, real_home: Path
) -> None:
    own = clean_environment(tmp_path) | {"SQUISH_CACHE_DIR": str(real_home / ".squish" / "models")}
    KeyFile(Path(own["HOME"]) / ".squish").add(ApiKey(name="alice", hash=""))  # so that a server asks for a key
    body = """
headers = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
asked = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/models", headers=headers)
with urllib.request.urlopen(asked) as answer:
    print(os.environ["OPENAI_MODEL"], json.load(answer)["data"][0]["id"])"""
    done = squish("launch", "qwen", "--model", MODEL, **own | {"PATH": program(tmp_path, "qwen", body)})
    assert done.stdout.split() == [MODEL, MODEL], done.stderr
    assert "No server is running; one starts for this run" in done.stderr
    assert "cannot call tools" in done.stderr  # this model, and Qwen Code needs them
    assert squish("ps", **own).stdout == ""


def test_a_server_that_runs_is_used_with_its_key(squish: Squish, tmp_path: Path, environment: dict[str, str]) -> None:
    path = program(tmp_path, "qwen", 'print(os.environ["OPENAI_BASE_URL"])')
    with serving(environment | {"SQUISH_API_KEY": "k"}, tmp_path / "log") as (process, url):
        done = squish("launch", "qwen", "--model", MODEL, PATH=path, SQUISH_API_KEY="k")
        other = squish("launch", "qwen", "--model", MODEL, PATH=path, SQUISH_API_KEY="wrong")
        process.terminate()
    assert done.stdout.strip() == f"{url}/v1"
    assert (other.returncode, "wants another key" in other.stderr, other.stdout) == (1, True, "")


def test_what_is_wrong_is_a_sentence(squish: Squish, tmp_path: Path) -> None:
    nowhere = {"PATH": "/usr/bin:/bin"}
    missing = squish("launch", "codex", "--model", MODEL, **nowhere)
    assert missing.returncode == 1
    assert "npm install -g @openai/codex" in missing.stderr
    unknown = squish("launch", "emacs")
    assert (unknown.returncode, "claude, codex" in unknown.stderr) == (2, True)
    path = program(tmp_path, "codex", "")
    for options, code, word in (
        (("--model", "none:1b"), 3, "none:1b is not installed"),
        (("--url", "http://127.0.0.1:1"), 1, "No Squish server answers"),
        (("--url", "ftp://mac", "--model", "m"), 2, "ftp://mac"),
        (("--url", "http://[", "--model", "m"), 2, "address"),
    ):
        done = squish("launch", "codex", *options, PATH=path)
        assert (done.returncode, word in done.stderr) == (code, True), done.stderr


def test_no_program_chats_with_an_embedding_model(squish: Squish, embedding_home: Path) -> None:
    alone = squish("launch", "claude", "--print", HOME=str(embedding_home))
    assert (alone.returncode, "No chat model is installed" in alone.stderr) == (3, True), alone.stderr
    named = squish("launch", "claude", "--print", "--model", EMBEDDING_MODEL, HOME=str(embedding_home))
    assert (named.returncode, "is an embedding model" in named.stderr) == (2, True), named.stderr


def test_a_server_elsewhere_is_asked_what_it_has(squish: Squish, tmp_path: Path) -> None:
    path = program(tmp_path, "codex", "")
    cases = (
        ({"data": [{"id": "a:1b"}, {"id": "b:1b"}]}, (), "k", 2, "a:1b, b:1b"),
        ({"data": [{"id": "a:1b"}]}, ("--model", "c:1b"), "k", 3, "It has: a:1b"),
        ({"data": [{"id": "a:1b"}]}, ("--model", "a:1b"), "wrong", 1, "SQUISH_API_KEY"),
        (["no list"], ("--model", "a:1b"), "k", 1, "No Squish server answers"),
    )
    for models, options, key, code, word in cases:
        with elsewhere(models) as url:
            done = squish("launch", "codex", "--url", url, *options, PATH=path, SQUISH_API_KEY=key)
        assert (done.returncode, word in done.stderr) == (code, True), done.stderr


def test_the_programs_are_listed(squish: Squish) -> None:
    listed = squish("launch", PATH="/usr/bin:/bin")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in PROGRAMS)
    assert "not installed: npm install -g opencode-ai" in listed.stdout
