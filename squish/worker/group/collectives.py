"""Owns this process's place in the group as MLX sees it: connecting, and an account of sums with the other ranks.

All that ranks do together goes through functions of `mx.distributed`. These are replaced by ones that also note what
they give: whoever evaluates what was noted in a pass has done its part of the pass, whatever else is never needed.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx

from squish.errors import LoadFailed
from squish.ipc.group import Rank
from squish.ipc.group_frames import Transport
from squish.worker import device
from squish.worker.group.mesh import Mesh
from squish.worker.group.neighbors import require_neighbors

RING = "SQUISH_GROUP_RING"
"""An environment variable for tests: MLX's ring also where it computes on a CPU."""
_TOGETHER = ("all_sum", "all_gather", "all_max", "all_min", "sum_scatter", "send", "recv", "recv_like")


class Collectives:
    """group: MLX's, or what stands for it. Belongs to the thread that computes."""

    def __init__(self, rank: Rank, transport: Transport) -> None:
        if transport == "mesh":
            mesh = Mesh(rank)
            mesh.replace()
            self.group: Any = mesh
        else:
            self.group = _connect(rank, transport)
        self.repeatable = transport == "mesh"
        """Whether a sum does not depend on what is summed beside it; MLX's ring adds up parts in different orders."""
        self._noted: list[mx.array] = []
        self.sums = 0
        """Begun in this process; with a mesh those before the last are done."""
        module: Any = mx.distributed
        for name in _TOGETHER:
            setattr(module, name, self._noting(getattr(module, name)))

    def take(self) -> list[mx.array]:
        """What was noted since the last call, not evaluated, in order."""
        noted, self._noted = self._noted, []
        return noted

    def _noting(self, own: Any) -> Any:
        def together(*arguments: Any, **options: Any) -> mx.array:
            result: mx.array = own(*arguments, **options)
            self._noted.append(result)
            self.sums += 1
            return result

        return together


def transport_of(rank: Rank) -> Transport:
    """By what the ranks of a group compute together: rank 0 decides it, by what it computes on."""
    if rank.backend == "ring" and device.on_cpu() and os.environ.get(RING) != "1":
        return "mesh"
    return rank.backend


def begin(arrays: list[mx.array]) -> None:
    """Let MLX compute these now, and do not wait for it."""
    evaluate: Any = mx.async_eval
    evaluate(arrays)


def _connect(rank: Rank, transport: Transport) -> Any:
    """MLX's group; waits until all its ranks are there. A process has one, and cannot have another later."""
    variables = {"MLX_RANK": str(rank.rank)}
    files: list[str] = []
    if transport == "ring":
        variables["MLX_HOSTFILE"] = _file(files, [[address] for address in rank.addresses])
    else:
        variables["MLX_IBV_DEVICES"] = _file(files, rank.devices)
        variables["MLX_JACCL_COORDINATOR"] = rank.coordinator
    os.environ.update(variables)
    try:
        group = mx.distributed.init(strict=True, backend=transport)
        if transport == "ring":
            require_neighbors(rank)
        return group
    except (RuntimeError, ValueError) as error:
        raise LoadFailed(
            f"Rank {rank.rank} of the group could not connect to the others: {' '.join(str(error).split())[:300]}"
        ) from error
    finally:
        for name in variables:
            del os.environ[name]
        for file in files:
            Path(file).unlink()


def _file(files: list[str], content: Any) -> str:
    descriptor, path = tempfile.mkstemp(prefix="squish-group-", suffix=".json")
    files.append(path)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
    return path
