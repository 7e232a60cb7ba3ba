"""What a server keeps of large bodies: nothing, however many came at once."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest

from squish.config.settings import Settings
from squish.errors import ContextLengthExceeded
from tests.api.raw_http import CHAT, ask, scripted
from tests.commands.test_serve import get, serving
from tests.conftest import PATIENCE

MEGABYTES = 31  # below the 32 at which glibc would stop to keep blocks that are freed


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that keeps large blocks")
@pytest.mark.long
def test_large_bodies_leave_nothing_behind(environment: dict[str, str], tmp_path: Path) -> None:
    text = "x" * MEGABYTES * 1_000_000
    whole = json.dumps({"model": "nobody", "messages": [{"role": "user", "content": text}]}).encode()
    bodies = [whole, b'{"model": ' + b" " * len(text)] * 4
    with serving(environment, tmp_path / "log") as (process, url):
        server = psutil.Process(process.pid)

        def post(body: bytes) -> int:
            headers = {"content-type": "application/json"}
            answer = httpx2.post(f"{url}/v1/chat/completions", content=body, headers=headers, timeout=PATIENCE)
            return answer.status_code

        assert post(b"{}") == 400
        descriptors, before = server.num_fds(), server.memory_info().rss
        with ThreadPoolExecutor(4) as clients:
            assert sorted(clients.map(post, bodies)) == [400] * 4 + [404] * 4
        while server.num_fds() > descriptors:  # the last connections close
            assert get(f"{url}/health")[0] == 200
        kept = (server.memory_info().rss - before) / 1e6
        sent = len(bodies) * MEGABYTES
        print(f"{kept:.1f} MB more than before, of {sent} that were sent, {4 * MEGABYTES} of them at once")
        # It is 4 where malloc is glibc's. A heap that keeps what was there at once would be far beyond the limit.
        assert kept < sent / 3, largest_mappings(process.pid)
        process.terminate()


def largest_mappings(pid: int) -> str:
    """Where a process has its memory, for the report of a test that fails."""
    found = sorted(psutil.Process(pid).memory_maps(), key=lambda each: -int(each.rss))
    return "\n".join(f"{each.rss / 1e6:8.1f} MB {each.path}" for each in found[:8])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_fails_is_forgotten_without_a_garbage_collection(tmp_path: Path, stream: bool) -> None:
    async with scripted(Settings(home=tmp_path, cache_dir=tmp_path / "models")) as server:
        gc.disable()
        try:
            asked = asyncio.create_task(ask(server, "POST", "/v1/chat/completions", CHAT | {"stream": stream}))
            script = await server.sessions.admitted.get()
            kept = weakref.ref(script.generation)
            script.fail(ContextLengthExceeded("too long"))
            assert (await asked).status == 400
            del script, asked
            while kept() is not None:  # the connection's task has a few steps to go; what is kept ends by the timeout
                await asyncio.sleep(0)
        finally:
            gc.enable()
