"""The threads of a worker process: none of them may end while the process lives, and all hear of its end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from squish.errors import EngineError, LoadFailed, SquishError
from squish.ipc.frames import HEARTBEAT, Alive, Failed, ToWorker, WireError
from squish.ipc.limits import is_of_processes, memory_limit, process_limit
from squish.worker.connection import FrameSocket

_EXIT_GRACE = 4.0


def start(channel: FrameSocket, name: str, target: Callable[[], None]) -> None:
    """Run a thread that is needed as long as the process lives: where it fails, the process ends and says why."""

    def run() -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001 - without this thread the process would live on and never answer
            channel.send(Failed(None, WireError.of(failure(error))))
            channel.drain()
            os._exit(1)

    threading.Thread(target=run, name=name, daemon=True).start()


def read(channel: FrameSocket, take: Callable[[ToWorker], None], stop: Callable[[], None]) -> None:
    """The reader thread: hands frames on until the socket closes; then ends the main thread, or else the process."""
    while (frame := channel.receive()) is not None:
        take(frame)
    stop()
    time.sleep(_EXIT_GRACE)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with the compiler that the main thread may be waiting for
    os._exit(1)


def beat(channel: FrameSocket) -> None:
    """The heartbeat's thread."""
    while True:
        channel.send(Alive())
        time.sleep(HEARTBEAT)


def failure(error: BaseException) -> SquishError:
    """What went wrong, where nobody has words for it. Memory that is missing shows itself in more than one way."""
    if isinstance(error, SquishError):
        return error
    if is_of_processes(error):
        return LoadFailed("The worker process could not start a thread.", hint=process_limit())
    if isinstance(error, MemoryError):
        return LoadFailed("There is not enough memory for the worker process of this model.", hint=memory_limit())
    return EngineError(f"The worker failed: {type(error).__name__}: {error}", hint=memory_limit())
