"""What importing would say of models of other programs, before it is done: one worker reads their GGUF headers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from squish.errors import WorkerDied
from squish.ipc.frames import InspectGguf, Verdict
from squish.ipc.jobs import Jobs
from squish.pull.neighbors import Neighbor


async def judged(found: Iterable[Neighbor], cache_dir: Path) -> list[Neighbor]:
    """The same models, with the reason where a GGUF file cannot be imported. Hashes and weights are not looked at.

    cache_dir: of the worker. Raises EngineError.
    """
    async with Jobs(cache_dir) as jobs:
        return [await _judged(each, jobs) if each.judged_by_header else each for each in found]


async def _judged(model: Neighbor, jobs: Jobs) -> Neighbor:
    try:
        verdict = await jobs.run(InspectGguf(str(model.path)), Verdict)
    except WorkerDied as error:  # by what is in the file; the next file gets another worker
        return replace(model, problem=error.message)
    return replace(model, problem=verdict.problem or None)
