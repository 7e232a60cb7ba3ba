"""Worker processes without their imports: each is a fork of a process that has done them, and a child of this one.

A worker's imports are 0.2 seconds, to open the tokenizer of a real model as many, and the tests start hundreds. Where a
fork would not be as a started one, because it has other variables, other limits or an engine of its own, it is started.
The programs that the tests start, start their workers; what a worker imports and how much memory it takes is tested
with those. Programs that are forks themselves (forked.py) have forked workers too.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import inspect
import json
import os
import pkgutil
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self
from unittest.mock import patch

if TYPE_CHECKING:
    from squish.worker.tokenizer.facts import TokenizerFacts

_COMMAND = ("-P", "-m", "squish.worker")
# Variables that a fork takes over, as no import of a worker's reads them. Sanic and mlx-lm set the last two here.
_FOR_THE_FORK = (
    *("HOME", "NO_PROXY", "PYTEST_CURRENT_TEST", "SQUISH_CACHE_DIR", "SQUISH_OFFLINE"),
    *("SANIC_LOG_EXTRA", "TRANSFORMERS_NO_ADVISORY_WARNINGS"),
)
_UNSHARED = ("squish.worker.group", "squish.worker.__main__", "squish.worker.jobs.probe")
_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_SET_CHILD_SUBREAPER = 36
_READ_WHILE_LOADING = ("encodings.utf_8_sig", "psutil")
_FEW = 16  # known tokenizers, in a first run of pytest: each other one is a second of importing transformers
_LARGE = 200_000  # characters of a tokenizer: smaller ones are opened in no time
_LIMITS = {each for name, each in vars(resource).items() if name.startswith("RLIMIT_")} - {resource.RLIMIT_NOFILE}
_EXECUTE: Any = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_SIGNATURE = inspect.signature(_EXECUTE)
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


class Forks:
    """Takes the place of Python where `squish.worker` is started: has forks made of a process that is below this one.

    ours, pid: of that process. environment: what it was started with. compiled: what every worker finds in its cache.
    """

    def __init__(self, ours: socket.socket, pid: int, environment: Mapping[str, str], compiled: Path) -> None:
        self.wanted = True
        self._ours, self._pid = ours, pid
        self._environment = environment
        self._compiled = compiled
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Self:
        def execute(popen: Any, *arguments: Any) -> None:
            asked = _SIGNATURE.bind(popen, *arguments).arguments
            if self.wanted and self._can(asked):
                popen.pid = self._fork(asked)
                popen._child_created = True
                popen._close_pipe_fds(*(asked[name] for name in _PIPES))
            else:
                _EXECUTE(popen, *arguments)

        self._patched = patch.object(subprocess.Popen, "_execute_child", execute)
        self._patched.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patched.stop()
        self._ours.close()
        os.waitpid(self._pid, 0)

    def _can(self, asked: Mapping[str, Any]) -> bool:
        """Whether this starts a worker, and one that differs in nothing from a fork."""
        command = asked["args"]
        if isinstance(command, str | bytes | os.PathLike) or tuple(command[1:4]) != _COMMAND:
            return False
        return (
            command[0] == sys.executable
            and self._same_environment(asked["env"])
            and self._same_limits()
            and self._same_engines(Path(command[5]))
        )

    def _same_environment(self, environment: Mapping[str, str]) -> bool:
        everything = {**self._environment, **environment}
        read = (name for name in everything if name not in _FOR_THE_FORK)
        return all(self._environment.get(name) == environment.get(name) for name in read)

    def _same_limits(self) -> bool:
        """All but that of open files, which a fork takes over: mlx-lm lowers it where it is imported, as by tests."""
        same = all(resource.getrlimit(each) == resource.prlimit(self._pid, each) for each in _LIMITS)
        return same and os.sched_getaffinity(0) == os.sched_getaffinity(self._pid)

    def _same_engines(self, cache: Path) -> bool:
        return all((cache / each.name).resolve() == each.resolve() for each in self._compiled.iterdir())

    def _fork(self, asked: Mapping[str, Any]) -> int:
        [channel] = asked["pass_fds"]
        told = {
            "cache": asked["args"][5],
            "environment": dict(asked["env"]),
            "folder": str(Path.cwd()),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        }
        streams = [asked["p2cread"], asked["c2pwrite"], asked["errwrite"], channel]
        with self._one_at_a_time, _parent_of_orphans():
            socket.send_fds(self._ours, [json.dumps(told).encode() + b"\n"], streams)
            return int(self._ours.recv(20))


class ForkedWorkers(Forks):
    """Forks of a process that is started for it. shelf: where it stands what is known of tokenizers; of those, forks

    find the large ones opened.
    """

    def __init__(self, compiled: Path, shelf: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", __file__, str(theirs.fileno()), str(compiled), str(shelf)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True
            )
        super().__init__(ours, self._process.pid, dict(os.environ), compiled)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._process.returncode = 0


@contextmanager
def _parent_of_orphans() -> Iterator[None]:
    """While it is entered, a descendant whose parent ends is a child of this process."""
    _LIBC.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _LIBC.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


_LIBC = ctypes.CDLL(None)


# ---- the process that the workers are forks of


def _serve(ours: socket.socket, tokenizers: Tokenizers) -> tuple[dict[str, Any], list[int]]:
    """Fork for every request; returns in the forks, which become it. Ends this process when nobody asks any more."""
    while True:
        asked, descriptors, _, _ = socket.recv_fds(ours, 1 << 20, 4)
        if not asked:
            os._exit(0)
        while not asked.endswith(b"\n"):
            asked += ours.recv(1 << 20)
        tokenizers.open_new()
        assert len(os.listdir("/proc/self/task")) == 1, "a fork would have one thread of several"  # noqa: PTH208
        known, telling = os.pipe()
        between = os.fork()
        if not between:
            worker = os.fork()
            if not worker:
                os.close(known)
                os.close(telling)
                return json.loads(asked), descriptors
            os.write(telling, b"%-20d" % worker)
            os._exit(0)
        os.waitpid(between, 0)  # only then is the worker the child of who has asked
        ours.send(os.read(known, 20))
        for each in (known, telling, *descriptors):
            os.close(each)


def _become(asked: dict[str, Any], descriptors: list[int]) -> None:
    """Take over a worker's arguments, environment, folder, streams and session."""
    os.setsid()
    *streams, channel = descriptors
    sys.argv = ["squish.worker", str(channel), asked["cache"]]
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    resource.prlimit(0, resource.RLIMIT_NOFILE, tuple(asked["files"]))
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])


def import_worker(compiled: Path) -> None:
    """What workers import, in the order in which they do."""
    from squish.format import arguments
    from squish.worker import descriptors
    from squish.worker.cpu import blas, install

    descriptors.keep_limit()
    install.prepare(compiled)
    from squish.worker.model import imports

    imports.prepare()
    import squish.worker

    for found in pkgutil.walk_packages(squish.worker.__path__, "squish.worker."):
        if not found.name.startswith(_UNSHARED):
            importlib.import_module(found.name)
    for each in _READ_WHILE_LOADING:
        importlib.import_module(each)
    for each in _ARCHITECTURES:
        importlib.import_module(f"mlx_lm.models.{each}")
        arguments.of_module(each)
        arguments.of_text(each, None)
    patch.object(blas, "prepare", _without_mlx(blas.prepare)).start()


def _without_mlx(prepare: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """The same where MLX seems not to be imported yet: the library that was opened before it is the one it has."""

    def prepare_again(cache: Path) -> Any:
        with patch.dict(sys.modules):
            del sys.modules["mlx.core"]
            return prepare(cache)

    return prepare_again


class Tokenizers:
    """Opens a large tokenizer that is in use once; each fork has it as if it had opened it, the first time it does."""

    def __init__(self, shelf: Path) -> None:
        from squish.worker.tokenizer import facts, opening

        self._shelf, self._reads = shelf, facts.Shelf(shelf)
        self._open = opening.open_directly
        self._since = time.time()
        self._seen: set[str] = set()
        self._opened: list[tuple[TokenizerFacts, Any]] = []
        patch.object(opening, "open_directly", self._hand_over).start()
        patch.object(facts, "_KEPT", 1000).start()  # the tests make up more than a user has

    def open_new(self) -> None:
        """Those that somebody has used since. The library starts no threads for it; forks have their own variables."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        for name in {each.name for each in self._shelf.glob("[!.]*")} - self._seen:
            with suppress(FileNotFoundError):  # others remove what they have not used for long
                if (self._shelf / name).stat().st_mtime >= self._since:  # the shelf notes what is used
                    self._seen.add(name)
                    self._open_large(self._reads.find(name))

    def _open_large(self, facts: TokenizerFacts | None) -> None:
        if facts and facts.direct and len(facts.backend) > _LARGE:
            self._opened.append((facts, self._open(facts)))
            gc.freeze()

    def _hand_over(self, facts: TokenizerFacts) -> Any:
        for i, (known, _) in enumerate(self._opened):
            if known == facts:
                return self._opened.pop(i)[1]
        return self._open(facts)


def serve(ours: socket.socket, tokenizers: Tokenizers) -> NoReturn:
    """Fork for every request until nobody asks any more."""
    asked, descriptors = _serve(ours, tokenizers)
    ours.close()
    _become(asked, descriptors)
    from squish.worker.__main__ import main

    main()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    gc.disable()
    import_worker(Path(sys.argv[2]))
    if sum(1 for _ in Path(sys.argv[3]).iterdir()) < _FEW:
        _ = importlib.import_module("transformers").AutoTokenizer
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])), Tokenizers(Path(sys.argv[3])))
