"""How well a text stands out from its ground in a terminal, and a color that does, nearer to black or to white.

Knows nothing of themes: colors are values of style sheets, as `#7cc4a4 30%` or `auto 60%`, by the names of variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import msgspec
from rich.color import Color as RichColor
from rich.color import ColorSystem
from textual.color import Color

TEXT, DIMMED = 4.5, 3.0
"""The least contrast, as WCAG counts it: of what is read, and of what is secondary, a mark, or colored code."""
_STEPS, _WEAKER, _KNOWN = 20, 0.9, 2048

Light = Callable[[Color], float]
"""The relative luminance, 0 to 1, of what a terminal shows for a color."""


class Pair(msgspec.Struct, frozen=True):
    """A variable of text, and what it lies on: grounds from the bottom up.

    least: the contrast there. marking: where it is a sign or a secondary word in a row that is marked by its ground,
    so that DIMMED is enough. tint: a ground's variable, which is weakened where no text could be read on it.
    """

    text: str
    grounds: tuple[str, ...]
    least: float = TEXT
    marking: tuple[str, ...] = ()
    tint: str = ""

    def on(self) -> Iterator[tuple[str, float]]:
        """Each ground with the least contrast."""
        yield from ((ground, self.least) for ground in self.grounds)
        yield from ((ground, DIMMED) for ground in self.marking)


def stronger(value: str, pair: Pair, variables: Mapping[str, str], light: Light) -> tuple[str, bool]:
    """The first color that can be read, and whether one can: less transparent, then nearer to black or to white."""
    grounds = [(ground_of(layers, variables), least) for layers, least in pair.on()]

    def share(text: str) -> float:
        """Of the contrast that there must be."""
        return min(contrast(text, ground, light) / least for ground, least in grounds)

    if share(value) >= 1:
        return value, True
    pole = max(("#FFFFFF", "#000000"), key=share)
    tried = [*_candidates(value, pole)]
    best = next((each for each in tried if share(each) >= 1), None)
    return (best, True) if best else (max(tried, key=share), False)


def _candidates(value: str, pole: str) -> Iterator[str]:
    end, percent = Color.parse(pole), re.fullmatch(r"auto (\d+)%", value)
    if percent:
        yield from (f"auto {each}%" for each in range(int(percent[1]) + 1, 101))
        start = end.with_alpha(int(percent[1]) / 100)
    else:
        start = parsed(value)
    steps = [step / _STEPS for step in range(1, _STEPS + 1)]
    if start.a < 1:
        yield from (start.with_alpha(start.a + (1 - start.a) * step).hex for step in steps)
    yield from (start.with_alpha(1).blend(end, step, alpha=1).hex for step in steps)


def weaker(tint: str) -> str:
    color = parsed(tint)
    return color.with_alpha(color.a * _WEAKER).hex


def ground_of(layers: str, variables: Mapping[str, str]) -> Color:
    """The color of `surface + primary 25%`: variables over each other, the last on top."""
    ground = Color(0, 0, 0)
    for layer in layers.split(" + "):
        name, _, percent = layer.partition(" ")
        ground += parsed(f"{variables[name]} {percent}".strip())
    return ground


def parsed(value: str) -> Color:
    """A style sheet's color, of which a percentage is the opacity."""
    color, _, percent = value.partition(" ")
    found = Color.parse(color)
    return found.with_alpha(int(percent.removesuffix("%")) / 100) if percent else found


def contrast(text: str, ground: Color, light: Light) -> float:
    """The ratio of WCAG, 1 to 21, of the two as the terminal shows them."""
    share = re.fullmatch(r"auto (\d+)%", text)
    color = ground.get_contrast_text(int(share[1]) / 100) if share else parsed(text)
    less, more = sorted((light(ground), light(ground + color)))
    return (more + 0.05) / (less + 0.05)


def light_in(color_system: str | None, no_color: bool) -> Light:
    """color_system: what Rich found the terminal to have; no_color: Textual makes greys of colors then."""
    system = {"256": ColorSystem.EIGHT_BIT, "standard": ColorSystem.STANDARD}.get(color_system or "")

    @lru_cache(_KNOWN)
    def light(color: Color) -> float:
        red, green, blue = (color.monochrome if no_color else color).rgb
        if system is not None:
            red, green, blue = RichColor.from_rgb(red, green, blue).downgrade(system).get_truecolor()
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4
                  for each in (red / 255, green / 255, blue / 255)]  # fmt: skip
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    return light
