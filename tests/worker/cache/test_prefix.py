"""The prefix cache: what it gives back, what it never gives back, what it drops. The caches are real ones."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, QuantizedKVCache, RotatingKVCache

from squish.system.host import Pressure
from squish.worker.cache.prefix import BLOCK, PrefixCache, can_trim

BYTES_A_TOKEN = 2 * 2 * 4 * 4  # keys and values, two heads of four float32


def filled(length: int) -> list[Any]:
    cache = KVCache()
    cache.keys = mx.arange(length, dtype=mx.float32).reshape(1, 1, length, 1) * mx.ones((1, 2, 1, 4))
    cache.values = cache.keys + 0.5
    cache.offset = length
    return [cache]


def tokens(length: int, start: int = 0) -> list[int]:
    return list(range(start, start + length))


def prefix_cache(budget_tokens: int = 100_000) -> PrefixCache:
    return PrefixCache(budget_tokens * BYTES_A_TOKEN, [KVCache()])


def test_the_longest_prefix_is_found_in_whole_blocks_and_one_token_is_left() -> None:
    known = prefix_cache()
    known.put(tokens(200), filled(200))
    assert known.take(tokens(200))[0] == 192
    assert known.take(tokens(192))[0] == 128
    assert known.take(tokens(100))[0] == 64
    assert known.take([*tokens(150), 9999])[0] == 128
    assert known.take(tokens(64)) == (0, None)
    assert known.take(tokens(300, start=7)) == (0, None)


def test_views_share_the_arrays_and_have_their_own_length() -> None:
    known = prefix_cache()
    known.put(tokens(256), filled(256))
    [[long], [short]] = [known.take(tokens(length))[1] or [] for length in (256, 130)]
    assert (long.offset, short.offset) == (192, 128)
    assert long.keys is short.keys
    assert mx.array_equal(short.keys_and_values()[0][0, 0, :, 0], mx.arange(128))


@pytest.mark.parametrize(("length", "held"), [(40, 40), (204, 204), (205, 256), (256, 256)])
def test_what_is_kept_takes_the_memory_of_its_tokens(length: int, held: int) -> None:
    """Caches grow by 256 tokens, and a short answer's would be mostly room."""
    known = PrefixCache(1 << 20, [KVCache()], exact=True)
    for cache in (made := filled(256)):
        cache.offset = length
    known.put(tokens(length), made)
    assert known.nbytes == held * BYTES_A_TOKEN
    found, caches = known.take([*tokens(length), 7])
    assert found == length
    assert caches
    assert mx.array_equal(caches[0].keys_and_values()[0][0, 0, :, 0], mx.arange(length))


def test_a_longer_row_replaces_the_shorter_one_that_it_begins_with() -> None:
    known = prefix_cache()
    known.put(tokens(128), filled(128))
    known.put(tokens(256), filled(256))
    assert (len(known), known.nbytes) == (1, 256 * BYTES_A_TOKEN)
    assert not known.wants(tokens(128))
    assert known.wants(tokens(320))


def test_the_least_recently_used_goes_first_and_its_shared_blocks_stay_served() -> None:
    known = prefix_cache(budget_tokens=600)
    fork = [*tokens(128), *tokens(128, start=5000)]
    known.put(tokens(256), filled(256))
    known.put(fork, filled(256))
    known.take([*tokens(256), 1])
    known.put(tokens(192, start=9000), filled(192))
    assert known.take([*fork, 1])[0] == 128, "the fork is gone; what it shares with the other row is not"
    assert known.take([*tokens(256), 1])[0] == 256
    assert known.nbytes <= known.budget


def test_what_is_larger_than_the_budget_is_not_kept() -> None:
    known = prefix_cache(budget_tokens=100)
    known.put(tokens(128), filled(128))
    assert (len(known), known.nbytes) == (0, 0)
    assert known.take(tokens(128)) == (0, None)


def test_what_is_kept_beside_a_row_takes_a_part_of_the_budget_at_most() -> None:
    known = prefix_cache(budget_tokens=1024)
    known.put(tokens(128), filled(128), part=8)
    known.put(tokens(192, start=5000), filled(192), part=8)
    assert [known.take(tokens(200, start))[0] for start in (0, 5000)] == [128, 0]
    assert known.nbytes == 128 * BYTES_A_TOKEN
    known.put(tokens(192, start=5000), filled(192))
    assert known.take(tokens(200, start=5000))[0] == 192


def test_dropping_everything_leaves_nothing_behind() -> None:
    known = prefix_cache()
    for start in range(0, 5000, 500):
        known.put([*tokens(64), *tokens(128, start=start)], filled(192))
    known.shrink(0)
    assert (len(known), known.nbytes) == (0, 0)
    assert known.take(tokens(65)) == (0, None)


@pytest.mark.parametrize("layer", [ArraysCache(2), RotatingKVCache(max_size=32)], ids=["recurrent", "rotating"])
def test_a_cache_that_cannot_be_trimmed_serves_its_exact_length_only(layer: Any) -> None:
    known = PrefixCache(1 << 30, [KVCache(), layer])
    assert not known.trimmable and not can_trim([layer]), "nor while it is empty, as mlx-lm says of a window"
    assert not known.wants(tokens(150))
    assert known.wants(tokens(128))
    known.put(tokens(128), filled(128))
    assert known.take(tokens(129))[0] == 128
    assert known.take(tokens(127)) == (0, None)
    assert known.take(tokens(2 * BLOCK)) == (0, None)


def exact_cache(budget_tokens: int = 100_000, layer: Any = None) -> PrefixCache:
    return PrefixCache(budget_tokens * BYTES_A_TOKEN, [layer or KVCache()], exact=True)


def test_where_numbers_do_not_depend_on_cuts_the_longest_prefix_is_found_to_the_token() -> None:
    known = exact_cache()
    known.put(tokens(200), filled(200))
    for asked, found in ((tokens(200), 199), (tokens(201), 200), (tokens(300), 200), (tokens(100), 99), (tokens(2), 1)):
        length, caches = known.take(asked)
        assert (length, (caches or [])[0].offset) == (found, found)
    assert known.take([*tokens(150), 9999, 8888])[0] == 150
    assert known.take([*tokens(195), 9999, 8888])[0] == 195
    assert known.take(tokens(300, start=7)) == (0, None)
    assert known.take([5]) == (0, None)


def test_a_row_that_goes_on_replaces_what_it_begins_with_to_the_token() -> None:
    known = exact_cache()
    for length in (40, 100, 150, 260):
        assert known.wants(tokens(length))
        known.put(tokens(length), filled(length))
        assert (len(known), known.nbytes) == (1, length * BYTES_A_TOKEN)
        assert not any(known.wants(tokens(shorter)) for shorter in range(1, length + 1))
    fork = [*tokens(130), *tokens(20, start=500)]
    known.put(fork, filled(150))
    assert len(known) == 2
    assert known.take([*fork, 1])[0] == 150
    assert known.take([*tokens(260), 1])[0] == 260
    known.shrink(260 * BYTES_A_TOKEN)
    assert known.take([*fork, 1])[0] == 130, "the fork is gone; what it shares with the other row is not"
    known.shrink(0)
    assert (len(known), known.nbytes, known.take([*fork, 1])) == (0, 0, (0, None))


def test_a_cache_that_cannot_be_trimmed_serves_any_exact_length() -> None:
    known = exact_cache(layer=RotatingKVCache(max_size=32))
    for length in (70, 100, 150):
        known.put(tokens(length), filled(length))
    assert [known.take(tokens(length))[0] for length in (70, 71, 120, 150, 400)] == [0, 70, 100, 100, 150]


def test_memory_that_others_need_is_given_back_the_least_recently_used_first() -> None:
    pressure: Pressure = "normal"
    known = PrefixCache(1000 * BYTES_A_TOKEN, [KVCache()], pressure=lambda: pressure)
    for start in (0, 10_000, 20_000):
        known.put(tokens(256, start), filled(256))
    known.fit()
    assert known.nbytes == 3 * 256 * BYTES_A_TOKEN
    pressure = "warning"
    known.fit()
    assert known.nbytes == 256 * BYTES_A_TOKEN
    assert known.take(tokens(256, 20_000))[0] == 192
    pressure = "critical"
    known.fit()
    assert known.nbytes == 0


def test_what_is_wanted_is_long_enough_and_new() -> None:
    known = prefix_cache()
    assert [known.wants(tokens(length)) for length in (0, 63, 64, 127)] == [False, False, True, True]
    known.put(tokens(127), filled(127))
    assert [known.wants(tokens(length)) for length in (64, 127, 128)] == [False, False, True]
    assert known.wants([*tokens(63), 9])
    recurrent = PrefixCache(1 << 30, [ArraysCache(2)])
    recurrent.put(tokens(128), filled(128))
    assert [recurrent.wants(tokens(length)) for length in (64, 100, 128, 192)] == [True, False, False, True]
    exact = exact_cache()
    assert [exact.wants(tokens(length)) for length in (0, 1, 2)] == [False, False, True]


def test_what_fills_the_budget_is_kept_and_leaving_as_much_lets_nothing_go() -> None:
    known = prefix_cache(budget_tokens=384)
    known.put(tokens(384), filled(384))
    assert known.nbytes == known.budget
    known = prefix_cache()
    for start in (0, 1000):
        known.put(tokens(128, start), filled(128))
    known.shrink(known.nbytes)
    assert len(known) == 2
    known.shrink(known.nbytes - 1)
    assert len(known) == 1
    assert known.take(tokens(129)) == (0, None), "the one that was put in first is gone"


def test_a_block_that_is_not_whole_is_not_found() -> None:
    known = prefix_cache()
    known.put(tokens(127), filled(127))
    assert known.take(tokens(128))[0] == 64
    known.shrink(0)
    assert not known._root.children


def test_without_a_disk_nothing_waits_for_it() -> None:
    known = prefix_cache()
    known.put(tokens(300), filled(300))
    assert not known.unsaved
    known.tend(busy=True)
    known.save(0)


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_rows_that_part_within_a_block_the_one_that_agrees_longer_serves(turned: bool) -> None:
    rows = [tokens(100), [*tokens(80), *tokens(20, start=500)]]
    known = exact_cache()
    for row in reversed(rows) if turned else rows:
        known.put(row, filled(100))
    assert known.take([*rows[1][:91], 7, 7])[0] == 91
    assert known.take([*rows[0][:91], 7, 7])[0] == 91
    assert known.take([*tokens(80), 7, 7])[0] == 80
    assert known.take([*tokens(70), 7, 7])[0] == 70


def test_layers_of_several_caches_are_cut_in_all_of_them() -> None:
    known = PrefixCache(1 << 30, [CacheList(KVCache(), QuantizedKVCache())])
    assert known.trimmable
    known.put(tokens(200), [CacheList(*filled(200), *filled(200))])
    length, caches = known.take(tokens(150))
    assert length == 128
    assert caches
    assert [part.offset for part in caches[0].caches] == [128, 128]
    assert not PrefixCache(1 << 30, [CacheList(KVCache(), ArraysCache(1))]).trimmable


def test_what_two_rows_share_is_served_by_the_one_that_is_left() -> None:
    known = prefix_cache()
    rows = [[*tokens(192), *tokens(64, start)] for start in (1000, 2000, 3000)]
    for row in rows:
        known.put(row, filled(256))
    for left in (2, 1):
        known.shrink(left * 256 * BYTES_A_TOKEN)
        assert (len(known), known.nbytes) == (left, left * 256 * BYTES_A_TOKEN)
        assert known.take([*tokens(192), 7])[0] == 192
    assert known.take([*rows[2], 7])[0] == 256
    known.shrink(0)
    assert known.take([*rows[2], 7]) == (0, None)
    assert not known._root.children


def test_a_hit_saves_a_row_from_being_the_next_to_go() -> None:
    known = prefix_cache()
    for start in (0, 1000):
        known.put(tokens(128, start), filled(128))
    assert known.take(tokens(129))[0] == 128
    known.shrink(128 * BYTES_A_TOKEN)
    assert known.take(tokens(129))[0] == 128
