"""Figures as people read them: sizes, counts, speeds and bars. Pure text; knows no widget."""

from __future__ import annotations

from collections.abc import Sequence

FULL, EMPTY = "▰", "▱"
_LEVELS = "▁▂▃▄▅▆▇█"


def size(count: int) -> str:
    """Bytes in decimal units, at most three digits: `93 MB`, `4.7 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return _three_digits(value, unit)
        value /= 1000
    return _three_digits(value, "TB")


def of_total(used: int, total: int) -> str:
    """Two sizes in gigabytes with the unit once: `9.8/24 GB`."""
    return f"{used / 1e9:.1f}/{total / 1e9:.0f} GB"


def count(number: int) -> str:
    """A count of tokens: `812`, `6.1k`, `128k`."""
    if number < 1000:
        return str(number)
    return f"{number / 1000:.1f}k" if number < 99_950 else f"{number / 1000:.0f}k"


def parameters(number: int) -> str:
    """A count of weights: `135M`, `7.2B`."""
    if number < 999_500_000:
        return f"{number / 1e6:.0f}M"
    return f"{number / 1e9:.1f}B"


def speed(tokens_per_second: float) -> str:
    digits = 1 if tokens_per_second < 9.95 else 0
    return f"{tokens_per_second:.{digits}f} tok/s"


def seconds(duration: float) -> str:
    """`0.31 s`, `12 s`, `2 min 5 s`."""
    if duration < 9.995:
        return f"{duration:.2f} s"
    if duration < 59.5:
        return f"{duration:.0f} s"
    return f"{duration // 60:.0f} min {duration % 60:.0f} s"


def bar(fraction: float, width: int) -> str:
    """A bar of `width` cells. fraction is cut to 0..1; a cell is full only when its share is reached."""
    full = int(min(max(fraction, 0.0), 1.0) * width + 1e-9)
    return FULL * full + EMPTY * (width - full)


def sparkline(values: Sequence[float]) -> str:
    """A column for each value, the largest one full."""
    most = max(values, default=0.0)
    return "".join(_LEVELS[int(value / most * (len(_LEVELS) - 1) + 0.5) if most > 0 else 0] for value in values)


def percent(fraction: float) -> str:
    return f"{int(min(max(fraction, 0.0), 1.0) * 100)} %"


def _three_digits(value: float, unit: str) -> str:
    digits = 1 if value < 9.95 and unit not in ("B", "kB") else 0
    return f"{value:.{digits}f} {unit}"


def amount(number: int) -> str:
    """A count of things: `812`, `6.1k`, `2.4M`."""
    return count(number) if number < 999_500 else f"{number / 1e6:.1f}M"
