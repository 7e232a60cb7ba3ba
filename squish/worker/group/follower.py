"""A rank above 0 at work: it repeats the passes of rank 0 on its own part of the model, in their order.

It samples nothing and answers nobody. Everything of MLX belongs to the main thread.
"""

from __future__ import annotations

import queue
from typing import Any

import mlx.core as mx

from squish.ipc.group_frames import Drop, Fork, Forward, Operation
from squish.worker.group.collectives import Collectives, begin
from squish.worker.group.rows import Rows, arrays

Inbox = queue.SimpleQueue[Operation]


class Follower:
    """finished: the last pass that is done; sums: with other ranks that are done. Other threads may read both."""

    def __init__(self, model: Any, collectives: Collectives) -> None:
        self.finished = 0
        self.sums = 0
        self._model = model
        self._collectives = collectives
        self._rows = Rows(model)

    def run(self, inbox: Inbox) -> None:
        """Work without end."""
        while True:
            self.apply(inbox.get())

    def apply(self, operation: Operation) -> None:
        match operation:
            case Fork():
                self._rows.fork(operation)
            case Drop():
                self._rows.drop(operation)
            case Forward():
                self._forward(operation)

    def _forward(self, frame: Forward) -> None:
        caches = self._rows.caches(frame)
        padded = mx.array([[*tokens, *[0] * (frame.width - len(tokens))] for tokens in frame.tokens])
        self._model(padded, cache=caches)
        noted = self._collectives.take()
        begin(noted)
        for each in noted:
            mx.eval(each)
            self.sums += 1
        self._rows.finish(frame, caches)
        mx.eval(arrays(caches))
        if frame.width > 1:
            mx.clear_cache()
        self.finished = frame.number
