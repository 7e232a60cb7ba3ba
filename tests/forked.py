"""The program without its imports: each run is a fork of a process that has done them.

`squish list` is 0.2 seconds of imports and nothing else, and the tests run it hundreds of times. A run has its own
process, environment, folder and streams as if it had been started, and ends as the console script does. What imports
what, what a closed stream does and what a kill leaves behind is tested with processes that are started.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_UNSHARED = ("squish.worker", "squish.__main__", "squish.tui", "squish.api", "squish.bench")
_READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "SQUISH_TEST_")


class Forked:
    """Runs of the program. One at a time; `close` ends the process that they are forks of.

    worker: where it stands what workers have compiled and what is known of tokenizers; then the workers of the program
    are forks too.
    """

    def __init__(self, environment: Mapping[str, str], worker: Sequence[Path] = ()) -> None:
        self._environment = dict(environment)
        self._ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", __file__, str(theirs.fileno()), *map(str, worker)]
            self._process = subprocess.Popen(command, env=self._environment, pass_fds=(theirs.fileno(),))

    def can(self, environment: Mapping[str, str]) -> bool:
        """Whether a run in this environment would differ in nothing that Python or the loader reads when it starts."""
        everything = {**self._environment, **environment}
        read = (name for name in everything if name.startswith(_READ_AT_START))
        return all(self._environment.get(name) == environment.get(name) for name in read)

    def run(
        self, command: list[str], environment: Mapping[str, str], folder: str | Path, stdin: bytes, patience: float
    ) -> subprocess.CompletedProcess[str]:
        """The command, run to its end. Raises TimeoutExpired; the program is then killed."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            given.write(stdin)
            given.seek(0)
            asked = {"argv": command, "environment": dict(environment), "folder": str(folder)}
            ended, told = os.pipe()
            with open(ended, "rb", buffering=0) as end:  # noqa: PTH123
                streams = [given.fileno(), out.fileno(), error.fileno(), told]
                socket.send_fds(self._ours, [json.dumps(asked).encode() + b"\n"], streams)
                os.close(told)
                program = int(end.read(20))
                if not select.select([end], [], [], patience)[0]:
                    os.kill(program, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(command, patience)
                code = int(end.read(20))
            return subprocess.CompletedProcess(command, code, _text(out), _text(error))

    def close(self) -> None:
        self._ours.close()
        self._process.wait()


def _text(file: Any) -> str:
    """What was written, with the line breaks that subprocess makes of it."""
    file.seek(0)
    text: str = file.read().decode()
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _serve(ours: socket.socket, worker: Worker | None) -> tuple[dict[str, Any], list[int]]:
    """Fork for every command; returns in the forks, which become it. Ends this process when nobody asks any more."""
    while True:
        asked, descriptors, _, _ = socket.recv_fds(ours, 65536, 4)
        if not asked:
            os._exit(0)
        while not asked.endswith(b"\n"):
            asked += ours.recv(65536)
        *streams, told = descriptors
        if worker:
            worker.tokenizers.open_new()
        program = os.fork()
        if not program:
            os.close(told)
            return json.loads(asked), streams
        os.write(told, b"%-20d" % program)
        os.write(told, b"%-20d" % os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]))
        for each in descriptors:
            os.close(each)


def _become(asked: dict[str, Any], streams: list[int]) -> None:
    """Take over the command's arguments, environment, folder and streams, as Python sets them up when it starts."""
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = asked["argv"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        raw = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
        buffer = io.BufferedReader(raw) if number == 0 else io.BufferedWriter(raw)
        stream = io.TextIOWrapper(buffer, before.encoding, before.errors, line_buffering=number == 2)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _leave(code: int) -> None:
    """End as Python does, except that what was imported is not taken apart: 0.15 seconds, in a fork."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _imports() -> None:
    import squish

    for found in pkgutil.walk_packages(squish.__path__, "squish."):
        if not found.name.startswith(_UNSHARED):
            importlib.import_module(found.name)


class Worker:
    """Has done the imports of a worker too: below each program stands a process whose forks are the program's workers.

    environment: what this process was started with.
    """

    def __init__(self, environment: Mapping[str, str], compiled: Path, shelf: Path) -> None:
        forked_workers = importlib.import_module("tests.forked_workers")
        forked_workers.import_worker(compiled)
        self._environment, self._compiled = environment, compiled
        self.tokenizers = forked_workers.Tokenizers(shelf)
        self._serve, self._forks = forked_workers.serve, forked_workers.Forks

    def fork(self, unneeded: list[int]) -> None:
        """In a program that has not begun yet. unneeded: what only the program is to have open."""
        ours, theirs = socket.socketpair()
        below = os.fork()
        if not below:
            for each in (ours.detach(), *unneeded):
                os.close(each)
            self._serve(theirs, self.tokenizers)
        theirs.close()
        forks = self._forks(ours, below, self._environment, self._compiled)
        forks.__enter__()
        atexit.register(forks.__exit__)


if __name__ == "__main__":
    _given = dict(os.environ)
    _worker = Worker(_given, Path(sys.argv[2]), Path(sys.argv[3])) if len(sys.argv) > 2 else None
    _imports()
    gc.freeze()
    _ours = socket.socket(fileno=int(sys.argv[1]))
    _asked, _streams = _serve(_ours, _worker)
    _ours.close()
    if _worker:
        _worker.fork(_streams)
    _become(_asked, _streams)
    from squish.__main__ import main

    try:
        main()
    except SystemExit as _ended:
        if isinstance(_ended.code, int):
            _leave(_ended.code)
        raise
