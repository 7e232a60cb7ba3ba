"""Whose prompts a pass reads, and how far."""

from __future__ import annotations

from squish.worker.prompt.turns import Owner, PromptTurns, WaitingPrompt


def turns(**rows: str) -> PromptTurns:
    """r1="a": row 1 is a's; "-a": nobody waits for it."""
    made = PromptTurns(64)
    made.owners = {int(row[1:]): Owner(who.removeprefix("-"), who.startswith("-")) for row, who in rows.items()}
    return made


def left(**rows: int) -> list[WaitingPrompt]:
    return [WaitingPrompt(int(row[1:]), tokens) for row, tokens in rows.items()]


def test_a_pass_reads_no_more_than_it_has_room_for() -> None:
    assert turns().chosen(left(r1=100, r2=90, r3=66, r4=1), 256) == {1: 100, 2: 90, 3: 66}
    assert turns().chosen(left(r1=1000), 256) == {1: 256}
    assert turns().chosen(left(r1=60, r2=1000), 256) == {1: 60, 2: 192}, "long ones are cut in whole units"
    assert turns().chosen(left(r1=1000), 10) == {1: 64}, "at least one"
    assert turns().chosen([], 256) == {}


def test_short_ones_of_a_client_do_not_wait_for_its_long_one_nor_hold_it_up() -> None:
    assert turns().chosen(left(r1=5000, r2=30, r3=226), 256) == {2: 30, 3: 226, 1: 64}
    assert turns().chosen(left(r1=5000, r2=5000), 256) == {1: 256}, "one long one at a time"


def test_who_has_had_least_is_next() -> None:
    two = turns(r1="a", r2="b")
    read = [two.chosen(left(r1=900, r2=900), 128) for _ in range(4)]
    assert read == [{1: 128}, {2: 128}, {1: 128}, {2: 128}]


def test_who_comes_new_goes_first_for_a_while_and_not_for_good() -> None:
    some = turns(r1="a", r2="b")
    for _ in range(200):
        some.chosen(left(r1=90_000), 128)
    first = [list(some.chosen(left(r1=90_000, r2=90_000), 128)) for _ in range(40)]
    assert first[:32] == [[2]] * 32, "4,096 tokens"
    assert {1, 2} == {row for [row] in first[32:]}


def test_its_rest_of_less_than_a_unit_is_read_along() -> None:
    some = turns(r1="a", r2="b")
    some.chosen(left(r1=900), 64)
    some.chosen(left(r1=900), 64)
    assert some.chosen(left(r1=900, r2=127), 64) == {2: 127}
    assert turns(r1="a", r2="b").chosen(left(r1=127, r2=900), 64) == {1: 64}, "not of one who is not behind"


def test_what_nobody_waits_for_comes_last() -> None:
    some = turns(r1="-a", r2="a", r3="b")
    assert some.chosen(left(r1=900, r2=900), 64) == {2: 64}
    assert some.chosen(left(r1=900, r2=900, r3=64), 64) == {3: 64}
    assert some.chosen(left(r1=900), 64) == {1: 64}


def test_clients_that_have_gone_are_forgotten() -> None:
    some = PromptTurns(64)
    for number in range(500):
        some.owners = {number: Owner(str(number))}
        some.chosen([WaitingPrompt(number, 64)], 64)
        some.chosen([WaitingPrompt(number, 64)], 64)
    assert len(some._read) < 300
