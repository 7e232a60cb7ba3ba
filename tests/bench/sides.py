"""Squish and llama-server on the same file, asked by the same client in alternating rounds."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from squish.bench.measure import AnswerTiming, Endpoint, Figure, ratio
from squish.system import versions
from squish.system.cores import cores
from tests.bench.client import unique_prompt

# How many times better than the other side ours is to be: with the demo model, and with one of a billion weights.
GOALS = {
    "first token, unknown prompt": (1.2, 1.2),
    "first token, known prompt": (1.0, 1.0),
    "decode, one stream": (1.0, 1.0),
    "decode, eight streams": (1.5, 1.3),
    "first token beside a stream": (1.0, 1.0),
    "longest gap while 1,500 tokens arrive": (6.0, 6.0),
}
_EXTENSIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


@dataclass
class Side:
    """One server, and what it took in each round."""

    name: str
    target: Endpoint
    taken: dict[str, list[float]] = field(default_factory=dict)

    async def round(self) -> None:
        """Every quantity once."""
        ask, take = self.target.ask, self._take
        unknown = unique_prompt(445)
        take("first token, unknown prompt", (await ask(unknown, 2)).first)
        take("first token, known prompt", (await ask(f"{unknown} {unique_prompt(4)}", 2)).first)
        take("decode, one stream", (await ask(unique_prompt(16), 96)).tps)
        answers = await asyncio.gather(*(ask(unique_prompt(16), 96) for _ in range(8)))
        begin, end = min(answer.first for answer in answers), max(answer.last for answer in answers)
        take("decode, eight streams", sum(answer.completion - 1 for answer in answers) / (end - begin))
        stream = await begun(self.target, 160)
        take("first token beside a stream", (await ask(unique_prompt(16), 2)).first)
        await stream
        stream = await begun(self.target, 240)
        await ask(unique_prompt(1500), 2)
        take("longest gap while 1,500 tokens arrive", (await stream).longest_gap)

    def _take(self, name: str, value: float) -> None:
        self.taken.setdefault(name, []).append(value)

    def figures(self) -> list[Figure]:
        return [
            Figure(name, "tok/s" if name.startswith("decode") else "s", tuple(values))
            for name, values in self.taken.items()
        ]


async def begun(target: Endpoint, tokens: int) -> asyncio.Task[AnswerTiming]:
    """An answer whose first text has come."""
    first = asyncio.Event()
    stream = asyncio.create_task(target.ask(unique_prompt(16), tokens, first))
    await asyncio.wait([stream, waiting := asyncio.create_task(first.wait())], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return stream


async def measure(sides: Sequence[Side], rounds: int) -> None:
    """Warm both up, then round by round, so that a machine that gets busier is so for both."""
    for side in sides:
        await side.target.ask(unique_prompt(200), 16)
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            print(f"round {number + 1} of {rounds}: {side.name}…", flush=True)
            await side.round()


def table(model: str, ours: Side, theirs: Side, *, large: bool) -> list[str]:
    """A line a quantity: medians with their spread, how many times better ours is, and the goal."""
    rows = [(model, ours.name, theirs.name, "BETTER", "GOAL", "")]
    for mine, other in zip(ours.figures(), theirs.figures(), strict=True):
        goal, better = GOALS[mine.name][large], ratio(mine, other)
        mark = "" if better >= goal else "missed"
        rows.append((mine.name, _cell(mine), _cell(other), f"{better:.2f}×", f"{goal:.1f}×", mark))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Names and marks stand at the left, figures at the right of their columns."""
    last = len(row) - 1
    cells = [
        cell.ljust(width) if at in (0, last) else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _cell(figure: Figure) -> str:
    return f"{figure.median:.3g} {figure.unit} ({figure.low:.3g}–{figure.high:.3g})"


def machine() -> list[str]:
    """What the figures were taken on."""
    name, flags = platform.processor() or platform.machine(), ""
    if cpuinfo := _read(Path("/proc/cpuinfo")):
        name = (re.search(r"model name\s*: (.*)", cpuinfo) or [name, name])[1]
        flags = (re.search(r"(?:flags|Features)\s*: (.*)", cpuinfo) or ["", ""])[1]
    elif platform.system() == "Darwin":
        name = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        ).stdout.strip()
    known = [each for each in _EXTENSIONS if each in flags.split()]
    return [
        f"{name}, {cores()} cores, {' '.join(known) or platform.machine()}; load {os.getloadavg()[0]:.2f}",
        versions.summary(),
    ]


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
