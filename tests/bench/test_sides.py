"""The table of `make bench -- --llama`: its columns stay apart, however long a range is."""

from __future__ import annotations

import re

from squish.bench.measure import Endpoint
from tests.bench.sides import GOALS, Side, table


def side(name: str, factor: float) -> Side:
    """What one server took: a range that is short, and one that is long."""
    taken = {
        quantity: [0.0298 * factor, 0.0237 * factor, 0.03 * factor] if number % 2 else [1234.5678 * factor]
        for number, quantity in enumerate(GOALS)
    }
    return Side(name, Endpoint("http://127.0.0.1:9", "m"), taken)


def test_columns_are_as_wide_as_what_stands_in_them() -> None:
    model = "a model whose name is longer than any quantity:1b"
    lines = table(model, side("Squish", 1.0), side("llama-server", 1.379), large=False)
    head, *rows = [re.split(r"  +", line) for line in lines]
    assert head == [model, "Squish", "llama-server", "BETTER", "GOAL"]
    assert [row[0] for row in rows] == list(GOALS)
    assert all(len(row) in (5, 6) for row in rows)
    known = dict(zip(GOALS, rows, strict=True))["first token, known prompt"]
    assert known[1:] == ["0.0298 s (0.0237–0.03)", "0.0411 s (0.0327–0.0414)", "1.38×", "1.0×"]
    ends = [line.index(row[2]) + len(row[2]) for line, row in zip(lines[1:], rows, strict=True)]
    assert len(set(ends)) == 1
