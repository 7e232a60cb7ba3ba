"""Times as people write them."""

from __future__ import annotations

import pytest

from squish.config.durations import LONGEST, checked, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("300", 300), ("-1", -1), ("1e3", 1000), (".5", 0.5), (" 90S ", 90), ("+5s", 5), ("500ms", 0.5), ("10m", 600),
        ("1h30m", 5400), ("-1h", -3600), ("-1h30m", -5400),
    ],
)  # fmt: skip
def test_a_time_is_read(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "-", "s", "1d", "1h1", "--1", "1 h", "nan", "inf", "1e9", "-1e9", "٣"])
def test_what_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        seconds(text)


def test_a_time_is_shorter_than_the_longest() -> None:
    assert checked(LONGEST - 1) == LONGEST - 1
    with pytest.raises(ValueError, match="is not a time"):
        checked(LONGEST)
