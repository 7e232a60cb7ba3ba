"""What the main thread of a rank above 0 does: join the group, load its part, and follow."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squish.format.model_directory import display_name
from squish.ipc.group import Rank
from squish.ipc.group_frames import PULSE, Join, Joined, Pulse, RankProgress, Ready
from squish.worker import memory
from squish.worker.cpu.blas import BlasReport
from squish.worker.cpu.install import install, prepare_model
from squish.worker.group.collectives import Collectives
from squish.worker.group.ends import without_output
from squish.worker.group.follower import Follower, Inbox
from squish.worker.group.sharding import cut
from squish.worker.group.watch import SILENCE, SILENCE_WHILE_LOADING
from squish.worker.model.hold import hold
from squish.worker.model.load import load_part, nbytes

if TYPE_CHECKING:
    from squish.worker.group.__main__ import Link


def follow(rank: Rank, link: Link, report: BlasReport) -> None:
    """Work until the process ends. Raises what joining and loading raise, and what a pass raises."""
    state = _State(link)
    threading.Thread(target=state.read, name="reader", daemon=True).start()
    threading.Thread(target=state.pulse, name="pulse", daemon=True).start()
    join = state.join.get()
    path, cache_dir = Path(rank.model), Path(rank.cache_dir)
    hold(path)
    engine = install(report, cache_dir, join.cpu_precision)
    collectives = Collectives(rank, join.transport)
    link.send(Joined())

    def part(model: Any, config: dict[str, Any]) -> None:
        state.way = cut(model, config, collectives.group, display_name(path))
        without_output(model)

    model = load_part(path, part, exact=engine.precision == "float32")
    if state.way == "tensor":
        prepare_model(model, join.kv_bits)
    weights_bytes = nbytes(model)
    if join.wire_weights:
        memory.wire(weights_bytes)
    state.follower = Follower(model, collectives)
    link.send(Ready(weights_bytes, memory.cache_budget()))
    state.follower.run(state.inbox)


class _State:
    """What the threads of this process share."""

    def __init__(self, link: Link) -> None:
        self.join: queue.SimpleQueue[Join] = queue.SimpleQueue()
        self.inbox: Inbox = queue.SimpleQueue()
        self.follower: Follower | None = None
        self.way = "tensor"
        self._link = link
        self._working = False

    def read(self) -> None:
        """The reader thread: hands operations on until rank 0 has ended, and then ends the process."""
        try:
            while frame := self._link.receive():
                match frame:
                    case Join():
                        self.join.put(frame)
                    case Pulse():
                        pass
                    case operation:
                        self._working = True
                        self.inbox.put(operation)
        except Exception as error:  # noqa: BLE001 - whatever was read: without this thread nothing can go on
            _end(f"What rank 0 of the group sent cannot be read: {error}")
        _end("Rank 0 of the group ended the connection.")

    def pulse(self) -> None:
        """Sends signs of life and progress, and looks at those of rank 0."""
        while True:
            silence = SILENCE if self._working else SILENCE_WHILE_LOADING
            if time.monotonic() - self._link.heard > silence:
                _end(f"Rank 0 of the group did not respond for {silence:.0f} s.")
            done = self.follower
            try:
                self._link.send(RankProgress(done.finished, done.sums) if done else RankProgress(0, 0))
            except OSError:
                _end("Rank 0 of the group ended the connection.")
            time.sleep(PULSE)


def _end(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()
    os._exit(1)
