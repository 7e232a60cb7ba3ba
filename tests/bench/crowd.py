"""One client's request beside sixty of another's: what it waits for its first token, as a ratio to alone."""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
from collections.abc import Mapping

from squish.bench.measure import Endpoint
from tests.bench.client import report, unique_prompt
from tests.conftest import MODEL, SQUISH

_SIXTY, _PROMPT, _ANSWER = 60, 125, 64
_ALONE = 9  # requests
_PAUSE = 0.5  # seconds at most, so that they come at any time of a step


def keys(environment: Mapping[str, str]) -> tuple[str, str]:
    """Those of two clients of servers that are started from now on, which answer nobody without."""
    return _key("one", environment), _key("sixty", environment)


def _key(name: str, environment: Mapping[str, str]) -> str:
    command = [SQUISH, "keys", "add", name]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


async def one_beside_sixty(url: str, one: str, sixty: str) -> None:
    async with Endpoint(url, MODEL, one) as client, Endpoint(url, MODEL, sixty) as crowd:
        await client.ask(unique_prompt(_PROMPT), 8)
        alone = statistics.median([await _first(client) for _ in range(_ALONE)])
        answers = [asyncio.create_task(crowd.ask(unique_prompt(_PROMPT), _ANSWER)) for _ in range(_SIXTY)]
        beside = []
        while sum(each.done() for each in answers) < _SIXTY // 2:  # as long as others wait for a place
            await asyncio.sleep(random.uniform(0, _PAUSE))
            beside.append(await _first(client))
        gap = max(each.longest_gap for each in await asyncio.gather(*answers))
    report("TTFT, 125 tokens of a client that is alone", alone, "s")
    report("  beside sixty requests of another / that", statistics.median(beside) / alone, "", "goal: at most 2")
    report("  the longest of them / that", max(beside) / alone, "")
    report("longest gap in an answer of the sixty", gap, "s")


async def _first(client: Endpoint) -> float:
    return (await client.ask(unique_prompt(_PROMPT), 2)).first
