"""`python -m tests.simulate`: what 1 to 1,000 servers behind a router do to the same load per server.

Conversations arrive at random; each turn carries everything said before. A server computes the part of a prompt that
its prefix cache does not have, in chunks, with a decoding step of all running answers after each chunk, as the worker
does.
The service times are those of README.md, of the demo model on two cores, measured in November 2026. A router without
affinity deals requests out in turn; with affinity a conversation stays where it began.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
from collections import OrderedDict, deque
from dataclasses import dataclass

from tests.arguments import count, number, several

PREFILL = 1203.0  # tokens a second: 445 tokens in 0.37 s
STEP = 0.00449  # seconds of a decoding step, and
ROW = 0.00168  # for each row in it: 162 tok/s alone, 446 tok/s for eight
CHUNK = 256  # tokens of prefill between two steps
PLACES = 32  # rows decoded at the same time
CACHED = 60_000  # prompt tokens that a server keeps

SYSTEM, QUESTION, ANSWER, TURNS = 300, 60, 60, 5  # tokens, and turns of a conversation
THINKING = 8.0  # seconds between an answer and the next question


@dataclass
class Turn:
    """One request. prompt: tokens, all of which but the last question were computed for the turn before."""

    conversation: int
    arrived: float
    prompt: int
    known: int
    ttft: float = 0.0
    computed: int = 0


class Server:
    """One server with its queue, its batch and its prefix cache."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting: deque[Turn] = deque()
        self.rows: list[int] = []  # tokens that each running answer still has
        self.deepest = 0
        self._filling: Turn | None = None
        self._left = 0
        self._cache: OrderedDict[int, int] = OrderedDict()

    def until(self, time: float) -> None:
        """Work until then, or until nothing is left."""
        while self.now < time and (self.waiting or self.rows or self._filling):
            self._step()
        self.now = max(self.now, time)

    def finish(self) -> None:
        """Work until nothing is left."""
        while self.waiting or self.rows or self._filling:
            self._step()

    def _step(self) -> None:
        if self._filling is None and self.waiting and len(self.rows) < PLACES:
            self._filling = self.waiting.popleft()
            self._left = self._filling.computed = self._missing(self._filling)
        if self._filling:
            chunk = min(CHUNK, self._left)
            self.now += chunk / PREFILL
            self._left -= chunk
            if self._left == 0:
                self._filling.ttft = self.now - self._filling.arrived
                self.rows.append(ANSWER)
                self._filling = None
        if self.rows:
            self.now += STEP + ROW * len(self.rows)
            self.rows = [left - 1 for left in self.rows if left > 1]

    def _missing(self, turn: Turn) -> int:
        """Tokens to compute. What the turns before it left here is kept while there is room."""
        held = self._cache.pop(turn.conversation, 0)
        self._cache[turn.conversation] = turn.prompt + ANSWER
        while sum(self._cache.values()) > CACHED:
            self._cache.popitem(last=False)
        return max(1, turn.prompt - min(held, turn.known))


def simulate(servers: int, per_server: int, load: float, affinity: bool, seed: int) -> tuple[list[Turn], list[Server]]:
    """load: conversations that begin a second, for each server."""
    chance = random.Random(seed)
    running = [Server() for _ in range(servers)]
    turns: list[Turn] = []
    coming: list[tuple[float, int, int]] = []
    time = 0.0
    for conversation in range(servers * per_server):
        time += chance.expovariate(load * servers)
        heapq.heappush(coming, (time, conversation, 0))
    dealt = 0
    while coming:
        time, conversation, number = heapq.heappop(coming)
        before = SYSTEM + number * (QUESTION + ANSWER)
        turn = Turn(conversation, time, before + QUESTION, before if number else 0)
        turns.append(turn)
        server = running[hash((seed, conversation)) % servers if affinity else dealt % servers]
        dealt += 1
        server.until(time)
        server.waiting.append(turn)
        server.deepest = max(server.deepest, len(server.waiting))
        if number + 1 < TURNS:
            pause = THINKING * chance.uniform(0.5, 1.5) + ANSWER * (STEP + ROW)
            heapq.heappush(coming, (time + pause, conversation, number + 1))
    for server in running:
        server.finish()
    return turns, running


def row(servers: int, per_server: int, load: float, affinity: bool) -> str:
    turns, running = simulate(servers, per_server, load, affinity, seed=1)
    ttft = statistics.quantiles([turn.ttft for turn in turns], n=100)
    prompts = sum(turn.prompt for turn in turns)
    hits = 1 - sum(turn.computed for turn in turns) / prompts
    deepest = max(server.deepest for server in running)
    kind = "yes" if affinity else "no"
    figures = f"{hits:.0%} | {ttft[49]:.2f} s | {ttft[94]:.2f} s | {ttft[98]:.2f} s | {deepest}"
    return f"| {servers:,} | {load} | {kind} | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=several(count), default="1,10,100,1000")
    beginning = "conversations that begin a second, for each server"
    parser.add_argument("--loads", type=several(number), default="0.2,0.35,0.6", help=beginning)
    parser.add_argument("--conversations", type=count, default=60, help="for each server")
    given = parser.parse_args()
    print("| servers | load | affinity | from the cache | TTFT p50 | p95 | p99 | longest queue |")
    print("|---|---|---|---|---|---|---|---|")
    for load in given.loads:
        for servers in given.servers:
            for affinity in (False, True):
                if servers > 1 or affinity:
                    print(row(servers, given.conversations, load, affinity), flush=True)


if __name__ == "__main__":
    main()
