"""Jobs one after the other in one worker: who does them, and what a job that fails or a worker that dies leaves."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from squish.errors import CorruptModel
from squish.ipc.frames import Imported, InspectModel
from squish.ipc.jobs import Jobs
from squish.models.store import Store
from tests.conftest import MODEL, home_settings


async def test_jobs_share_a_worker_until_one_fails_or_it_dies(real_home: Path) -> None:
    settings = home_settings(real_home)
    model = InspectModel(path=str(Store(settings.cache_dir).find(MODEL).path))
    async with Jobs(settings.worker_cache) as jobs:
        assert jobs.pid is None, "a worker that nobody needs is not started"
        first = await jobs.run(model, Imported)
        one = jobs.pid
        assert one is not None
        assert await jobs.run(model, Imported) == first
        assert jobs.pid == one

        os.kill(one, signal.SIGKILL)  # as a system without memory does to one that waits for the next shard
        while jobs.pid is not None:
            await asyncio.sleep(0.01)
        assert await jobs.run(model, Imported) == first
        another = jobs.pid
        assert another is not None and another != one

        with pytest.raises(CorruptModel, match=r"has no config\.json"):
            await jobs.run(InspectModel(path="/nowhere"), Imported)
        assert jobs.pid is None and not psutil.pid_exists(another)
        assert await jobs.run(model, Imported) == first
        last = jobs.pid
        assert last is not None
    assert not psutil.pid_exists(last)
