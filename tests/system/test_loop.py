"""Threads of our loop work as asyncio's own do, and keep no program alive."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref

import pytest

from squish.download import resolver
from squish.system import loop
from squish.system.loop import Threads

STUCK = """
import asyncio, threading
from squish.download import resolver
from squish.system import loop

loop.PATIENCE = 0.05

async def main():
    asyncio.ensure_future(asyncio.to_thread(threading.Event().wait))
    await asyncio.sleep(0)
    print("left", flush=True)

{run}(main())
"""


@pytest.mark.parametrize("run", ["loop.run", "resolver.run"])
def test_a_thread_that_is_stuck_does_not_keep_the_program_alive(run: str) -> None:
    done = subprocess.run([sys.executable, "-c", STUCK.format(run=run)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


def test_what_was_begun_is_done_before_the_program_ends() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        begun.set()
        go_on.wait()
        done.append("done")

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, work)
        while not begun.is_set():
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_soon(go_on.set)  # the loop is still running while it ends

    loop.run(main())
    assert done == ["done"]


def test_results_errors_and_cancelled_work_are_as_with_the_standard_pool() -> None:
    async def main() -> None:
        names = await asyncio.gather(*(asyncio.to_thread(str, number) for number in range(100)))
        assert names == [str(number) for number in range(100)]
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    resolver.run(main())
    pool, gate, kept = Threads(), threading.Event(), set[int]()
    waiting = [pool.submit(gate.wait) for _ in range(pool._most)]
    late = pool.submit(kept.add, 1)
    assert len(pool._started) == pool._most and late.cancel()
    gate.set()
    assert all(each.result() for each in waiting)
    large = {1, 2, 3}
    seen = weakref.ref(large)
    assert pool.submit(len, large).result() == 3 and len(pool._started) == pool._most
    pool.shutdown()
    del large
    gc.collect()
    assert not kept and seen() is None and not any(each.is_alive() for each in pool._started)
    with pytest.raises(RuntimeError):
        pool.submit(print)
