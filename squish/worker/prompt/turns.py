"""Owns which of the prompts that wait are read next. Pure: it knows neither MLX nor the batch.

A prompt of several steps keeps the others waiting for as long as it takes to read, so of each account one such prompt
is read at a time, and those that fit into one step are read beside it. Accounts take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

AT_ONCE = 8
"""Prompts that are read at the same time."""

_LONG_AT_ONCE = 4  # of several steps, so that there is always a place for others


@dataclass(frozen=True, slots=True)
class WaitingPrompt:
    """row: its number. tokens: that are still to be read."""

    row: int
    tokens: int


class PromptTurns:
    """accounts: of the rows; a row without one belongs to the account ""."""

    def __init__(self) -> None:
        self.accounts: dict[int, str] = {}
        self._last: dict[str, int] = {}  # when each account had its latest turn
        self._turns = 0

    def chosen(self, waiting: Sequence[WaitingPrompt], reading: Sequence[WaitingPrompt], step: int) -> list[int]:
        """The rows to take in now, beside those that are being read. waiting: in the order in which they came."""
        room = AT_ONCE - len(reading)
        long = {self._account(each) for each in reading if each.tokens > step}
        places = _LONG_AT_ONCE - sum(each.tokens > step for each in reading)
        found: list[int] = []
        for each in self._in_turn(waiting):
            if len(found) == room:
                break
            account = self._account(each)
            if each.tokens > step:
                if account in long or places <= 0:
                    continue
                long.add(account)
                places -= 1
            self._turns += 1
            self._last[account] = self._turns
            found.append(each.row)
        known = set(self.accounts.values())
        self._last = {account: turn for account, turn in self._last.items() if account in known}
        return found

    def _account(self, prompt: WaitingPrompt) -> str:
        return self.accounts.get(prompt.row, "")

    def _in_turn(self, waiting: Sequence[WaitingPrompt]) -> Iterator[WaitingPrompt]:
        """The first of each account, then the second of each; who had a turn longest ago begins."""
        of_each: dict[str, list[WaitingPrompt]] = {}
        for each in waiting:
            of_each.setdefault(self._account(each), []).append(each)
        accounts = sorted(of_each, key=lambda account: self._last.get(account, 0))
        for number in range(max(map(len, of_each.values()), default=0)):
            yield from (of_each[account][number] for account in accounts if number < len(of_each[account]))


def step_of_each(step: int, reading: Sequence[WaitingPrompt], unit: int) -> int:
    """Tokens of each prompt in a step in which `step` in all may be read: whole units, at least one."""
    long = sum(each.tokens > step for each in reading)
    return step if long < 2 else max(unit, step // long // unit * unit)
