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


def taken(some: PromptTurns, waiting: dict[int, int], step: int) -> dict[int, int]:
    """A pass that reads all that was chosen."""
    chosen = some.chosen([WaitingPrompt(*each) for each in waiting.items()], step)
    some.charge(chosen)
    return chosen


def served(some: PromptTurns, waiting: dict[int, int], step: int) -> list[int]:
    """The rows in the order in which they are read to the end."""
    done = []
    while waiting:
        for row, tokens in taken(some, waiting, step).items():
            waiting[row] -= tokens
            if not waiting[row]:
                del waiting[row]
                done.append(row)
    return done


def test_one_prompt_goes_before_what_is_left_of_anothers_many() -> None:
    many = {f"r{number}": "a" for number in range(1, 30)}
    for had in (0, 300, 5000):
        some = turns(r50="b", **many)
        served(some, {50: had} if had else {}, 128)
        served(some, {1: 500}, 128)
        assert served(some, {2: 1000, 3: 125, 4: 500, 5: 64, 50: 300}, 128)[0] == 50, "also if it has had more before"


def test_who_asks_all_the_time_does_not_keep_another_waiting_for_good() -> None:
    some = turns(r1="a", r2="b", **{f"r{number}": f"c{number}" for number in range(3, 400)})
    waiting = {1: 4000}
    for turn in range(400):
        waiting.setdefault(2 if turn % 2 else 3 + turn, 64)
        for row, tokens in taken(some, waiting, 64).items():
            waiting[row] -= tokens
            if not waiting[row]:
                del waiting[row]
    assert 1 not in waiting


def test_the_last_prompt_of_one_is_read_to_its_end_while_others_wait() -> None:
    assert turns(r1="a", r2="b").chosen(left(r1=900, r2=127), 64) == {2: 127}
    assert turns(r1="a", r2="a").chosen(left(r1=900, r2=127), 64) == {1: 64}
    assert turns().chosen(left(r1=127), 64) == {1: 64}, "not where nobody waits"


def test_it_is_longer_than_there_is_room_by_less_than_a_unit() -> None:
    assert turns(r1="a", r2="b").chosen(left(r1=900, r2=128), 64) == {2: 64}


def test_what_one_leaves_of_a_pass_is_for_the_next() -> None:
    assert turns(r1="a", r2="b").chosen(left(r1=63, r2=63), 256) == {1: 63, 2: 63}
    assert turns(r1="a", r2="b").chosen(left(r1=1, r2=63), 64) == {1: 1, 2: 63}, "to the last token"
    assert turns(r1="a", r2="b").chosen(left(r1=200, r2=5000), 256) == {1: 200}, "and no more than it leaves"


def test_a_pass_reads_eight_prompts_at_most() -> None:
    short = {f"r{row}": 1 for row in range(2, 12)}
    assert list(turns().chosen(left(**short), 256)) == [*range(2, 10)]
    assert list(turns().chosen(left(r1=5000, **short), 256)) == [*range(2, 9), 1], "one of them the long one"
    of_two = turns(**{row: "b" if int(row[1:]) > 6 else "a" for row in short})
    assert len(of_two.chosen(left(**short), 256)) == 8


def test_who_was_away_for_a_short_time_has_not_lost_what_it_had() -> None:
    some = turns(r1="a", r2="b", r3="c")
    some.chosen(left(r1=600, r2=5000), 600)
    some.charge({1: 600})
    taken(some, {2: 64}, 64)  # the first has nothing to read
    assert list(some.chosen(left(r1=100, r3=300), 64)) == [3], "which has had nothing"


def test_who_was_away_for_long_is_forgotten() -> None:
    some = turns(r1="a", r2="b")
    taken(some, {1: 64}, 64)
    served(some, {2: 5000}, 256)
    assert list(some._read) == [Owner("b")]


def test_answers_are_charged_as_well() -> None:
    """One that reads many prompts goes before one that decodes all the time, however little that reads."""
    some = turns(r1="a", r2="b", r3="a")
    for _ in range(20):
        assert taken(some, {2: 125}, 512) == {2: 125}
    taken(some, {1: 125}, 512)
    for _ in range(200):
        some.answered([1])
    assert list(some.chosen(left(r3=125, r2=125), 125)) == [2]


def test_a_step_charges_every_token_that_a_row_had() -> None:
    some = turns(r1="a", r2="b", r3="b")
    some.answered([1, 1, 1, 2, 3])
    assert list(some.chosen(left(r1=64, r2=64), 64)) == [2]


def test_beside_the_one_whose_turn_it_is_others_fill_up_what_is_left_of_a_smaller_room() -> None:
    some = turns(r1="a", r2="b", r3="c", r4="d")
    waiting = left(r1=20, r2=30, r3=60, r4=900)
    assert some.chosen(waiting, 512, 64) == {1: 20, 2: 30}
    assert turns(r1="a", r2="b").chosen(left(r1=125, r2=126), 512, 64) == {1: 125}
    assert turns(r1="a", r2="a").chosen(left(r1=125, r2=126), 512, 64) == {1: 125, 2: 126}, "its own have all of it"


def test_what_nobody_waits_for_comes_last() -> None:
    some = turns(r1="-a", r2="a", r3="b")
    assert some.chosen(left(r1=900, r2=900), 64) == {2: 64}
    assert some.chosen(left(r1=900, r2=900, r3=64), 64) == {3: 64}
    assert some.chosen(left(r1=900), 64) == {1: 64}


def test_clients_that_have_gone_are_forgotten() -> None:
    some = PromptTurns(64)
    for number in range(500):
        some.owners = {number: Owner(str(number))}
        taken(some, {number: 64}, 64)
        taken(some, {number: 64}, 64)
    assert len(some._read) < 300


def test_what_was_chosen_and_not_read_is_not_charged() -> None:
    for read, following in ((64, 1), (512, 2)):
        some = turns(r1="a", r2="b")
        assert some.chosen(left(r1=900, r2=1000), 512) == {1: 512}
        some.charge({1: read})
        assert list(some.chosen(left(r1=900, r2=1000), 64)) == [following]


def test_who_comes_new_has_saved_nothing_up_among_more_clients_than_a_pass_has_tokens() -> None:
    clients = range(1, 101)
    some = turns(**{f"r{each}": f"c{each}" for each in [*clients, 999]})
    for _ in range(3000):  # each of them has had 1,920 tokens
        taken(some, dict.fromkeys(clients, 10_000), 64)
    newcomer = 0
    for _ in range(300):  # 190 tokens for each of them
        newcomer += taken(some, dict.fromkeys([*clients, 999], 10_000), 64).get(999, 0)
    assert 512 <= newcomer <= 512 + 190 + 3 * 64
