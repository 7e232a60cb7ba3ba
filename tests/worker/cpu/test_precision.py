"""What rounding activations to 8 bits costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import mlx.core as mx
import pytest

from squish.models.store import Store
from tests.conftest import MODEL, home_settings
from tests.worker.cpu import precision
from tests.worker.cpu.opened import native

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the extension is for Linux")


@pytest.mark.parametrize("share", [0.05, pytest.param(1.0, marks=pytest.mark.long)])
def test_rounding_hardly_raises_the_perplexity_of_a_real_model(share: float, real_home: Path, tmp_path: Path) -> None:
    native()
    model = Store(home_settings(real_home).cache_dir).find(MODEL).path
    found = precision.cost(model, tmp_path / "predictions", share)
    assert found.rise < precision.MOST
    assert 0 < found.divergence < 0.002


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 64), (6, 128), (8, 32)])
@pytest.mark.parametrize("peaks", [(7,), (7, 100, 767), (64, 90), (40, 41, 42, 43)])
def test_a_few_large_numbers_do_not_take_precision_from_those_beside_them(
    bits: int, group: int, peaks: tuple[int, ...]
) -> None:
    """As in Gemma, whose norms make a few channels forty times as large as the others, in an eighth of the groups."""
    mx.random.seed(bits)
    weight, scales, biases = mx.quantize(mx.random.normal((83, 768)), group, bits)
    plain = mx.dequantize(weight, scales, biases, group, bits)
    x = mx.random.normal((20, 768))
    large = mx.array([40.0 if column in peaks else 1.0 for column in range(768)]) * x
    matrix = native().pack(weight, scales, biases, bits, group)

    def error(x: mx.array) -> float:
        [found] = native().products(x, [matrix])
        return cast(float, mx.sqrt(mx.square(found - x @ plain.T).mean()).item())

    assert error(large) < 1.3 * error(x)
