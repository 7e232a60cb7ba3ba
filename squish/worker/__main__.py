"""The worker process: `python -m squish.worker FD CACHE_DIR`, started by squish.ipc.process and by nobody else.

The first frame decides what it is: Load makes it serve a model until its socket closes; a job frame makes it do that
job. Threads: reader (frames in), two tokenizers (prompts → token ids), and the main thread, which alone touches MLX.
"""

from __future__ import annotations

import gc
import os
import queue
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from squish.errors import SquishError
from squish.ipc.frames import Failed, Job, Load, MeasurePerplexity, ToWorker, WireError
from squish.worker import descriptors
from squish.worker.connection import FrameSocket
from squish.worker.threads import beat, failure, read, start

if TYPE_CHECKING:
    from squish.worker.cpu.blas import BlasReport
    from squish.worker.cpu.install import CpuEngine
    from squish.worker.tokenizer.facts import Shelf


def main() -> None:
    """Serve the socket given on the command line."""
    channel = FrameSocket(socket.socket(fileno=int(sys.argv[1])))
    cache_dir = Path(sys.argv[2])
    descriptors.keep_limit()
    gc.disable()  # until everything is there that stays: see serving/beginning.py
    # The model is on disk. Whatever a library would like to ask the Hub, the answer is no.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    try:
        _work(channel, cache_dir)
    except Exception as error:  # the last guard of the process: the front must hear of it before the process ends
        channel.send(Failed(None, WireError.of(failure(error))))
        if not isinstance(error, SquishError):
            raise
    finally:
        channel.drain()


def _work(channel: FrameSocket, cache_dir: Path) -> None:
    from squish.worker.cpu.install import prepare

    report = prepare(cache_dir)
    # Only now may MLX be imported: the BLAS it finds first is the one it keeps. It is imported before there is anything
    # to do, so that a spare worker has it behind it.
    from squish.worker.model import imports
    from squish.worker.tokenizer.facts import Shelf

    imports.prepare()
    shelf = Shelf(cache_dir / "tokenizers")
    start(channel, "heartbeat", lambda: beat(channel))
    match channel.receive():
        case Load() as load:
            if _makes_vectors(Path(load.path)):
                from squish.worker.serving.vectors import serve
            else:
                from squish.worker.serving.answers import serve
            serve(channel, load, report, cache_dir, shelf)
        case job if isinstance(job, Job):
            gc.enable()
            _do_jobs(channel, job, report, cache_dir, shelf)


def _do_jobs(channel: FrameSocket, first: Job, report: BlasReport, cache_dir: Path, shelf: Shelf) -> None:
    """Do one job after the other, until the socket closes. Between them, what they took is with the system again."""
    from squish.worker import memory
    from squish.worker.jobs import convert

    engine: CpuEngine | None = None
    waiting: queue.SimpleQueue[ToWorker | None] = queue.SimpleQueue()
    waiting.put(first)
    start(channel, "reader", lambda: read(channel, waiting.put, lambda: waiting.put(None)))
    while isinstance(job := waiting.get(), Job):
        if isinstance(job, MeasurePerplexity) and engine is None:
            from squish.worker.cpu.install import install

            engine = install(report, cache_dir)
        result = convert.run(job, channel.send, shelf)
        gc.collect()
        memory.give_back()
        channel.send(result)


def _makes_vectors(model: Path) -> bool:
    """Whether a directory holds an embedding model; one that cannot be read is for loading to refuse."""
    from squish.format.model_directory import display_name, read_config
    from squish.worker.model.model_files import kind_of

    try:
        return kind_of(model, read_config(model, display_name(model))) != "chat"
    except SquishError:
        return False


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # all is written and saved; to take modules and arrays apart one by one is a twentieth of a second
