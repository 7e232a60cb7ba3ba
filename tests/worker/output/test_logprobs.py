"""The bytes of tokens, the likeliest of them, and which tokens a part of the text was made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from squish.generation import TokenLogprob
from squish.worker.output.logprobs import Ledger, LogprobRequest, Vocabulary, _likeliest, read


def vocabulary(*tokens: str | bytes | None) -> Vocabulary:
    def decode(ids: list[int]) -> str:
        return f"decoded {ids[0]}"

    return Vocabulary(SimpleNamespace(detokenizer=SimpleNamespace(tokenmap=tokens), decode=decode))


def test_a_byte_level_vocabulary_writes_bytes_as_visible_characters() -> None:
    written = vocabulary("a", "Ġb", "Ċ", "Ã©", "ÃĤ", "ÂŃ", "~¡¬®ÿ")
    assert [written.bytes_of(token) for token in range(7)] == [
        b"a", b" b", b"\n", "é".encode(), b"\xc3\x82", "\xad".encode(), b"~\xa1\xac\xae\xff",
    ]  # fmt: skip


def test_every_byte_has_a_character_of_its_own() -> None:
    characters = [*map(chr, range(0x21, 0x7F)), *map(chr, range(0xA1, 0xAD)), *map(chr, range(0xAE, 0x100))]
    known = vocabulary(*characters, *(chr(0x100 + at) for at in range(256 - len(characters))))
    found = [known.bytes_of(token) for token in range(256)]
    assert sorted(found) == [bytes([byte]) for byte in range(256)]
    assert found[: len(characters)] == [bytes([ord(character)]) for character in characters]


def test_other_vocabularies_write_bytes_or_text() -> None:
    assert vocabulary("▁".encode() + b"a").bytes_of(0) == b" a"
    assert vocabulary("日本").bytes_of(0) == "日本".encode()
    assert vocabulary("a日").bytes_of(0) == "a日".encode()
    assert vocabulary("", None, "x").bytes_of(0) == vocabulary("", None, "x").bytes_of(1) == b""


def test_a_token_beyond_the_table_has_no_bytes_and_without_a_table_the_tokenizer_is_asked() -> None:
    two = vocabulary("a", "b")
    assert [two.bytes_of(token) for token in (-1, 0, 1, 2)] == [b"", b"a", b"b", b""]
    assert vocabulary().bytes_of(0) == b"decoded 0"


@pytest.mark.parametrize("size", [10, 64, 1000, 1024])
@pytest.mark.parametrize("top", [0, 1, 5])
def test_the_likeliest_come_first_and_of_equals_the_first(size: int, top: int) -> None:
    chance = np.random.default_rng(size + top)
    for row in (
        chance.standard_normal(size).astype(np.float32),
        chance.integers(0, 3, size).astype(np.float32),
        np.zeros(size, np.float32),
        np.arange(size, dtype=np.float32),
        -np.arange(size, dtype=np.float32),
    ):
        expected = sorted(range(size), key=lambda token, row=row: (-row[token], token))[:top]  # type: ignore[misc]
        assert _likeliest(row, top).tolist() == expected


@pytest.mark.parametrize("use_numpy", [False, True])
def test_the_entries_of_a_step_have_as_many_of_the_likeliest_as_each_asked_for(use_numpy: bool) -> None:
    known = vocabulary(*"abcdef")
    values = mx.array([-3.0, -1.0, -float("inf"), -2.0, -5.0, -4.0])
    asked = [(2, 3), (1, 1), (5, 0)]
    found = read([LogprobRequest(token, values, top) for token, top in asked], known, use_numpy)
    assert [(each.token, each.bytes, each.logprob) for each in found] == [
        ("c", b"c", -9999.0), ("b", b"b", -1.0), ("f", b"f", -4.0),
    ]  # fmt: skip
    assert [[(likely.token, likely.logprob) for likely in each.top] for each in found] == [
        [("b", -1.0), ("d", -2.0), ("a", -3.0)], [("b", -1.0)], [],
    ]  # fmt: skip
    everything = read([LogprobRequest(0, values, 6)], known, use_numpy)[0].top
    assert (everything[-1].token, everything[-1].logprob) == ("c", -9999.0), "JSON cannot say minus infinity"
    assert read([LogprobRequest(0, values, 0)], known, use_numpy)[0].top == ()
    assert read([], known, use_numpy) == []


def entry(data: bytes) -> TokenLogprob:
    return TokenLogprob(data.decode(errors="replace"), data, -1.0)


def ledger(*steps: tuple[list[bytes], str]) -> Ledger:
    """Of steps in which these tokens made the text longer by a segment."""
    made = Ledger()
    for tokens, segment in steps:
        for token in tokens:
            made.note(entry(token))
        made.went_on(segment)
    return made


def taken(of: Ledger, start: int, end: int) -> list[Any]:
    return [each.bytes for each in of.take(start, end)]


def test_entries_leave_with_the_text_of_their_tokens() -> None:
    some = ledger(([b"ab"], "ab"), ([b"c", b"d"], "cd"))
    assert (taken(some, 0, 2), taken(some, 2, 3), taken(some, 3, 4)) == ([b"ab"], [b"c"], [b"d"])
    assert taken(some, 0, 4) == []


def test_a_first_space_that_the_text_does_not_have_is_not_in_the_bytes() -> None:
    assert taken(ledger(([b" a"], "a")), 0, 1) == [b"a"]
    assert taken(ledger(([b" a", b"b"], "ab")), 0, 2) == [b"a", b"b"]
    assert taken(ledger(([b"", b" a"], "a")), 0, 1) == [b"", b"a"]


def test_tokens_that_only_together_are_the_text_have_its_bytes_at_the_last() -> None:
    some = ledger(([b"x", b"y"], "other"), ([b"z"], "z"))
    assert taken(some, 0, 6) == [b"", b"other", b"z"]


def test_halves_of_a_character_leave_together() -> None:
    some = ledger(([b"a\xc3", b"\xa9b"], "aéb"), ([b"c"], "c"))
    assert some.boundary(2) == 0 and some.boundary(3) == 3 and some.boundary(9) == 4
    assert taken(some, 0, 4) == [b"a\xc3", b"\xa9b", b"c"]


def test_a_token_that_is_only_partly_in_the_text_is_cut() -> None:
    cut = ledger(([b"<t>ab", b"cd"], "<t>abcd"))
    assert taken(cut, 3, 6) == [b"ab", b"c"]
    assert taken(cut, 6, 7) == [b"d"], "what is left of it comes later"
    halves = ledger(([b"<\xc3", b"\xa9>"], "<é>"))
    assert taken(halves, 1, 2) == [b"\xc3", b"\xa9"]
    assert taken(ledger(([b"<\xc3", b"\xa9>"], "<é>")), 2, 3) == [b">"], "one without bytes in it is left out"
    assert taken(ledger(([b"abc"], "abc")), 1, 3) == [b"bc"]


def test_what_is_forgotten_has_no_entries() -> None:
    some = ledger(([b"a", b"b", b"c"], "abc"))
    some.forget(2)
    assert taken(some, 0, 3) == [b"c"]
    assert some.boundary(3) == 0


def test_a_place_in_front_of_all_tokens_is_no_boundary() -> None:
    some = ledger(([b"ab", b"cd"], "abcd"))
    assert [some.boundary(at) for at in range(5)] == [0, 0, 2, 2, 4]


def test_a_token_without_text_waits_for_the_next() -> None:
    some = ledger(([b"\xc3"], ""), ([b"\xa9"], "é"), ([], "!"), ([b"a"], "a"))
    assert taken(some, 0, 1) == [b"\xc3", b"\xa9"]
    assert taken(some, 1, 3) == [b"a"], "text of no token has none"
