"""Figures as people read them: sizes, counts, durations, speeds and bars, one rule for every front door.

Three digits at most, so that a column of them stays narrow. Pure text; it knows no terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

FULL, EMPTY = "▰", "▱"
_LEVELS = "▁▂▃▄▅▆▇█"


def size(count: float) -> str:
    """Bytes in decimal units: `812 B`, `93.4 MB`, `4.7 GB`, `128 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit in ("B", "kB") else f"{_short(value)} {unit}"
        value /= 1000
    return f"{_short(value)} TB"


def of_total(used: int, total: int) -> str:
    """Two sizes in gigabytes with the unit once: `9.8/24 GB`."""
    return f"{used / 1e9:.1f}/{total / 1e9:.0f} GB"


def count(number: int) -> str:
    """A count of tokens: `812`, `6.1k`, `131k`."""
    return str(number) if number < 1000 else f"{_short(number / 1000)}k"


def amount(number: int) -> str:
    """A count of things: `812`, `6.1k`, `2.4M`."""
    return count(number) if number < 999_500 else f"{_short(number / 1e6)}M"


def parameters(number: int) -> str:
    """A count of weights: `135M`, `8.03B`, `1.03T`."""
    for unit, scale in (("M", 1e6), ("B", 1e9)):
        if number < 999.5 * scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number / 1e12:.3g}T"


def speed(tokens_per_second: float) -> str:
    """`3.1 tok/s`, `48.2 tok/s`, `136 tok/s`."""
    return f"{_short(tokens_per_second)} tok/s"


def seconds(duration: float) -> str:
    """What something took: `0.31 s`, `12 s`, `2 min 5 s`, `3 h 10 min`."""
    return f"{duration:.2f} s" if duration < 9.995 else waited(duration)


def waited(duration: float) -> str:
    """What goes on, or is left: whole seconds, `4 s`, `1 min 55 s`, `3 h 10 min`."""
    whole = round(duration)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(fraction: float) -> str:
    """Rounded down, so that 100 % is all of it; cut to 0..1."""
    return f"{int(min(max(fraction, 0.0), 1.0) * 100)} %"


def bits(quantization: str) -> str:
    """The formats of the weights, most weights first, without what stands in parentheses: `4-bit`, `Q4_K with Q6_K`.

    Earlier versions wrote `mixed 3.9-bit (group 64)`, of codes without their scales.
    """
    return quantization.partition(" (")[0].removeprefix("mixed ").replace(" bits a weight, mixed", "-bit")


def bar(fraction: float, width: int) -> str:
    """A bar of `width` cells. fraction is cut to 0..1; a cell is full only when its share is reached."""
    full = int(min(max(fraction, 0.0), 1.0) * width + 1e-9)
    return FULL * full + EMPTY * (width - full)


def sparkline(values: Sequence[float], full: float = 0.0) -> str:
    """A column for each value. full: the value of a full column; 0 makes the largest one full."""
    most = full or max(values, default=0.0)
    top = len(_LEVELS) - 1
    return "".join(_LEVELS[min(int(value / most * top + 0.5), top) if most > 0 else 0] for value in values)


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
