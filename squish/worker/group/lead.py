"""What rank 0 does before it serves: gather the others, connect to them, and cut its own part of the model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from squish.errors import SquishError
from squish.format.model_directory import display_name
from squish.ipc.frames import Failed, Load, Warned, WireError
from squish.ipc.group import Rank
from squish.ipc.group_frames import Join, Ready
from squish.worker.connection import FrameSocket
from squish.worker.group.collectives import Collectives, transport_of
from squish.worker.group.control import Control
from squish.worker.group.leader import Leading
from squish.worker.group.sharding import Way, cut
from squish.worker.group.versions import versions


class Group:
    """The other ranks, as rank 0 has them. Raises what gathering and connecting meets.

    way: how the model is divided; known once it is loaded. When a rank is lost, the front process hears why, and this
    process ends: MLX waits for it forever.
    """

    def __init__(self, rank: Rank, load: Load, channel: FrameSocket) -> None:
        self.size = rank.size
        self.way: Way = "tensor"
        self.others: list[Ready] = []
        self._name = display_name(Path(load.path))
        self._control = Control(rank, _ending(channel), lambda message: channel.send(Warned(message)))
        self._control.gather(versions())
        transport = transport_of(rank)
        self._control.send(Join(transport, load.cpu_precision, load.wire_weights, load.kv_bits))
        self._collectives = Collectives(rank, transport)
        self._control.wait_joined()

    def cut(self, model: Any, config: dict[str, Any]) -> None:
        """Leave in the model what rank 0 has of it. Raises UnsupportedModel."""
        self.way = cut(model, config, self._collectives.group, self._name)

    def leading(self, model: Any) -> Leading:
        """The loaded part of rank 0, once all ranks have theirs."""
        self.others = self._control.wait_ready()
        return Leading(model, self._collectives, self._control.send, self._control.watch)

    @property
    def cache_budget(self) -> int:
        """Bytes that KV caches may take on the rank that has least room for them."""
        return min(each.cache_budget for each in self.others)

    @property
    def exact(self) -> bool:
        """Whether dividing the model leaves each row's numbers independent of what is computed beside them."""
        return self.way == "tensor" and self._collectives.repeatable

    @property
    def about(self) -> str:
        """For people: how the model is divided."""
        what = "each layer" if self.way == "tensor" else "the layers"
        return f"{what} divided among {self.size} ranks"


def _ending(channel: FrameSocket) -> Callable[[SquishError], None]:
    def end(error: SquishError) -> None:
        channel.send(Failed(None, WireError.of(error)))
        channel.drain()
        os._exit(1)

    return end
