"""What a server keeps of large bodies: nothing, however many came at once."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest

from squish.config.settings import Settings
from squish.errors import ContextLengthExceeded
from tests.api.raw_http import CHAT, ask, scripted
from tests.commands.test_serve import serving
from tests.conftest import PATIENCE

MEGABYTES = 31


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that keeps large blocks")
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
        before = server.memory_info().rss
        with ThreadPoolExecutor(4) as clients:
            assert sorted(clients.map(post, bodies)) == [400] * 4 + [404] * 4
        most = before + 2 * MEGABYTES * 1_000_000  # two may still be on their way out
        while server.memory_info().rss > most:
            time.sleep(0.05)
        process.terminate()


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
            for _ in range(100):  # the connection's task has a few steps to go
                await asyncio.sleep(0)
            assert kept() is None
        finally:
            gc.enable()
