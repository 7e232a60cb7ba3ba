"""The prefix cache's files: what is kept, what is refused, what a full disk does."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, QuantizedKVCache, load_prompt_cache

from squish.files import lock
from squish.format import safetensors
from squish.worker.cache.cache_file import joined, lay_out, part
from squish.worker.cache.disk import DiskTier, Stored
from squish.worker.cache.prefix import PrefixCache
from squish.worker.cache.saving import PIECE
from tests.worker.cache.test_prefix import BYTES_A_TOKEN, filled, tokens

BUDGET = 1 << 20


def write(tier: DiskTier, held: list[int], caches: list[Any], before: Stored | None = None) -> Stored | None:
    new = tier.new(held, before)
    layout = lay_out([part(cache, new.start, len(held)) for cache in caches], new.about)
    stored = tier.write(new, layout.nbytes, layout.pieces(PIECE))
    if stored:
        tier.keep(stored)
    return stored


def saved(folder: Path, *lengths: int, key: str = "model") -> tuple[DiskTier, Stored]:
    """A tier with rows of these lengths, and the last of their files."""
    tier = DiskTier(folder, key, BUDGET)
    stored = [write(tier, tokens(length, start=1000 * start), filled(length)) for start, length in enumerate(lengths)]
    assert stored[-1]
    return tier, stored[-1]


def prefix_cache(folder: Path, layers: list[Any] | None = None, *, exact: bool = False) -> PrefixCache:
    return PrefixCache(1 << 30, layers or [KVCache()], DiskTier(folder, "model", BUDGET), exact=exact)


def sizes(folder: Path) -> list[int]:
    """Bytes of the tensors in each file, the oldest first."""
    files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    tensors = [safetensors.read(path, path.name)[0] for path in files]
    return [sum(tensor.size for tensor in each if len(tensor.shape) == 4) for each in tensors]


def keys_of(caches: list[Any] | None) -> mx.array:
    assert caches
    return caches[0].keys_and_values()[0]


def test_a_new_process_finds_what_the_last_one_saved(tmp_path: Path) -> None:
    first = prefix_cache(tmp_path)
    first.put(tokens(300), filled(300))
    assert first.unsaved
    first.save(60)
    assert not first.unsaved
    second = prefix_cache(tmp_path)
    assert second.nbytes == 0, "nothing is read before it is asked for"
    length, caches = second.take(tokens(280))
    assert length == 256
    assert mx.array_equal(keys_of(caches)[0, 0, :, 0], mx.arange(256))
    assert second.nbytes == 256 * BYTES_A_TOKEN


def test_memory_that_is_needed_sends_an_entry_back_to_its_file(tmp_path: Path) -> None:
    known = prefix_cache(tmp_path)
    known.put(tokens(300), filled(300))
    known.save(60)
    known.shrink(0)
    assert (len(known), known.nbytes) == (1, 0)
    known.put(tokens(400), filled(400))
    assert known.nbytes == 400 * BYTES_A_TOKEN
    known.save(60)
    known.shrink(0)
    assert (len(known), known.nbytes) == (1, 0)
    assert known.take(tokens(280))[0] == 256


def test_a_conversation_that_grows_writes_each_token_once(tmp_path: Path) -> None:
    known = prefix_cache(tmp_path)
    for length in (300, 330, 340, 400, 1000):
        known.put(tokens(length), filled(length))
        known.save(60)
    assert sorted(size // BYTES_A_TOKEN for size in sizes(tmp_path)) == [64, 64, 256, 576]
    after = prefix_cache(tmp_path)
    assert len(after) == 1, "files that go on from each other are one row"
    length, caches = after.take(tokens(1000))
    assert length == 960
    assert mx.array_equal(keys_of(caches)[0, 0, :, 0], mx.arange(960))


def test_what_is_computed_as_fast_as_it_is_read_is_not_written(tmp_path: Path) -> None:
    for length, files in ((10, 0), (255, 0), (256, 1)):
        known = prefix_cache(tmp_path)
        known.put(tokens(length), filled(length))
        known.save(60)
        assert len(list(tmp_path.iterdir())) == files


def test_something_is_unsaved_until_its_file_is_known(tmp_path: Path) -> None:
    known = prefix_cache(tmp_path)
    for start in (0, 1000):
        known.put(tokens(300, start), filled(300))
    known.tend(busy=False)
    assert known.unsaved
    known.save(60)
    assert not known.unsaved
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_computed_again_is_not_written_again(tmp_path: Path) -> None:
    known = prefix_cache(tmp_path)
    known.put(tokens(256), filled(256))
    known.save(60)
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    known.put(tokens(320), filled(320))
    known.shrink(0)
    assert len(known) == 0
    assert known.wants(tokens(256))
    known.put(tokens(256), filled(256))
    known.save(60)
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == before
    known.shrink(0)
    assert known.take(tokens(300))[0] == 256


def test_two_answers_to_one_prompt_share_its_file(tmp_path: Path) -> None:
    known = prefix_cache(tmp_path)
    fork = [*tokens(512), *tokens(128, start=5000)]
    for row in (tokens(512), tokens(640), fork):
        known.put(row, filled(len(row)))
        known.save(60)
    assert len(list(tmp_path.iterdir())) == 3
    after = prefix_cache(tmp_path)
    assert after.take([*fork, 1])[0] == 640
    assert after.take([*tokens(640), 1])[0] == 640
    assert len(after) == 2


def test_where_cuts_are_anywhere_so_are_the_files(tmp_path: Path) -> None:
    known = prefix_cache(tmp_path, exact=True)
    for length in (301, 340, 390):
        known.put(tokens(length), filled(length))
        known.save(60)
    assert sorted(size // BYTES_A_TOKEN for size in sizes(tmp_path)) == [89, 301], "39 tokens are not worth a file"
    length, caches = prefix_cache(tmp_path, exact=True).take(tokens(400))
    assert length == 390
    assert mx.array_equal(keys_of(caches)[0, 0, :, 0], mx.arange(390))


def test_a_cache_that_cannot_be_cut_is_written_whole(tmp_path: Path) -> None:
    def state(value: float) -> ArraysCache:
        cache = ArraysCache(2)
        cache[0] = mx.full((1, 3, 4), value)
        return cache

    known = prefix_cache(tmp_path, [KVCache(), ArraysCache(2)])
    for length in (256, 320):
        known.put(tokens(length), [*filled(length), state(length)])
        known.save(60)
    assert len(set(sizes(tmp_path))) == 2
    after = prefix_cache(tmp_path, [KVCache(), ArraysCache(2)])
    for length in (256, 320):
        found, caches = after.take(tokens(length + 1))
        assert found == length
        assert caches
        assert caches[1][0].tolist() == mx.full((1, 3, 4), length).tolist()
        assert caches[1][1] is None


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squish.worker.cache.saving.PIECE", 1000)
    monkeypatch.setattr("squish.worker.cache.prefix.PIECE", 1000)


@pytest.mark.usefixtures("small_pieces")
def test_an_entry_that_is_let_go_of_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    known = prefix_cache(tmp_path)
    known.put(tokens(300), filled(300))
    known.tend(busy=True)
    known.shrink(0)
    known.save(60)
    assert not known.unsaved
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_pieces")
def test_what_waits_is_written_though_others_are_let_go_of(tmp_path: Path) -> None:
    known = prefix_cache(tmp_path)
    for start in (0, 1000, 2000):
        known.put(tokens(300, start), filled(300))
    known.tend(busy=True)
    known.shrink(2 * 300 * BYTES_A_TOKEN)
    known.save(60)
    assert not known.unsaved
    assert sorted(held[0] for _, held in DiskTier(tmp_path, "model", BUDGET).index()) == [1000, 2000]


@pytest.mark.parametrize("damage", ["cut", "grown", "garbage", "empty", "header"])
def test_damaged_files_are_removed_and_never_used(tmp_path: Path, damage: str) -> None:
    tier, stored = saved(tmp_path, 256)
    path = stored.path
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
    assert tier.read(stored) is None
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
    tier, stored = saved(tmp_path, 256)
    path = stored.path
    content = path.read_bytes()
    assert tier.read(stored)
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
    _, stored = saved(tmp_path, 256)
    plain = stored.path.rename(tmp_path / f"{stored.name}.safetensors")
    known = prefix_cache(tmp_path)
    assert known.take(tokens(300)) == (0, None)
    assert not plain.exists()


def test_the_same_tokens_have_one_file(tmp_path: Path) -> None:
    tier, _ = saved(tmp_path, 256)
    other = filled(256)
    other[0].keys = other[0].keys + 1
    stored = write(tier, tokens(256), other)
    assert stored
    assert [stored.path] == list(tmp_path.iterdir())
    assert tier.read(stored)


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    lengths = [2048] * 12  # 128 KiB each
    tier, _ = saved(tmp_path, *lengths)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= BUDGET
    kept = {held[0] for _, held in tier.index()}
    assert 11_000 in kept
    assert 0 not in kept


def test_a_disk_that_takes_nothing_keeps_nothing_and_harms_nobody(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path / "gone", "model", BUDGET)
    (tmp_path / "gone").rmdir()
    (tmp_path / "gone").write_bytes(b"a file where the folder was")
    assert write(tier, tokens(256), filled(256)) is None
    known = PrefixCache(1 << 30, [KVCache()], tier) if tier.index() == [] else None
    assert known is not None
    known.put(tokens(300), filled(300))
    known.save(60)
    assert known.take(tokens(280))[0] == 256


def test_nobody_else_may_read_what_was_said(tmp_path: Path) -> None:
    saved(tmp_path / "private", 256)
    [path] = (tmp_path / "private").iterdir()
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_file_outlives_those_that_go_on_from_it(tmp_path: Path) -> None:
    """Room is made at the ends of rows: what is left of a row is of use."""
    tier = DiskTier(tmp_path, "model", BUDGET)
    before = None
    for length in range(2048, 2048 * 7, 2048):  # 128 KiB each
        before = write(tier, tokens(length), filled(length), before)
    assert before
    assert tier.read(before)
    file = before
    while file.before:
        assert file.path.stat().st_mtime_ns < file.before.path.stat().st_mtime_ns
        file = file.before
    for start in range(100_000, 500_000, 100_000):
        assert write(tier, tokens(2048, start), filled(2048))
    left = prefix_cache(tmp_path).take([*tokens(20_000)])[0]
    assert 0 < left < before.length


def test_a_file_that_goes_on_from_nothing_is_removed(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, "model", BUDGET)
    first = write(tier, tokens(256), filled(256))
    second = write(tier, tokens(320), filled(320), first)
    assert first
    assert second
    first.path.unlink()
    assert tier.longest(tokens(400)) is None
    assert tier.read(second) is None
    assert DiskTier(tmp_path, "model", BUDGET).index() == []
    assert not list(tmp_path.iterdir())


def test_a_row_that_fills_the_budget_is_kept_and_one_that_is_larger_is_not(tmp_path: Path) -> None:
    first = lay_out(filled(256), {"key": "x"}).nbytes
    for budget, files in ((first - 1, 0), (first, 1), (2 * first, 2), (2 * first - 1, 1)):
        folder = tmp_path / str(budget)
        tier = DiskTier(folder, "model", budget)
        for row in (tokens(256), tokens(256, start=1000)):
            new = tier.new(row)
            image = lay_out(filled(256), {"key": "x"})
            tier.write(new, image.nbytes, image.pieces(PIECE))
        assert len(list(folder.iterdir())) == files
    tier = DiskTier(tmp_path / "parts", "model", 100_000)
    before = write(tier, tokens(512), filled(512))
    assert before
    size = before.path.stat().st_size
    half = lay_out([part(filled(640)[0], 512, 640)], {})
    for budget, fits in ((size + half.nbytes, True), (size + half.nbytes - 1, False)):
        tier._budget = budget
        stored = tier.write(tier.new(tokens(640), before), half.nbytes, half.pieces(PIECE))
        assert (stored is not None) is fits
        assert before.path.exists()


def test_only_damage_is_said(tmp_path: Path) -> None:
    """Files of another model, and those that go on from nothing, go without a word."""
    tier, first = saved(tmp_path / "deep" / "model", 256)
    write(tier, tokens(320), filled(320), first)
    first.path.unlink()
    saved(tmp_path / "deep" / "model", 300, key="another model")
    said: list[str] = []
    assert DiskTier(tmp_path / "deep" / "model", "model", BUDGET, said.append).index() == []
    assert said == []
    (tmp_path / "deep" / "model" / "x.safetensors").write_bytes(b"damaged")
    assert DiskTier(tmp_path / "deep" / "model", "model", BUDGET, said.append).index() == []
    assert len(said) == 1
    assert not list((tmp_path / "deep" / "model").iterdir())


def test_files_that_are_gone_are_forgotten_in_time(tmp_path: Path) -> None:
    tier, kept = saved(tmp_path, 256)
    most = 0
    for number in range(1000):
        tier.keep(Stored(tmp_path / "gone", str(number), number))
        most = max(most, len(tier._files))
    assert 60 < most < 70
    assert tier.longest(tokens(300)) is kept


def test_an_older_squish_takes_a_part_for_foreign(tmp_path: Path) -> None:
    """It knows no parts, and would take one for the whole; it asks only what `key` says."""
    tier, first = saved(tmp_path, 256)
    second = write(tier, tokens(320), filled(320), first)
    assert second
    said = [safetensors.read(each.path, each.path.name)[1]["0.key"] for each in (first, second)]
    assert said[0] == "model"
    assert said[1] != "model"


def test_what_a_killed_process_was_writing_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / "killed.partial").write_bytes(b"half")
    with (tmp_path / "written.partial").open("wb") as file:
        lock(file.fileno())
        DiskTier(tmp_path, "model", BUDGET).index()
        assert [path.name for path in tmp_path.iterdir()] == ["written.partial"]


def layers() -> list[Any]:
    """Every kind of cache that can be cut, in the number formats that there are."""
    numbers = mx.random.normal((1, 2, 512, 64))
    found: list[Any] = []
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        cache = KVCache()
        cache.keys, cache.values, cache.offset = numbers.astype(dtype), -numbers.astype(dtype), 500
        found.append(cache)
    quantized = QuantizedKVCache(group_size=32, bits=4)
    quantized.update_and_fetch(numbers[..., :500, :], -numbers[..., :500, :])
    return [*found, quantized, CacheList(found[0], found[2]), KVCache()]


def flat(caches: list[Any]) -> list[Any]:
    return [
        item.view(mx.uint8).tolist() if isinstance(item, mx.array) else item
        for item in dict(tree_flatten([cache.state for cache in caches])).values()
    ]


def test_what_mlx_lm_reads_of_a_file_is_what_was_laid_out(tmp_path: Path) -> None:
    caches = [part(cache, 64, 192) for cache in layers()]
    for size in (7, 100_000):
        (tmp_path / "file.safetensors").write_bytes(b"".join(lay_out(caches, {"key": "x"}).pieces(size)))
        read, said = load_prompt_cache(str(tmp_path / "file.safetensors"), return_metadata=True)
        assert flat(read) == flat(caches)
        assert [type(cache) for cache in read] == [type(cache) for cache in caches]
        assert said == {"key": "x"}


def test_parts_are_joined_to_the_bit() -> None:
    caches = layers()
    cuts = [0, 64, 65, 300, 500]
    again = [joined([part(cache, a, b) for a, b in pairwise(cuts)]) for cache in caches]
    assert flat(again) == flat([part(cache, 0, 500) for cache in caches])


def test_a_layout_is_as_long_as_it_says_and_no_piece_is_longer_than_asked(tmp_path: Path) -> None:
    layout = lay_out([part(cache, 0, 192) for cache in layers()], {})
    pieces = [len(piece) for piece in layout.pieces(1000)]
    assert sum(pieces) == layout.nbytes
    assert max(pieces) == 1000


def test_nothing_is_copied_on_the_way_to_the_disk() -> None:
    cache = KVCache()
    cache.keys = mx.random.normal((1, 2, 512, 64)).astype(mx.bfloat16)
    cache.values, cache.offset = -cache.keys, 500
    image = lay_out([part(cache, 64, 192)], {})
    assert len(image.header) % 8 == 0
    pieces = list(image.pieces(4096))[1:]
    assert sum(map(len, pieces)) == 2 * 2 * 128 * 64 * 2 + 4, "and the offset"
    for piece in pieces:
        assert any(np.shares_memory(np.frombuffer(piece, np.uint8), tensor) for tensor in image.tensors)
    assert not any(tensor.flags.owndata for tensor in image.tensors)


def test_an_array_in_another_order_is_laid_out_in_its_own() -> None:
    cache = KVCache()
    cache.keys = cache.values = mx.arange(2 * 64 * 4).reshape(1, 4, 2, 64).transpose(0, 2, 3, 1)
    cache.offset = 64
    content = b"".join(lay_out([cache], {}).pieces(100))
    assert np.ascontiguousarray(np.array(cache.keys)).tobytes() in content
