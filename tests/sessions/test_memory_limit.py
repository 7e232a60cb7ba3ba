"""A process that gets too little memory, or may start no other one, says so and ends."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys

import pytest

from squish.cli import run_guarded
from squish.ipc.limits import is_of_processes
from tests.conftest import MODEL, PATIENCE, SQUISH


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not hold processes to ulimit -v")
@pytest.mark.parametrize(
    "kilobytes", [300_000, *(pytest.param(each, marks=pytest.mark.long) for each in (500_000, 700_000, 850_000))]
)
def test_a_limit_on_memory_is_named(environment: dict[str, str], kilobytes: int) -> None:
    command = ["sh", "-c", f'ulimit -v {kilobytes}; exec "$@"', "sh", SQUISH, "run", MODEL, "--prompt", "Say hi."]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    if kilobytes > 300_000 and done.returncode == 0:  # how much is enough differs between machines
        assert done.stdout.strip()
        return
    assert done.returncode == 1, done.stdout
    assert "memory" in done.stderr.lower()


def test_the_program_itself_says_that_memory_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        raise MemoryError

    assert run_guarded(body) == 1
    assert "There is not enough memory." in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")]
)
def test_a_limit_on_processes_is_named(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    """Of a thread as of a process, for the words of Python and of the system say nothing to most."""

    def body() -> None:
        raise error

    assert run_guarded(body) == 1
    said = capsys.readouterr().err
    assert "No more processes or threads can be started." in said
    assert "unexpected" not in said
    most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    assert (f"{most:,} are allowed for this user: see ulimit -u" in said) == (most != resource.RLIM_INFINITY)


def test_other_errors_are_not_taken_for_that_limit() -> None:
    for other in (RuntimeError("no"), OSError(errno.ENOSPC, "No space left on device"), ValueError("can't start")):
        assert not is_of_processes(other)
