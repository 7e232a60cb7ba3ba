"""A model in several GGUF files is imported from any of them, and refused by name where one is missing."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from squish.errors import CorruptModel, UnsupportedModel
from squish.worker.gguf.file import read_header
from squish.worker.gguf.importer import import_gguf, inspect_start
from squish.worker.gguf.plan import make_plan
from tests.worker.gguf.tiny import tiny_model
from tests.worker.gguf.writer import Q8_0, Blob, Value, write_gguf


def _write(folder: Path) -> list[Path]:
    """Three parts, the first without a tensor of a layer, as llama.cpp's splitter writes them."""
    tiny, _ = tiny_model(Q8_0)
    names = list(tiny.tensors)
    cuts = [names[:3], names[3:12], names[12:]]
    paths = []
    for number, part in enumerate(cuts):
        own: dict[str, Value] = {"split.no": number, "split.count": len(cuts), "split.tensors.count": len(names)}
        metadata = {**tiny.metadata, **own} if number == 0 else own
        tensors: dict[str, Blob] = {name: tiny.tensors[name] for name in part}
        paths.append(write_gguf(folder / f"tiny-{number + 1:05}-of-00003.gguf", metadata, tensors))
    return paths


@pytest.mark.parametrize("at", [0, 2])
def test_a_model_in_parts_is_what_it_is_in_one_file(tmp_path: Path, at: int) -> None:
    tiny, _ = tiny_model(Q8_0)
    import_gguf(tiny.write(tmp_path / "whole.gguf"), tmp_path / "whole")
    import_gguf(_write(tmp_path)[at], tmp_path / "parts")
    whole, parts = (mx.load(str(tmp_path / name / "model.safetensors")) for name in ("whole", "parts"))
    assert isinstance(whole, dict) and isinstance(parts, dict)
    assert whole.keys() == parts.keys()
    assert all(mx.array_equal(whole[name], parts[name]).item() for name in whole)


def test_the_first_part_alone_says_what_the_model_is(tmp_path: Path) -> None:
    first, *others = _write(tmp_path)
    for path in others:
        path.unlink()
    assert make_plan(read_header(first), whole=False).architecture == "llama"
    size = first.stat().st_size
    assert inspect_start(first, size, ((0, size),)) is None


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths = _write(tmp_path)
    paths[1].unlink()
    with pytest.raises(CorruptModel, match="tiny-00002-of-00003"):
        import_gguf(paths[0], tmp_path / "out")


def test_a_part_of_another_place_is_refused(tmp_path: Path) -> None:
    paths = _write(tmp_path)
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(CorruptModel, match="not part 2"):
        import_gguf(paths[0], tmp_path / "out")


def test_a_part_without_a_number_in_its_name_is_refused(tmp_path: Path) -> None:
    first = _write(tmp_path)[0].rename(tmp_path / "model.gguf")
    with pytest.raises(UnsupportedModel, match="00001-of-00003"):
        import_gguf(first, tmp_path / "out")
