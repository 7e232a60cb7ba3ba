"""Which unevaluated arrays an unevaluated array is computed from, read off MLX's own picture of its graph.

It evaluates nothing and knows nothing of models.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from pathlib import Path

import mlx.core as mx

_EDGE = re.compile(r'^"?([\w-]+)"? -> "?([\w-]+)"?$')


def dependencies(outputs: dict[str, mx.array], leaves: dict[str, mx.array]) -> dict[str, set[str]]:
    """For each output the leaves it depends on. A leaf that is itself an output depends on itself."""
    if not outputs:
        return {}
    # One more operation on each output makes it a node of its own, also where it is a leaf under another name.
    ends = {f"out{number}": mx.stop_gradient(array) for number, array in enumerate(outputs.values())}
    starts = {f"leaf{number}": array for number, array in enumerate(leaves.values())}
    names = dict(zip(starts, leaves, strict=True))
    parents = _parents(list(ends.values()), ends | starts)
    return {
        output: {names[each] for each in _reached(end, parents) & names.keys()}
        for output, end in zip(outputs, ends, strict=True)
    }


def _parents(outputs: list[mx.array], named: dict[str, mx.array]) -> dict[str, list[str]]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "graph.dot"
        mx.export_to_dot(str(path), *outputs, **named)
        parents: dict[str, list[str]] = defaultdict(list)
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if edge := _EDGE.match(line.strip()):
                    parents[edge[2]].append(edge[1])
    return parents


def _reached(label: str, parents: dict[str, list[str]]) -> set[str]:
    """All nodes above one, itself included."""
    seen, pending = {label}, [label]
    while pending:
        for parent in parents.get(pending.pop(), ()):
            if parent not in seen:
                seen.add(parent)
                pending.append(parent)
    return seen
