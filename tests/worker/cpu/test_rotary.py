"""Rotary position embedding on the CPU gives the numbers of MLX's own, in a fraction of its operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from squish.worker.cpu import rotary

FREQS = mx.array([1.0, 3.0, 10.0, 4000.0])


@pytest.fixture
def rope(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(mx.fast, "rope", mx.fast.rope)
    rotary.use_short_rotation()
    return mx.fast.rope


@pytest.mark.parametrize("offset", [0, 7000, mx.array([3, 7000])], ids=["start", "late", "a row each"])
@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize(
    "how",
    [
        {"dims": 8, "base": 10000.0},
        {"dims": 8, "base": 500000.0, "scale": 0.25},
        {"dims": 8, "base": None, "freqs": FREQS},
        {"dims": 4, "base": 10000.0},
        {"dims": 8, "base": 10000.0, "traditional": True},
    ],
    ids=["plain", "scaled", "own frequencies", "a part", "traditional"],
)
def test_a_rotation_gives_the_same_numbers(
    how: dict[str, Any], length: int, offset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = mx.fast.rope
    monkeypatch.setattr(mx.fast, "rope", original)
    rotary.use_short_rotation()
    ours: Any = mx.fast.rope
    assert ours is not original
    x = mx.random.normal((2, length, 3, 8)).swapaxes(1, 2)
    how = {"traditional": False, "scale": 1.0, "offset": offset} | how
    dims = how.pop("dims")
    assert mx.allclose(ours(x, dims, **how), original(x, dims, **how), atol=1e-6)


def test_a_rotation_is_few_operations(rope: Any, tmp_path: Path) -> None:
    x = mx.random.normal((1, 3, 1, 8))
    mx.eval(x)
    picture = tmp_path / "graph.dot"
    mx.export_to_dot(str(picture), rope(x, 8, traditional=False, base=10000.0, scale=1.0, offset=mx.array([9])))
    computed = [
        name for name in ("Cos", "Sin", "Multiply", "Add") for _ in range(picture.read_text().count(f'"{name}"'))
    ]
    assert sorted(computed) == ["Add", "Cos", "Multiply", "Multiply", "Multiply", "Sin"]
    assert '"Exp"' not in picture.read_text()
