"""What a worker imports on its way to the first token. Counts stand for seconds: they are the same on every machine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from squish.generation import ChatPrompt, Finished, Message, SamplingParams, TextDelta
from squish.ipc import frames
from squish.ipc.frames import Events, Failed, FromWorker, Generate, Load
from squish.models.store import Store
from tests.conftest import MODEL, clean_environment

MOST_MODULES = 500
SHELF = ".squish/cache/tokenizers"
UNWANTED = {
    *("transformers", "huggingface_hub", "torch", "tensorflow", "jax", "scipy", "sklearn", "pandas", "sentencepiece"),
    *("tiktoken", "regex", "requests", "httpx", "httpcore", "urllib3", "aiohttp", "yaml", "tqdm", "safetensors", "PIL"),
    *("datasets", "asyncio", "sqlite3", "click", "rich", "textual", "sanic"),
}

PROGRAM = """\
import json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))  # as low as they are anywhere; no worker may ask for more
sys.argv = ["worker", *sys.argv[1:]]
try:
    import squish.worker.__main__
    squish.worker.__main__.main()
finally:
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, 256)
    print(json.dumps(sorted(sys.modules)))
"""


def work(home: Path) -> tuple[str, set[str]]:
    """The answer of a worker of its own to a question, and the modules that it had imported when it ended."""
    store = Store(home / ".squish" / "models")
    ours, theirs = socket.socketpair()
    cache = home / ".squish" / "cache"
    command = [sys.executable, "-P", "-c", PROGRAM, str(theirs.fileno()), str(cache)]
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, pass_fds=(theirs.fileno(),), env=clean_environment(home)
        ) as process,
        ours,
    ):
        theirs.close()
        ours.sendall(frames.encode(Load(str(store.find(MODEL).path), cpu_precision="float32")))
        chat = ChatPrompt((Message("user", "What is the capital of Germany?"),))
        ours.sendall(frames.encode(Generate(1, (chat,), SamplingParams(temperature=0, max_tokens=8))))
        text = ""
        with ours.makefile("rb") as stream:
            finished = False
            while not finished:
                frame = receive(stream.read)
                assert not isinstance(frame, Failed), frame
                for _, event in frame.items if isinstance(frame, Events) else ():
                    text += event.text if isinstance(event, TextDelta) else ""
                    finished = finished or isinstance(event, Finished)
            ours.shutdown(socket.SHUT_RDWR)
        assert process.stdout
        modules = set(json.loads(process.stdout.read().splitlines()[-1])) - {"squish.worker.__main__"}  # else __main__
    return text, modules


def receive(read: object) -> FromWorker:
    assert callable(read)
    return frames.decode_from_worker(read(frames.body_length(read(frames.HEADER.size))))


@pytest.fixture(scope="module")
def home(real_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of its own, with the model and what pulling it left in the cache."""
    copy = tmp_path_factory.mktemp("cold") / "home"
    shutil.copytree(real_home, copy, symlinks=True)
    shelf = copy / SHELF
    shelf.unlink()  # it is a link to that of other homes
    shutil.copytree(real_home / SHELF, shelf)
    return copy


@pytest.mark.parametrize("module", ["squish.worker.__main__", "squish.worker.jobs.probe"])
def test_no_process_imports_mlx_before_it_has_chosen_a_blas(module: str) -> None:
    """Else matrix products take ten times as long, and doctor says so of a machine that has nothing wrong."""
    code = f"import sys, {module}; print('mlx.core' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture(scope="module")
def worked(home: Path) -> tuple[str, set[str]]:
    return work(home)


def test_the_first_token_needs_few_modules_and_no_transformers(worked: tuple[str, set[str]]) -> None:
    text, modules = worked
    assert "Berlin" in text
    assert {name.partition(".")[0] for name in modules} & UNWANTED == set()
    assert len(modules) <= MOST_MODULES


@pytest.mark.long  # test_opening.py compares what is found out, tokenizer by tokenizer
def test_without_what_was_found_out_before_the_answer_is_the_same(worked: tuple[str, set[str]], home: Path) -> None:
    shelf = home / SHELF
    kept = {path.name: path.read_bytes() for path in shelf.iterdir()}
    assert kept
    shutil.rmtree(shelf)
    shelf.mkdir()
    again, modules = work(home)
    assert again == worked[0]
    assert "transformers" in modules
    [found] = shelf.iterdir()
    assert kept[found.name] == found.read_bytes()
