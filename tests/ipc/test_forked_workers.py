"""That a worker is a fork changes nothing that Squish or a test sees of it."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from squish.config.settings import Settings
from squish.errors import WorkerDied
from squish.ipc.process import Worker
from tests.conftest import _SHELVES, _compiled, share_compiled
from tests.forked_workers import ForkedWorkers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there a process is given to another parent")


def is_fork(worker: Worker) -> bool:
    process = psutil.Process(worker.pid)
    while not (command := process.cmdline()):  # the system shows it a moment after the program has begun
        time.sleep(0.001)
    return "-m" not in command


def seen(worker: Worker) -> tuple[object, ...]:
    process = psutil.Process(worker.pid)
    descriptors = {str(each.readlink()).partition(":")[0] for each in Path(f"/proc/{worker.pid}/fd").iterdir()}
    group = os.getsid(worker.pid) == os.getpgid(worker.pid) == worker.pid
    files = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    return process.ppid(), group, process.cwd(), descriptors, process.num_fds(), process.num_threads(), files


@pytest.fixture
def _fewer_files() -> Iterator[None]:
    """As in a process that has imported mlx-lm."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.prlimit(0, resource.RLIMIT_NOFILE, (soft - 1, hard))
    yield
    resource.prlimit(0, resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def _forks() -> Iterator[None]:
    """A process to fork that is like this one now: what tests before have changed here makes workers be started."""
    with ForkedWorkers(_compiled(), *_SHELVES):
        yield


@pytest.mark.usefixtures("_forks", "_fewer_files")
async def test_a_fork_is_a_child_of_who_started_it_as_a_started_worker_is(real_settings: Settings) -> None:
    workers = [await Worker.spawn(real_settings.worker_cache)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUISH_ANYTHING", "else")
        workers.append(await Worker.spawn(real_settings.worker_cache))
    assert [is_fork(each) for each in workers] == [True, False]
    for each in workers:
        await each._frame()  # it has come as far as to say that it lives
    assert seen(workers[0]) == seen(workers[1])
    for each in workers:
        os.kill(each.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            await each.receive()


async def test_a_worker_with_an_engine_of_its_own_is_started(real_settings: Settings, tmp_path: Path) -> None:
    share_compiled(tmp_path)
    next(tmp_path.glob("kernels-*")).unlink()
    worker = await Worker.spawn(tmp_path)
    assert not is_fork(worker)
    await worker.close()


@pytest.mark.usefixtures("_forks")
async def test_what_a_fork_says_last_is_read(real_settings: Settings) -> None:
    worker = await Worker.spawn(real_settings.worker_cache)
    assert is_fork(worker)
    worker._writer.write(b"no frame" * 10)
    with pytest.raises(WorkerDied, match="ended with exit code 1"):
        while True:
            await worker.receive()
    await worker._stderr.rest()
    assert "Traceback" in worker.stderr
