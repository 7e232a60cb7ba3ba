"""What a sidecar says of a part: of which file it is, and how much of it is there. A damaged one says nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from squish.download.remote_file import (
    RemoteFile,
    Sidecar,
    bytes_from_start,
    bytes_on_disk,
    bytes_without_gap,
    read_sidecar,
)

FILE = RemoteFile("https://hub.example/a", "a", 1000, "5" * 64, None)


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": ' + b"[" * 100_000, b'{"size": "\xff"}', b"[]"], ids=len)
def test_a_damaged_sidecar_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "part.json").write_bytes(content)
    assert read_sidecar(tmp_path / "part.json") is None


@pytest.mark.parametrize(
    ("span", "done", "length", "on_disk", "from_start"),
    [
        (0, (), 0, 0, 0),
        (0, (), 400, 400, 400),
        (0, (), 2000, 1000, 2000),  # longer than it may be: the size is looked at where it goes on
        (400, (400, 100, 0), 1000, 500, 500),
        (400, (100, 400, 200), 1000, 700, 100),
        (400, (400, 400, 200), 1000, 1000, 1000),
        (400, (400, 400, 0), 1000, 800, 800),
        (400, (0, 0, 0), 1000, 0, 0),
        (1, (1,) * 1000, 1000, 1000, 1000),
    ],
)
def test_how_much_of_a_file_is_there(
    tmp_path: Path, span: int, done: tuple[int, ...], length: int, on_disk: int, from_start: int
) -> None:
    part, sidecar = tmp_path / "part", tmp_path / "part.json"
    part.write_bytes(b"x" * length)
    sidecar.write_bytes(msgspec.json.encode(Sidecar.of(FILE, "etag", span, done)))
    assert bytes_on_disk(FILE, part, sidecar) == on_disk
    assert bytes_from_start(FILE, part, sidecar) == from_start
    if span:
        assert bytes_without_gap(done, span) == from_start


@pytest.mark.parametrize(
    "changed", [{"size": 999}, {"sha256": "6" * 64}, {"git_blob": "7" * 40}, {"sha256": None}], ids=str
)
def test_of_another_version_of_a_file_nothing_is_there(tmp_path: Path, changed: dict[str, object]) -> None:
    part, sidecar = tmp_path / "part", tmp_path / "part.json"
    part.write_bytes(b"x" * 400)
    known = Sidecar.of(FILE, "etag", 400, (400, 0, 0))
    sidecar.write_bytes(msgspec.json.encode(known))
    other = replace(FILE, **changed)  # type: ignore[arg-type]
    assert known.belongs_to(FILE) and known.belongs_to(replace(FILE, url="https://elsewhere.example", path="b"))
    assert not known.belongs_to(other)
    assert bytes_on_disk(other, part, sidecar) == bytes_from_start(other, part, sidecar) == 0


def test_without_a_part_or_a_sidecar_nothing_is_there(tmp_path: Path) -> None:
    part, sidecar = tmp_path / "part", tmp_path / "part.json"
    sidecar.write_bytes(msgspec.json.encode(Sidecar.of(FILE, None)))
    assert bytes_on_disk(FILE, part, sidecar) == bytes_from_start(FILE, part, sidecar) == 0
    part.mkdir()
    assert bytes_on_disk(FILE, part, sidecar) == bytes_from_start(FILE, part, sidecar) == 0
    part.rmdir()
    part.write_bytes(b"x")
    sidecar.unlink()
    assert bytes_on_disk(FILE, part, sidecar) == bytes_from_start(FILE, part, sidecar) == 0
