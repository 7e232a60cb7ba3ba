"""`make soak`: everything at once for an hour, and nothing grows, hangs or is lost. `ARGS="--minutes 5"` is shorter.

One server with two models, one of which is unloaded again and again; clients that ask, leave and send nonsense; workers
that are killed; a model that is pulled from a local Hub and removed; chats that are saved. At the end the figures are
printed, and the exit code is 1 where one of them says that something was leaked or lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from squish.errors import SquishError
from squish.models.store import Store
from squish.pull.pull import pull
from squish.system.host import HOST
from tests.arguments import number
from tests.commands.test_serve import serving
from tests.conftest import MODEL, SQUISH, clean_environment, home_settings
from tests.local_hub import LocalHub
from tests.worker.model.test_load import write_model

OTHER = "other:1b"
REPO = "org/tiny"
CLIENTS = 4
QUESTIONS = ("Name a color.", "Count to five.", "What is the capital of Germany?", "Tell a story. " * 40)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
GROWTH = 1.25
WORKER = 1 << 30  # bytes of a worker beside its prefix cache


@dataclass(frozen=True, slots=True)
class Sample:
    """Of the front process, and the memory of its workers together."""

    front: int
    workers: int
    descriptors: int
    threads: int


@dataclass(slots=True)
class Soak:
    """What goes on, and what came of it. statuses: of HTTP, and words for what has none."""

    url: str
    environment: dict[str, str]
    server: int
    end: float
    statuses: Counter[str] = field(default_factory=Counter)
    chats: int = 0
    samples: list[Sample] = field(default_factory=list)
    workers: set[int] = field(default_factory=set)  # the ids of all that were seen

    async def run(self) -> None:
        parts = [self._client(number) for number in range(CLIENTS)]
        others: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self._kill_a_worker, 20), (self._pull_and_remove, 15), (self._chat, 10), (self._unload, 7),
            (self._sample, 2),
        ]  # fmt: skip
        await asyncio.gather(*parts, *(self._often(work, seconds) for work, seconds in others))

    async def _often(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while time.monotonic() < self.end:
            await asyncio.sleep(seconds)
            await work()

    async def _client(self, seed: int) -> None:
        chance = random.Random(seed)
        async with httpx.AsyncClient(base_url=self.url, timeout=300) as client:
            while time.monotonic() < self.end:
                kind = chance.choice((self._whole, self._stream, self._leave, self._nonsense))
                try:
                    await kind(client, chance)
                except httpx.HTTPError as error:
                    self.statuses[type(error).__name__] += 1

    def _body(self, chance: random.Random) -> dict[str, object]:
        body: dict[str, object] = {
            "model": chance.choice((MODEL, MODEL, MODEL, OTHER)),
            "messages": [{"role": "user", "content": chance.choice(QUESTIONS) + str(chance.randrange(50))}],
            "max_tokens": chance.choice((1, 20, 60)),
        }
        if chance.random() < 0.2:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
        return body

    async def _whole(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        answer = await client.post("/v1/chat/completions", json=self._body(chance))
        self.statuses[str(answer.status_code)] += 1

    async def _stream(self, client: httpx.AsyncClient, chance: random.Random, most: int = 1_000_000) -> None:
        body = self._body(chance) | {"stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            self.statuses[str(answer.status_code)] += 1
            lines = 0
            async for _ in answer.aiter_lines():
                lines += 1
                if lines > most:
                    return

    async def _leave(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        await self._stream(client, chance, most=chance.randrange(8))

    async def _nonsense(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        body = self._body(chance) | {"temperature": chance.choice(("hot", -1, None)), "max_tokens": "x"}
        answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 400, answer.text
        self.statuses["400 wanted"] += 1

    async def _kill_a_worker(self) -> None:
        with suppress(psutil.Error, IndexError):
            os.kill(random.choice(psutil.Process(self.server).children()).pid, signal.SIGKILL)
            self.statuses["killed"] += 1

    async def _pull_and_remove(self) -> None:
        for command in (("pull", REPO, "--bits", "none"), ("rm", f"{REPO}:full")):
            self.statuses[f"squish {command[0]}: {await self._squish(*command)}"] += 1

    async def _chat(self) -> None:
        code = await self._squish("run", MODEL, "--save", "--max-tokens", "5", "--prompt", f"Hello {self.chats}")
        self.chats += code == 0
        self.statuses[f"squish run: {code}"] += 1

    async def _unload(self) -> None:
        """The next request for this model loads it anew."""
        async with httpx.AsyncClient(base_url=self.url, timeout=300) as client:
            answer = await client.post("/api/generate", json={"model": OTHER, "keep_alive": 0})
        self.statuses[f"unload: {answer.status_code}"] += 1

    async def _squish(self, *words: str) -> int:
        process = await asyncio.create_subprocess_exec(
            SQUISH,
            *words,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return await process.wait()

    async def _sample(self) -> None:
        with suppress(psutil.Error):
            front = psutil.Process(self.server)
            children = front.children()
            self.workers.update(child.pid for child in children)
            workers = sum(HOST.footprint(child.pid) or 0 for child in children)
            self.samples.append(Sample(HOST.footprint(self.server) or 0, workers, front.num_fds(), front.num_threads()))


def judge(soak: Soak, log: str, home: Path) -> list[str]:
    """What was leaked or lost, in words. Growth: the last quarter against the second, when all is warm."""
    wrong = []
    quarter = max(1, len(soak.samples) // 4)
    for name in ("front", "workers", "descriptors", "threads"):
        early = max(getattr(each, name) for each in soak.samples[quarter : 2 * quarter])
        late = max(getattr(each, name) for each in soak.samples[-quarter:])
        print(f"{name:12} second quarter {early:>14,}   last quarter {late:>14,}")
        # Workers fill their prefix caches first: a quarter of the machine's memory each, at most.
        filling = name == "workers" and late < 2 * (HOST.memory().total // 4 + WORKER)
        if late > GROWTH * early and not filling:
            wrong.append(f"{name} grew from {early:,} to {late:,}")
    listed = subprocess.run([SQUISH, "chats", "list", "--json"], env=soak.environment, capture_output=True, check=True)
    kept = len(json.loads(listed.stdout))
    print(f"{'chats':12} {soak.chats:,} saved, {kept:,} found")
    if kept < soak.chats:
        wrong.append(f"{soak.chats - kept} chats are lost")
    print(f"{'workers':12} {len(soak.workers):,} started, {soak.statuses['killed']:,} killed")
    # Beside one for each that was killed, one for each model, and one that waits for the next.
    if soak.statuses["unload: 200"] >= 50 and len(soak.workers) <= soak.statuses["killed"] + 3:
        wrong.append("no model was loaded again that had been unloaded")
    for model in (MODEL, OTHER):
        try:
            Store(home_settings(home).cache_dir).verify(model)
        except SquishError as error:
            wrong.append(f"the store is damaged: {error.message}")
    if "Traceback" in log:
        wrong.append("the server's log has a traceback")
    # The requests that a killed worker was answering fail, and nobody else's.
    if soak.statuses["500"] > CLIENTS * soak.statuses["killed"]:
        wrong.append(f"{soak.statuses['500']} answers 500 with {soak.statuses['killed']} workers killed")
    failed = [status for status in soak.statuses if status.startswith("squish") and not status.endswith(": 0")]
    wrong += [f"{soak.statuses[status]} times {status}" for status in failed]
    return wrong


async def prepared(home: Path) -> None:
    """Install the real model and a copy of it."""
    settings = home_settings(home)
    async with pull(MODEL, settings=settings, store=Store(settings.cache_dir)) as events:
        async for _ in events:
            pass
    Store(settings.cache_dir).copy(MODEL, OTHER)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=number, default=60)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder, LocalHub() as hub:
        home, log = Path(folder) / "home", Path(folder) / "log"
        home.mkdir()
        write_model(Path(folder) / "tiny")
        hub.add_repo(REPO, {path.name: path.read_bytes() for path in (Path(folder) / "tiny").iterdir()})
        asyncio.run(prepared(home))
        environment = clean_environment(home) | {"HF_ENDPOINT": hub.url, "SQUISH_OFFLINE": "0"}
        with serving(environment, log) as (process, url):
            soak = Soak(url, environment, process.pid, time.monotonic() + 60 * minutes)
            asyncio.run(soak.run())
            process.terminate()
        wrong = judge(soak, log.read_text(encoding="utf-8"), home)
    for status, count in sorted(soak.statuses.items()):
        print(f"{count:8,} {status}")
    for each in wrong:
        print(f"WRONG: {each}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
