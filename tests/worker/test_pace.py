"""How many prompt tokens a step reads: as many as the measured speed allows in the time that others may wait."""

from __future__ import annotations

import pytest

from squish.system.accelerator import PREFILL_STEP, PREFILL_STEP_ON_CPU
from squish.worker.cache.prefix import BLOCK
from squish.worker.pace import PrefillPace


def sizes(pace: PrefillPace) -> tuple[int, int]:
    """Alone, and beside streams."""
    return pace.step_size(decoding=False), pace.step_size(decoding=True)


def test_until_something_was_measured_a_step_is_small() -> None:
    pace = PrefillPace(on_cpu=False)
    pace.measured(BLOCK - 1, 1.0)  # the overhead, more than the speed
    pace.measured(BLOCK, 0.0)
    pace.measured(BLOCK, -1.0)
    assert sizes(pace) == (4 * BLOCK, 4 * BLOCK)


def test_a_step_takes_a_second_alone_and_less_than_half_of_one_beside_streams() -> None:
    pace = PrefillPace(on_cpu=False)
    pace.measured(BLOCK, BLOCK / 1000)
    assert sizes(pace) == (1000 // BLOCK * BLOCK, 400 // BLOCK * BLOCK)


@pytest.mark.parametrize(("on_cpu", "largest"), [(True, PREFILL_STEP_ON_CPU), (False, PREFILL_STEP)])
def test_a_step_is_a_block_at_least_and_has_an_upper_limit(on_cpu: bool, largest: int) -> None:
    slow, fast = PrefillPace(on_cpu=on_cpu), PrefillPace(on_cpu=on_cpu)
    slow.measured(BLOCK, 1000.0)
    fast.measured(1 << 20, 1.0)
    assert sizes(slow) == (BLOCK, BLOCK)
    assert sizes(fast) == (largest, largest)


def test_the_newest_measurement_counts_for_three_tenths() -> None:
    pace = PrefillPace(on_cpu=False)
    pace.measured(1000, 1.0)
    pace.measured(2000, 1.0)
    assert sizes(pace) == (1300 // BLOCK * BLOCK, 520 // BLOCK * BLOCK)
    for _ in range(60):
        pace.measured(BLOCK, BLOCK / 300)
    assert sizes(pace) == (300 // BLOCK * BLOCK, 120 // BLOCK * BLOCK)


@pytest.mark.parametrize(
    ("speed", "on_cpu", "piece"), [(200, True, 64), (1400, True, 128), (1000, False, 512), (100_000, False, 9984)]
)
def test_a_pass_takes_a_tenth_of_a_second(speed: int, on_cpu: bool, piece: int) -> None:
    """In blocks, and on a GPU in none that are so small that each token takes longer."""
    pace = PrefillPace(on_cpu=on_cpu)
    assert pace.piece_size == (64 if on_cpu else 512), "nothing is measured"
    pace.measured(10 * speed, 10.0)
    assert pace.piece_size == piece
