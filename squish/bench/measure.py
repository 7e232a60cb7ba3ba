"""`squish bench`: how fast a model answers through the OpenAI API, ours and, in alternating rounds, another server's.

The same client asks both. Tokens are counted from the usage that a server reports, never from pieces of text. Every
prompt is unique, so that no cache helps where it should not; what a cache did help is reported. It knows HTTP only.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import httpx2
import msgspec

from squish.errors import EngineError, InvalidInput

_WORDS = ("river", "stone", "lamp", "green", "seven", "paper", "north", "cloud", "apple", "winter", "glass", "road")
_TIMEOUT = 1800.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured. prompts: lengths in tokens; decode: tokens of an answer; streams: answers at the same time."""

    rounds: int = 3
    prompts: tuple[int, ...] = (128, 512, 2048)
    decode: int = 96
    streams: tuple[int, ...] = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class AnswerTiming:
    """One streamed answer, in seconds since it was asked for. prompt, cached, completion: tokens, from the usage.

    longest_gap: between two pieces of its text. guessed: tokens of the completion that were guessed, rightly, as a
    server reports it in `timings`.
    """

    first: float
    last: float
    prompt: int
    cached: int
    completion: int
    longest_gap: float = 0.0
    guessed: int = 0

    @property
    def tps(self) -> float:
        """Tokens per second after the first one; of an answer that came in one piece, since it was asked for."""
        return self._per_second(self.completion)

    @property
    def passes_per_second(self) -> float:
        """Passes through the model in the same time: a token that was guessed rightly takes none of its own."""
        return self._per_second(self.completion - self.guessed)

    def _per_second(self, count: int) -> float:
        if self.last > self.first:
            return max(count - 1, 0) / (self.last - self.first)
        return count / self.last if self.last > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity over its rounds. answers: those of all rounds that it was taken from."""

    name: str
    unit: str
    values: tuple[float, ...]
    answers: tuple[AnswerTiming, ...] = ()

    @property
    def cached(self) -> int:
        """Prompt tokens in all rounds that were not computed again."""
        return sum(answer.cached for answer in self.answers)

    @property
    def guessed(self) -> int:
        """Tokens of answers in all rounds that were guessed, rightly."""
        return sum(answer.guessed for answer in self.answers)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Choice(msgspec.Struct):
    text: str | None = None


class _Timings(msgspec.Struct):
    draft_n_accepted: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: _Usage | None = None
    timings: _Timings | None = None


class Endpoint:
    """An OpenAI server and a model of it. Use it with `async with`."""

    def __init__(self, url: str, model: str, key: str | None = None) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        base = url.rstrip("/").removesuffix("/v1")
        self.url, self.model = base, model
        # A connection a request: a server that closes one that it kept must not be taken for one that does not answer.
        self._client = httpx2.AsyncClient(
            base_url=base,
            timeout=_TIMEOUT,
            headers=headers,
            trust_env=False,
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def ask(self, prompt: str, max_tokens: int, begun: asyncio.Event | None = None) -> AnswerTiming:
        """One greedy completion. begun: set when its first text has come.

        Raises EngineError where the server does not answer, or reports no usage.
        """
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started = time.perf_counter()
        times: list[float] = []
        usage: _Usage | None = None
        guessed = 0
        try:
            async with self._client.stream("POST", "/v1/completions", json=body) as response:
                if response.status_code != 200:
                    said = (await response.aread()).decode(errors="replace")[:300]
                    raise EngineError(f"{self.url} answered {response.status_code}: {said}")
                async for line in response.aiter_lines():
                    chunk = _chunk(line)
                    if chunk and any(choice.text for choice in chunk.choices):
                        times.append(time.perf_counter() - started)
                        if begun:
                            begun.set()
                    usage = chunk.usage if chunk and chunk.usage else usage
                    if chunk and chunk.timings:
                        guessed = chunk.timings.draft_n_accepted or guessed
        except httpx2.HTTPError as error:
            raise EngineError(f"{self.url} does not answer: {error or type(error).__name__}.") from error
        if usage is None or not times:
            raise EngineError(f"{self.url} sent no text, or reported no usage; nothing can be counted.")
        details = usage.prompt_tokens_details
        cached = details.cached_tokens or 0 if details else 0
        gap = max((later - earlier for earlier, later in pairwise(times)), default=0.0)
        return AnswerTiming(times[0], times[-1], usage.prompt_tokens, cached, usage.completion_tokens, gap, guessed)


def _chunk(line: str) -> _Chunk | None:
    if not line.startswith("data: {"):
        return None
    try:
        return msgspec.json.decode(line[6:], type=_Chunk)
    except (ValueError, RecursionError):
        return None


@dataclass
class _Side:
    """One endpoint while it is measured: what it took so far."""

    endpoint: Endpoint
    words_per_token: float = 1.0
    taken: dict[str, list[float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    answers: dict[str, list[AnswerTiming]] = field(default_factory=dict)

    def take(self, name: str, unit: str, value: float, *answers: AnswerTiming) -> None:
        """A value of one round, and the answers that it was taken from."""
        self.taken.setdefault(name, []).append(value)
        self.units[name] = unit
        self.answers.setdefault(name, []).extend(answers)

    def figures(self) -> tuple[Figure, ...]:
        return tuple(
            Figure(name, self.units[name], tuple(values), tuple(self.answers[name]))
            for name, values in self.taken.items()
        )

    def prompt(self, tokens: int) -> str:
        """A text of about so many tokens that was never sent before."""
        return " ".join(random.choices(_WORDS, k=max(4, round(tokens * self.words_per_token))))

    async def warm_up(self) -> None:
        """Load the model, compile its kernels, and learn how many words a token is."""
        first = await self.endpoint.ask(self.prompt(16), 1)
        self.take("cold start, first token", "s", first.first, first)
        answer = await self.endpoint.ask(self.prompt(200), 8)
        self.words_per_token = 200 / answer.prompt

    async def prefill(self, tokens: int) -> None:
        answer = await self.endpoint.ask(self.prompt(tokens), 2)
        self.take(f"first token, {tokens} tokens", "s", answer.first, answer)

    async def repeated(self, tokens: int) -> None:
        prefix = self.prompt(tokens)
        await self.endpoint.ask(prefix, 2)
        answer = await self.endpoint.ask(f"{prefix} {self.prompt(4)}", 2)
        self.take(f"first token, {tokens} tokens again", "s", answer.first, answer)

    async def decode(self, streams: int, tokens: int) -> None:
        answers = await asyncio.gather(*(self.endpoint.ask(self.prompt(16), tokens) for _ in range(streams)))
        if streams == 1:
            self.take("decode, 1 stream", "tok/s", answers[0].tps, *answers)
            return
        begin, end = min(answer.first for answer in answers), max(answer.last for answer in answers)
        made = sum(answer.completion - 1 for answer in answers)
        self.take(f"decode, {streams} streams", "tok/s", made / max(end - begin, 1e-9), *answers)

    async def repeating(self, tokens: int) -> None:
        """Decoding where the answer says again what the prompt says, which a server may guess."""
        text = self.prompt(2 * tokens)
        answer = await self.endpoint.ask(f"{text}\n{text}\n{text[: len(text) // 4]}", tokens)
        self.take("decode, repeating its prompt", "tok/s", answer.tps, answer)


async def measure(endpoints: Sequence[Endpoint], workload: Workload, report: Report) -> list[tuple[Figure, ...]]:
    """The figures of every endpoint, in one order. report: gets a line about what happens now.

    Round by round each endpoint takes its turn, so that a machine that gets busier does so for all of them.
    Raises EngineError, InvalidInput.
    """
    if workload.rounds < 1:
        raise InvalidInput("There must be at least one round.", param="--rounds")
    sides = [_Side(endpoint) for endpoint in endpoints]
    for side in sides:
        report(f"warming up {side.endpoint.model}…")
        await side.warm_up()
    for number in range(1, workload.rounds + 1):
        for side in sides:
            report(f"round {number} of {workload.rounds}: {side.endpoint.model} at {side.endpoint.url}…")
            for tokens in workload.prompts:
                await side.prefill(tokens)
            if workload.prompts:
                await side.repeated(workload.prompts[len(workload.prompts) // 2])
            for streams in workload.streams:
                await side.decode(streams, workload.decode)
            if 1 in workload.streams:
                await side.repeating(workload.decode)
    return [side.figures() for side in sides]


def rows(sides: Sequence[tuple[Figure, ...]]) -> list[tuple[str, ...]]:
    """A table: name, for each side median, spread, cached and guessed tokens; of two, how many times better ours is."""
    table = []
    for figures in zip(*sides, strict=True):
        cells = [figures[0].name]
        for figure in figures:
            spread = f"{figure.low:.3g}–{figure.high:.3g}" if len(figure.values) > 1 else ""
            cells += [f"{figure.median:.3g} {figure.unit}", spread, str(figure.cached or ""), str(figure.guessed or "")]
        if len(figures) == 2:
            cells.append(f"{better:.2f}" if (better := ratio(*figures)) >= 0.1 else f"{better:.2g}")
        table.append(tuple(cells))
    return table


def ratio(ours: Figure, theirs: Figure) -> float:
    """How many times better ours is: more tokens a second, or fewer seconds."""
    better, worse = (ours, theirs) if ours.unit == "tok/s" else (theirs, ours)
    return better.median / worse.median if worse.median else 0.0
