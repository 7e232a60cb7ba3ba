"""Owns which prompts a pass reads, and how far. Pure: it knows neither MLX nor the batch.

Accounts take turns by tokens, those of their answers too, which is fair queueing: next is the one that will have had
the fewest when all that it waits for is read, so that one with a single prompt goes before what is left of another's
many. One that comes new has saved nothing up. Prompts that nobody waits for come last. Of an account, prompts that fit
into the pass are read beside its first long one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

AT_ONCE = 8
"""Prompts that are read in the same pass."""

_ANSWERED = 2  # tokens of a prompt that take as long to compute as one of an answer, about
_AHEAD = 512  # tokens; so far back somebody starts who comes new
_REMEMBERED = 256  # clients that have nothing to read


@dataclass(frozen=True, slots=True)
class WaitingPrompt:
    """row: its number, which grows with the time at which it came. tokens: that are still to be read."""

    row: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a prompt is. background: nobody waits for it."""

    account: str = ""
    background: bool = False


class PromptTurns:
    """owners: of the rows; a row without one belongs to the account "". unit: tokens in which long prompts are cut."""

    def __init__(self, unit: int) -> None:
        self.owners: dict[int, Owner] = {}
        self._unit = unit
        self._read: dict[Owner, int] = {}
        self._waiting: frozenset[Owner] = frozenset()  # those that the last choice was among
        self._answered: frozenset[Owner] = frozenset()  # those that had tokens of the last step
        self._now = 0.0  # tokens that each of those two would have had by now, had all been served alike

    def chosen(self, prompts: Sequence[WaitingPrompt], step: int, beside: int | None = None) -> dict[int, int]:
        """How many tokens of which rows a pass reads that has room for `step` in all. `charge` says what it did read.

        beside: up to how many in all it reads of others beside the one whose turn it is; None for as many as have room.
        It is exceeded by less than two units: for a long prompt beside which short ones would take all the room, and
        for the last prompt of one beside whom others wait.
        """
        found: dict[int, int] = {}
        if not prompts:
            self._waiting = frozenset()
            return found
        of_each: dict[Owner, list[WaitingPrompt]] = {}
        for each in sorted(prompts, key=lambda each: each.row):
            of_each.setdefault(self.owners.get(each.row, Owner()), []).append(each)
        for owner in of_each:
            self._read.setdefault(owner, self._beginning)
        self._waiting = frozenset(of_each)
        wanted = {owner: sum(each.tokens for each in mine) for owner, mine in of_each.items()}
        for owner in sorted(of_each, key=lambda owner: (owner.background, self._read[owner] + wanted[owner])):
            room = (step if beside is None or not found else min(step, beside)) - sum(found.values())
            if found and room <= 0:
                break
            along = self._unit - 1 if not found and len(of_each[owner]) == 1 and len(of_each) > 1 else 0
            found |= self._of_one(of_each[owner], room, along, AT_ONCE - len(found), first=not found)
        return found

    def charge(self, read: Mapping[int, int]) -> None:
        """What the pass read of the rows chosen last: less than that where a prompt is read up to a place to keep."""
        self._add(read)

    def answered(self, rows: Collection[int]) -> None:
        """A step gave each of these rows a token; what stands there twice had two."""
        self._answered = frozenset(self.owners.get(row, Owner()) for row in rows)
        self._add({row: _ANSWERED * count for row, count in Counter(rows).items()})

    @property
    def shared(self) -> bool:
        """Whether there are rows of several."""
        return len(set(self.owners.values())) > 1

    @property
    def _beginning(self) -> int:
        """Tokens that one has had who comes new."""
        return max(0, int(self._now) - _AHEAD)

    def _add(self, tokens: Mapping[int, int]) -> None:
        for row, count in tokens.items():
            owner = self.owners.get(row, Owner())
            self._read[owner] = self._read.get(owner, self._beginning) + count
        served = self._waiting | self._answered
        if served:
            self._now += sum(tokens.values()) / len(served)
        self._forget([owner for owner in self._read if owner not in served])

    def _forget(self, gone: list[Owner]) -> None:
        """Those that would begin where they were anyway, and of the others who came long ago."""
        for at, owner in enumerate(gone):
            if self._read[owner] <= self._now - _AHEAD or at < len(gone) - _REMEMBERED:
                del self._read[owner]

    def _of_one(
        self, prompts: list[WaitingPrompt], room: int, along: int, places: int, *, first: bool
    ) -> dict[int, int]:
        """The same for the prompts of one. along: by how much its last one may be longer than there is room.

        first: it is its turn; else it takes what others leave.
        """
        long = next((each for each in prompts if each.tokens > room + along), None)
        found: dict[int, int] = {}
        for each in prompts:
            if len(found) < places - (long is not None) and each.tokens <= room + along:
                found[each.row] = each.tokens
                room -= each.tokens
        if long and len(found) < places:
            least = first and all(row > long.row for row in found)  # who came later does not keep it waiting for good
            if piece := max(room // self._unit, int(least)) * self._unit:
                found[long.row] = min(piece, long.tokens)
        return found
