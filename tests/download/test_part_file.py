"""A file on its way to the disk, without a network: ranges, running hashes, the sidecar, what a second run takes up."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from threading import Event

import msgspec
import pytest

from squish.download import part_file
from squish.download.disk import Stopped
from squish.download.part_file import PartFile
from squish.download.remote_file import Downloaded, RemoteFile, Sidecar, read_sidecar
from squish.errors import CorruptModel, StoreError

CONTENT = bytes(range(100, 142))  # 42 bytes: ranges of 10 are four and a rest of 2
GO = Event()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_file, "CHUNK", 4)
    monkeypatch.setattr(part_file, "_HASHED_AT_ONCE", 8)


def stopped() -> Event:
    event = Event()
    event.set()
    return event


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\x00" % len(content) + content, usedforsecurity=False).hexdigest()


FILE = RemoteFile("https://example.org/a", "sub/a.bin", len(CONTENT), sha256(CONTENT))


def part_of(folder: Path, span: int = 10, file: RemoteFile = FILE) -> PartFile:
    return PartFile(file, folder / "files" / file.path, folder / "x/parts/a.part", folder / "x/parts/a.json", span)


def opened(folder: Path, span: int = 10, file: RemoteFile = FILE) -> PartFile:
    part = part_of(folder, span, file)
    part.open(GO)
    return part


def fill(part: PartFile, *numbers: int, size: int = 3) -> None:
    """Write whole ranges, in small pieces."""
    for number in numbers:
        while not part.is_complete(number):
            at = part.position(number)
            part.write(number, CONTENT[at : min(at + size, part.end(number))])


@pytest.mark.parametrize(
    ("size", "span", "ends"),
    [(42, 10, [10, 20, 30, 40, 42]), (40, 10, [10, 20, 30, 40]), (42, 0, [42]), (9, 10, [9]), (0, 0, [0]), (1, 1, [1])],
)
def test_a_file_is_divided_into_ranges(tmp_path: Path, size: int, span: int, ends: list[int]) -> None:
    part = part_of(tmp_path, span, RemoteFile("", "a", size))
    assert [part.end(number) for number in part.ranges] == ends
    assert [part.position(number) for number in part.ranges] == [0, *ends[:-1]]
    assert [part.is_complete(number) for number in part.ranges] == [size == 0] * len(ends)
    assert part.received == 0


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3)])
@pytest.mark.parametrize("size", [1, 3, 10])
def test_in_whatever_order_ranges_come_the_file_is_whole(tmp_path: Path, order: tuple[int, ...], size: int) -> None:
    part = opened(tmp_path)
    fill(part, *order, size=size)
    assert part.received == 42
    assert part.finish(GO) == Downloaded("sub/a.bin", 42, sha256(CONTENT))
    assert part.target.read_bytes() == CONTENT
    assert not part.path.exists()
    assert not part.sidecar.exists()
    assert part.finished(GO) == Downloaded("sub/a.bin", 42, sha256(CONTENT))


def test_what_is_hashed_while_writing_has_a_limit_and_the_rest_is_hashed_at_the_end(tmp_path: Path) -> None:
    part = opened(tmp_path)
    fill(part, 1, 2, 3)
    assert part._hashed == 0
    fill(part, 0, size=10)
    assert part._hashed == 18, "the ten that came, and eight of those behind them"
    part.write(4, CONTENT[40:])
    assert part._hashed == 26
    part.finish(GO)
    assert part._hashed == 42


def test_bytes_are_hashed_as_they_come_and_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = opened(tmp_path, span=0)
    monkeypatch.delattr(os, "pread")
    fill(part, 0)
    assert part.finish(GO).sha256 == sha256(CONTENT)


@pytest.mark.parametrize("file", [FILE, RemoteFile("", "a", 42, git_blob=blob(CONTENT)), RemoteFile("", "a", 42)])
def test_the_hash_that_is_known_is_the_one_that_counts(tmp_path: Path, file: RemoteFile) -> None:
    part = opened(tmp_path, file=file)
    fill(part, *part.ranges)
    assert part.finish(GO).sha256 == sha256(CONTENT)
    again = part_of(tmp_path, file=file)
    assert again.finished(GO) == Downloaded(file.path, 42, sha256(CONTENT))
    again.target.write_bytes(CONTENT[::-1])
    assert (again.finished(GO) is None) is (file.sha256 is not None or file.git_blob is not None)


@pytest.mark.parametrize(
    ("file", "found", "expected"),
    [
        (RemoteFile("", "a", 42, sha256(b"other")), sha256(CONTENT), sha256(b"other")),
        (RemoteFile("", "a", 42, git_blob=blob(b"other")), blob(CONTENT), blob(b"other")),
    ],
)
def test_a_wrong_hash_is_said_and_the_bytes_stay(tmp_path: Path, file: RemoteFile, found: str, expected: str) -> None:
    part = opened(tmp_path, file=file)
    fill(part, *part.ranges)
    with pytest.raises(CorruptModel, match=f"{found[:12]}….*{expected[:12]}…") as caught:
        part.finish(GO)
    assert caught.value.hint
    assert part.path.read_bytes() == CONTENT
    assert not part.target.exists()


def test_what_stands_in_the_place_of_the_file_is_checked(tmp_path: Path) -> None:
    part = part_of(tmp_path)
    assert part.finished(GO) is None
    part.target.parent.mkdir(parents=True)
    for wrong in (CONTENT[:-1], CONTENT + b"x", CONTENT[:-1] + b"x"):
        part.target.write_bytes(wrong)
        assert part.finished(GO) is None
        assert not part.target.exists()
    part.target.write_bytes(CONTENT)
    with pytest.raises(Stopped):
        part.finished(stopped())
    assert part.target.exists()


def test_a_file_of_the_right_hash_is_of_the_right_size(tmp_path: Path) -> None:
    """Where no hash is known, the size is all there is."""
    part = part_of(tmp_path, file=RemoteFile("", "a", 42))
    part.target.parent.mkdir(parents=True)
    part.target.write_bytes(CONTENT + b"x")
    assert part.finished(GO) is None


def test_the_sidecar_is_written_when_a_chunk_or_a_range_is_full(tmp_path: Path) -> None:
    part = opened(tmp_path)

    def said() -> tuple[int, ...]:
        known = read_sidecar(part.sidecar)
        assert known
        assert known.span == 10
        return known.done

    seen = []
    for size in (3, 1, 3, 2, 1):  # 3, 4, 7, 9, 10 of a range; chunks are full at 4 and 8
        at = part.position(1)
        part.write(1, CONTENT[at : at + size])
        seen.append(said()[1])
    assert seen == [0, 4, 4, 9, 10]
    part.write(4, CONTENT[40:41])
    assert said()[4] == 0
    part.write(4, CONTENT[41:])
    assert said()[4] == 2
    part.write(2, CONTENT[20:21])
    part.close()
    assert said() == (0, 10, 1, 0, 2)
    part.close()


def test_a_single_range_needs_no_sidecar_but_its_length(tmp_path: Path) -> None:
    part = opened(tmp_path, span=0)
    before = part.sidecar.stat().st_ino
    part.write(0, CONTENT[:20])
    part.close()
    assert part.sidecar.stat().st_ino == before, "it is not even written again"
    assert read_sidecar(part.sidecar) == Sidecar(42, FILE.sha256, None, None)


@pytest.mark.parametrize("span", [0, 10])
def test_a_second_run_goes_on(tmp_path: Path, span: int) -> None:
    first = opened(tmp_path, span)
    assert (first.resumed, first.etag) == (False, None)
    first.restart("v1")
    first.write(0, CONTENT[:7])
    if span:
        fill(first, 2)
    first.close()
    second = opened(tmp_path, 5)
    assert (second.resumed, second.etag, second.received) == (True, "v1", 17 if span else 7)
    assert len(second.ranges) == (5 if span else 1), "as the first run divided it"
    assert (second.position(0), second._hashed) == (7, 7)
    fill(second, *second.ranges)
    assert second.finish(GO).sha256 == sha256(CONTENT)


def test_two_ranges_are_two(tmp_path: Path) -> None:
    part = opened(tmp_path, 30)
    part.restart(None)
    assert len(part.ranges) == 2
    part.write(1, CONTENT[30:35])
    known = read_sidecar(part.sidecar)
    assert known
    assert known.done == (0, 5)
    part.write(1, CONTENT[35:36])
    part.close()
    assert part_of(tmp_path).resumed is False
    known = read_sidecar(part.sidecar)
    assert known
    assert known.done == (0, 6)


def test_one_byte_is_something_to_go_on_from(tmp_path: Path) -> None:
    first = opened(tmp_path, span=0)
    first.write(0, CONTENT[:1])
    first.close()
    assert opened(tmp_path).resumed


def test_a_sidecar_that_somebody_deletes_is_not_missed_at_the_end(tmp_path: Path) -> None:
    part = opened(tmp_path, span=0)
    fill(part, 0)
    part.sidecar.unlink()
    assert part.finish(GO).size == 42


def test_a_second_run_that_finds_nothing_has_not_resumed(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.restart("v1")
    first.close()
    second = opened(tmp_path)
    assert (second.resumed, second.received, len(second.ranges), second.etag) == (False, 0, 5, "v1")


@pytest.mark.parametrize(
    ("done", "length", "taken"),
    [
        ((10, 10, 10, 10, 2), 42, True),
        ((0, 10, 0, 0, 0), 20, True),
        ((0, 10, 0, 0, 0), 19, False),
        ((10, 0, 0, 0, 0), 42, True),
        ((0, 0, 0, 0, 3), 43, False),
        ((11, 0, 0, 0, 0), 42, False),
        ((0, 0, 0, -1, 0), 42, False),
        ((10, 10, 10, 10), 42, False),
        ((10, 10, 10, 10, 2, 0), 42, False),
    ],
)
def test_a_sidecar_that_cannot_be_right_is_not_believed(
    tmp_path: Path, done: tuple[int, ...], length: int, taken: bool
) -> None:
    first = opened(tmp_path)
    first.close()
    first.path.write_bytes((CONTENT + b"x")[:length])
    first.sidecar.write_bytes(msgspec.json.encode(Sidecar.of(FILE, None, 10, done)))
    second = opened(tmp_path)
    assert second.resumed is taken
    assert second.received == (sum(done) if taken else 0)
    assert second.path.stat().st_size == (length if taken else 0)


def test_a_single_range_that_is_too_long_is_not_believed(tmp_path: Path) -> None:
    for length, taken in ((42, 42), (43, 0)):
        first = opened(tmp_path, span=0)
        first.close()
        first.path.write_bytes((CONTENT + b"x")[:length])
        assert opened(tmp_path, span=0).received == taken


def test_bytes_of_another_version_of_the_file_are_forgotten(tmp_path: Path) -> None:
    first = opened(tmp_path)
    fill(first, 0)
    first.close()
    other = opened(tmp_path, file=RemoteFile(FILE.url, FILE.path, 42, sha256(b"other")))
    assert (other.received, other.resumed, other.path.stat().st_size) == (0, False, 0)


def test_a_new_beginning_forgets_all(tmp_path: Path) -> None:
    part = opened(tmp_path)
    fill(part, 0, 1)
    part.restart("v2")
    assert (part.received, part.etag, part.resumed, len(part.ranges)) == (0, "v2", False, 5)
    assert read_sidecar(part.sidecar) == Sidecar.of(FILE, "v2", 10, (0,) * 5)
    fill(part, 0)
    part.restart("v3", whole=True)
    assert (part.received, len(part.ranges), part._hashed) == (0, 1, 0)
    assert read_sidecar(part.sidecar) == Sidecar.of(FILE, "v3")
    fill(part, 0)
    assert part.finish(GO).sha256 == sha256(CONTENT)


def test_a_small_file_in_one_range_stays_in_one(tmp_path: Path) -> None:
    part = opened(tmp_path, span=42)
    part.restart(None)
    assert [part.end(number) for number in part.ranges] == [42]
    known = read_sidecar(part.sidecar)
    assert known
    assert (known.span, known.done) == (0, ())


def test_hashing_what_is_there_can_be_stopped(tmp_path: Path) -> None:
    first = opened(tmp_path)
    fill(first, *first.ranges)
    with pytest.raises(Stopped):
        again = part_of(tmp_path)
        first.close()
        again.open(stopped())
    again = opened(tmp_path)
    assert again.received == 42


def test_a_part_that_somebody_cuts_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    part = opened(tmp_path)
    fill(part, 1)
    os.truncate(part.path, 0)
    with pytest.raises(StoreError, match="another program"):
        fill(part, 0, size=10)


def test_a_part_that_is_closed_takes_nothing(tmp_path: Path) -> None:
    part = part_of(tmp_path)
    with pytest.raises(StoreError, match="not open"):
        part.write(0, b"x")
    part.open(GO)
    part.close()
    with pytest.raises(StoreError, match="not open"):
        part.restart(None)


def test_a_write_that_the_system_takes_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, real = opened(tmp_path), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: real(descriptor, data[:2], at))
    fill(part, *part.ranges, size=10)
    part.finish(GO)
    assert part.target.read_bytes() == CONTENT


def test_others_may_read_it_and_only_its_owner_may_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        part = opened(tmp_path)
    finally:
        os.umask(before)
    assert part.path.stat().st_mode & 0o777 == 0o644
    part.close()
