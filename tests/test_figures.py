"""Figures as every front door writes them."""

from __future__ import annotations

import pytest

from squish import figures


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (12_000, "12 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (999_600, "1.0 MB"),
        (93_400_000, "93.4 MB"),
        (99_960_000, "100 MB"),
        (999_600_000, "1.0 GB"),
        (4_700_000_000, "4.7 GB"),
        (1_200_000_000_000_000, "1200 TB"),
    ],
)
def test_a_size_never_has_four_digits_of_a_smaller_unit(count: int, text: str) -> None:
    assert figures.size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (134_515_008, "135M"),
        (997_000_000, "997M"),
        (999_500_000, "1B"),
        (999_600_000, "1B"),
        (8_030_000_000, "8.03B"),
        (30_500_000_000, "30.5B"),
        (671_000_000_000, "671B"),
        (999_500_000_000, "1T"),
        (1_030_000_000_000, "1.03T"),
    ],
)
def test_parameters_have_three_digits(count: int, text: str) -> None:
    assert figures.parameters(count) == text


def test_counts() -> None:
    assert [figures.count(n) for n in (812, 1000, 6100, 99_960, 131_072)] == ["812", "1.0k", "6.1k", "100k", "131k"]
    assert [figures.amount(n) for n in (812, 999_499, 999_500, 2_400_000)] == ["812", "999k", "1.0M", "2.4M"]


def test_durations_and_speeds() -> None:
    assert [figures.seconds(n) for n in (0.31, 9.995, 10.4, 12.2, 59.6, 72, 3599.6, 11_400)] == [
        "0.31 s", "10 s", "10 s", "12 s", "1 min 0 s", "1 min 12 s", "1 h 0 min", "3 h 10 min",
    ]  # fmt: skip
    assert [figures.waited(n) for n in (0, 0.6, 59.4, 59.6, 115, 11_400)] == [
        "0 s", "1 s", "59 s", "1 min 0 s", "1 min 55 s", "3 h 10 min",
    ]  # fmt: skip
    speeds = ["3.1 tok/s", "48.2 tok/s", "100 tok/s", "100 tok/s"]
    assert [figures.speed(n) for n in (3.14, 48.23, 99.95, 99.96)] == speeds


def test_shares() -> None:
    assert [figures.percent(n) for n in (-1, 0.629, 0.999, 2)] == ["0 %", "62 %", "99 %", "100 %"]
    assert [figures.bar(n, 4) for n in (-1, 0.5, 2)] == ["▱▱▱▱", "▰▰▱▱", "▰▰▰▰"]
    assert [figures.sparkline(n) for n in ((), (0, 0), (0.5,), (1, 4, 8))] == ["", "▁▁", "█", "▂▅█"]
    assert figures.sparkline((0, 12, 24, 30), full=24) == "▁▅██", "what is more than full is full"
