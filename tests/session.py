"""Records a session with the real model as one animated picture: `python -m tests.session [file]`.

The keys are pressed and the model answers as for a user; what is drawn is taken now and then, and becomes an SVG that
plays in a loop: each line of the terminal once for every look that it has, shown for as long as it has it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from rich.cells import cell_len
from rich.style import Style
from textual.pilot import Pilot
from textual.strip import Strip

from squish.config.settings import Settings
from squish.pull.pull import pull
from squish.runtime import Runtime
from squish.tui import theme
from squish.tui.app import SquishApp
from tests.tui.at_rest import drawn_lines
from tests.tui.scenes import note, opened, ready, screen_text

MODEL = "smollm2:135m"
QUESTION = "What is the capital of Germany?"
SIZE = (100, 28)
_KEYS = {" ": "space", "?": "question_mark", ".": "full_stop", "/": "slash"}
_CELL, _LINE, _FONT = 8.4, 18, 14
_SPACE = "\u00a0"  # a plain one is dropped at the beginning of a text
_TICK, _READ = 0.12, 1.6  # seconds between two pictures while something moves, and to read what stands still


@dataclass
class Recording:
    """What the lines of the screen looked like, and when. A wait for the model is as long as it was."""

    pilot: Pilot[None]
    seconds: float = 0.0
    frames: list[tuple[float, list[Strip]]] = field(default_factory=list)

    def take(self, lasts: float) -> None:
        """The screen as it is now, which is shown for so many seconds."""
        self.frames.append((self.seconds, drawn_lines(self.pilot.app)))
        self.seconds += lasts

    async def press(self, *keys: str, lasts: float = _TICK) -> None:
        for key in keys:
            await self.pilot.press(key)
            await self.pilot.pause()
            self.take(lasts)

    async def write(self, text: str) -> None:
        for at, character in enumerate(text):
            await self.pilot.press(_KEYS.get(character, character))
            if at % 3 == 2 or at == len(text) - 1:
                await self.pilot.pause()
                self.take(_TICK)

    async def wait_for(self, words: str) -> None:
        """Take pictures until words are in the line below the answer."""
        while words not in note(self.pilot):
            await self.pilot.pause(_TICK)
            self.take(_TICK)
        self.take(_READ)


async def play(pilot: Pilot[None]) -> Recording:
    """A newcomer asks, looks at the models, finds others and comes back."""
    recording = Recording(pilot)
    await ready(pilot)
    while "● ready" not in screen_text(pilot):
        await pilot.pause(_TICK)
    for character in "/set temperature 0":
        await pilot.press(_KEYS.get(character, character))
    await pilot.press("enter")
    await pilot.press("ctrl+n")
    await pilot.pause()
    recording.take(_READ)
    await recording.write(QUESTION)
    await recording.press("enter")
    await recording.wait_for("TTFT")
    await recording.write("Explain in two sentences why the sky is blue.")
    await recording.press("enter")
    await recording.wait_for("TTFT")
    await recording.press("ctrl+l", lasts=_READ)
    await recording.press("escape", lasts=_TICK)
    for key, table in (("f3", "#finds"), ("f4", "#models")):
        await opened(pilot, key, table)
        recording.take(_READ)
    await recording.press("f2", lasts=_READ)
    return recording


def svg(recording: Recording) -> str:
    """The recording as a picture that moves by CSS alone."""
    width, height = SIZE[0] * _CELL + 24, SIZE[1] * _LINE + 24
    looks: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    ends = [start for start, _ in recording.frames[1:]] + [recording.seconds]
    for (start, lines), end in zip(recording.frames, ends, strict=True):
        for row, strip in enumerate(lines):
            shown = looks[row, _drawn(strip, row)]
            if shown and shown[-1][1] == start:
                shown[-1] = (shown[-1][0], end)
            else:
                shown.append((start, end))
    total, rules, lines_drawn = recording.seconds, list[str](), list[str]()
    for number, ((_, drawn), times) in enumerate(looks.items()):
        if times == [(0.0, total)]:
            lines_drawn.append(drawn)
            continue
        steps = "".join(_step(start, end, total) for start, end in times)
        plays = f"k{number} {total:.1f}s step-end infinite"
        rules.append(f"@keyframes k{number}{{0%{{opacity:0}}{steps}}}.k{number}{{animation:{plays}}}")
        lines_drawn.append(f'<g class="k{number}" opacity="0">{drawn}</g>')
    ground, font = theme.squish().background, f"{_FONT}px ui-monospace,Menlo,Consolas,monospace"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"<title>A session with {MODEL}</title><style>text{{font:{font}}}{''.join(rules)}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="{ground}"/>\n'
        f'<g transform="translate(12 12)">{chr(10).join(lines_drawn)}</g></svg>\n'
    )


def _step(start: float, end: float, total: float) -> str:
    hidden = "" if end >= total else f"{100 * end / total:.2f}%{{opacity:0}}"
    return f"{100 * start / total:.2f}%{{opacity:1}}{hidden}"


def _drawn(strip: Strip, row: int) -> str:
    """A line of the terminal: grounds first, then text, each piece as wide as its cells."""
    grounds, texts, column = list[str](), list[str](), 0
    for text, style, _ in strip:
        cells, style = cell_len(text), style or Style()
        place = f'x="{column * _CELL:.1f}"'
        color, ground = style.color, style.bgcolor
        if style.reverse:
            color, ground = ground, color
        if ground is not None and ground.triplet is not None:
            size = f'y="{row * _LINE}" width="{cells * _CELL + 0.3:.1f}" height="{_LINE}"'
            grounds.append(f'<rect {place} {size} fill="{ground.triplet.hex}"/>')
        if text.strip():
            fill = color.triplet.hex if color is not None and color.triplet is not None else "#d9dde4"
            weight = ' font-weight="bold"' if style.bold else ""
            spread = f'y="{row * _LINE + _FONT}" textLength="{cells * _CELL:.1f}"'
            texts.append(
                f'<text {place} {spread} fill="{fill}"{weight}>{escape(text, quote=False).replace(" ", _SPACE)}</text>'
            )
        column += cells
    return "".join(grounds + texts)


async def record(file: Path) -> None:
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), cache_dir=Path(home) / "models", offline=True)
        async with Runtime(settings) as runtime:
            async with pull(MODEL, settings=settings, store=runtime.store) as events:
                async for _ in events:
                    pass
            app = SquishApp(runtime, MODEL)
            app.animation_level = "none"
            async with app.run_test(size=SIZE) as pilot:
                file.write_text(svg(await play(pilot)), encoding="utf-8")


if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    asyncio.run(record(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots/session.svg")))
