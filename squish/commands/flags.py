"""Kinds of values that several commands take: times, and whole numbers within bounds. It knows no command."""

from __future__ import annotations

from typing import Any

import click

from squish.config import durations
from squish.text import whole


class Seconds(click.ParamType[float]):
    """300, 90s, 10m, 1h30m; a negative number is forever."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return durations.seconds(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time. Write seconds, or 10m, 1h30m; -1 is forever.", param, ctx)


class Whole(click.IntRange):
    """A whole number within bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if whole(str(value).removeprefix("-")) is None:
            bounds = f"from {self.min} to {self.max}" if self.max is not None else f"of at least {self.min}"
            self.fail(f"{value!r} is not a whole number. Write one {bounds}.", param, ctx)
        return super().convert(value, param, ctx)


kv_bits_option = click.option(
    "--kv-bits",
    type=click.Choice(("auto", "32", "16", "8")),
    help="On a CPU, bits per value of the KV cache, for models without a setting of their own.  [default: auto]",
)
