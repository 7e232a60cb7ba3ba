"""The prefix cache's files: what is kept, what is refused, what a full disk does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache

from squish.worker.disk import DiskTier
from squish.worker.prefix import PrefixCache
from tests.worker.test_prefix import filled, tokens

BUDGET = 1 << 20


def saved(folder: Path, *lengths: int, key: str = "model") -> DiskTier:
    tier = DiskTier(folder, key, BUDGET)
    for start, length in enumerate(lengths):
        assert tier.write(tokens(length, start=1000 * start), filled(length))
    return tier


def keys_of(caches: list[Any] | None) -> mx.array:
    assert caches
    return caches[0].keys_and_values()[0]


def test_a_new_process_finds_what_the_last_one_saved(tmp_path: Path) -> None:
    first = PrefixCache(1 << 30, [KVCache()], DiskTier(tmp_path, "model", BUDGET))
    first.put(tokens(300), filled(300))
    assert first.unsaved
    first.save(10)
    assert not first.unsaved
    second = PrefixCache(1 << 30, [KVCache()], DiskTier(tmp_path, "model", BUDGET))
    assert second.nbytes == 0, "nothing is read before it is asked for"
    length, caches = second.take(tokens(280))
    assert length == 256
    assert mx.array_equal(keys_of(caches)[0, 0, :, 0], mx.arange(256))
    assert second.nbytes > 0


def test_memory_that_is_needed_sends_an_entry_back_to_its_file(tmp_path: Path) -> None:
    known = PrefixCache(1 << 30, [KVCache()], DiskTier(tmp_path, "model", BUDGET))
    known.put(tokens(300), filled(300))
    known.save(10)
    known.shrink(0)
    assert (len(known), known.nbytes) == (1, 0)
    assert known.take(tokens(280))[0] == 256


@pytest.mark.parametrize("damage", ["cut", "grown", "garbage", "empty", "header"])
def test_damaged_files_are_removed_and_never_used(tmp_path: Path, damage: str) -> None:
    tier = saved(tmp_path, 256)
    [path] = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-100],
            "grown": content + b"x",
            "garbage": b"\xff" * 5000,
            "empty": b"",
            "header": content[:8] + b"{" + content[9:40],
        }[damage]
    )
    assert tier.read(path) is None
    assert not path.exists()


def test_files_of_another_model_are_not_used(tmp_path: Path) -> None:
    saved(tmp_path, 256, key="another model")
    assert DiskTier(tmp_path, "model", BUDGET).index() == []


def test_a_file_that_is_damaged_after_it_was_found_is_a_miss(tmp_path: Path) -> None:
    saved(tmp_path, 256, 320)
    said: list[str] = []
    known = PrefixCache(1 << 30, [KVCache()], DiskTier(tmp_path, "model", BUDGET, said.append))
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    assert known.take(tokens(256)) == (0, None)
    assert known.take(tokens(320, start=1000)) == (0, None)
    assert len(known) == 0
    assert ["damaged" in line for line in said] == [True], "it is said once"


def test_one_damaged_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    tier = saved(tmp_path, 256)
    [path] = tmp_path.iterdir()
    content = path.read_bytes()
    assert tier.read(path)
    for place in (0, 9, 60, len(content) // 4, len(content) // 2, len(content) * 3 // 4, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        known = PrefixCache(1 << 30, [KVCache()], DiskTier(tmp_path, "model", BUDGET))
        assert known.take(tokens(256)) == (0, None)
        assert not path.exists() or len(known)
        path.unlink(missing_ok=True)


def test_a_file_under_another_name_is_not_used(tmp_path: Path) -> None:
    """As files of versions without a checksum are."""
    tier = saved(tmp_path, 256)
    [path] = tmp_path.iterdir()
    plain = path.rename(tmp_path / f"{path.stem.partition('-')[0]}.safetensors")
    assert tier.read(plain) is None
    assert not plain.exists()


def test_the_same_tokens_have_one_file(tmp_path: Path) -> None:
    tier = saved(tmp_path, 256)
    other = filled(256)
    other[0].keys = other[0].keys + 1
    assert tier.write(tokens(256), other)
    [path] = tmp_path.iterdir()
    assert tier.read(path)


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    lengths = [2048] * 12  # 128 KiB each
    tier = saved(tmp_path, *lengths)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= BUDGET
    kept = {stored.tokens[0] for stored in tier.index()}
    assert 11_000 in kept
    assert 0 not in kept


def test_a_disk_that_takes_nothing_keeps_nothing_and_harms_nobody(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path / "gone", "model", BUDGET)
    (tmp_path / "gone").rmdir()
    (tmp_path / "gone").write_bytes(b"a file where the folder was")
    assert tier.write(tokens(256), filled(256)) is None
    known = PrefixCache(1 << 30, [KVCache()], tier) if tier.index() == [] else None
    assert known is not None
    known.put(tokens(300), filled(300))
    known.save(10)
    assert known.take(tokens(280))[0] == 256


def test_nobody_else_may_read_what_was_said(tmp_path: Path) -> None:
    saved(tmp_path / "private", 256)
    [path] = (tmp_path / "private").iterdir()
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
