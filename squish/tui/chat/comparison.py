"""One question, asked of two or three models or sets of parameters: who is asked, when, and which answer is kept.

All answers are versions of one in the chat, saved as they grow, so that none is lost. Knows no widget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any

from squish.chats.messages import Attachment, ChatSettings
from squish.chats.presets import with_preset
from squish.chats.templates import has_variables
from squish.errors import LoadFailed, MemoryShort, SquishError
from squish.tui.chat.conversation import Conversation, Turn

FEWEST, MOST = 2, 3

Shuffle = Callable[[MutableSequence[Any]], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who may be asked. preset: the name of its parameters; empty for those of the chat and, below them,
    the model's own defaults."""

    model: str
    settings: ChatSettings
    preset: str = ""

    @property
    def name(self) -> str:
        return f"{self.model} · {self.preset}" if self.preset else self.model


@dataclass(frozen=True, slots=True)
class Lineup:
    """What the user has chosen. blind: the names come after the choice; in_turn: one after the other."""

    candidates: tuple[Candidate, ...]
    blind: bool = False
    in_turn: bool = False


@dataclass(eq=False, slots=True)
class Contender:
    """A candidate that is asked. number: its place on the screen, from 1.

    beside: another model has run while it did. alone: it could not be loaded then, and is asked again when none does.
    """

    number: int
    candidate: Candidate
    turn: Turn
    beside: bool = False
    alone: bool = False


def candidates(
    settings: Mapping[str, ChatSettings], current: str, presets: Mapping[str, ChatSettings]
) -> list[Candidate]:
    """Everybody who can be asked: each model as the chat would ask it, then each with each preset.

    settings: the parameters of the chat with each model. Presets with variables are left out.
    """
    plain = [Candidate(each, settings[each]) for each in sorted(settings, key=lambda each: each != current)]
    usable = {name: each for name, each in presets.items() if not has_variables(each.system)}
    others = [
        Candidate(each.model, with_preset(each.settings, preset), name)
        for each in plain
        for name, preset in usable.items()
    ]
    return plain + [each for each in others if each.settings != settings[each.model]]


def suggested(offered: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The first two: two models, or two sets of parameters where there is one model."""
    return tuple(offered[:FEWEST])


class Comparison:
    """The contenders in the order they are shown in. Nothing here raises but `begin` and `keep`."""

    def __init__(self, conversation: Conversation, entry: Lineup, contenders: Sequence[Contender]) -> None:
        self.conversation, self.entry, self.contenders = conversation, entry, tuple(contenders)
        self.kept: Contender | None = None
        self._waiting = list(contenders)
        self._running: list[Contender] = []

    @classmethod
    def begin(
        cls,
        conversation: Conversation,
        entry: Lineup,
        question: str,
        files: tuple[Attachment, ...],
        again: Turn | None,
        shuffle: Shuffle,
    ) -> Comparison:
        """Begin all answers; until one is kept, the chat shows the first, however the program ends.

        again: the turn whose question it is; None: a new one. Raises StoreError.
        """
        order = list(entry.candidates)
        if entry.blind:
            shuffle(order)
        turns: list[Turn] = []
        conversation.create(question)
        for each in order:
            aside = conversation.aside(each.model, each.settings)
            if turns:
                aside.turns = list(turns[-1].conversation.turns)
            first = turns[-1] if turns else again
            turns.append(aside.answer_again(first) if first else aside.ask(question, files))
        assert conversation.id is not None
        conversation.chats.show(conversation.id, turns[0].answer_id)
        pairs = enumerate(zip(order, turns, strict=True), 1)
        return cls(conversation, entry, [Contender(number, each, turn) for number, (each, turn) in pairs])

    def of(self, turn: Turn) -> Contender:
        return next(each for each in self.contenders if each.turn is turn)

    def name(self, contender: Contender) -> str:
        """Its name, where the user may see it."""
        return "?" if self.hidden else contender.candidate.name

    @property
    def hidden(self) -> bool:
        """Whether the names must not be seen yet."""
        return self.entry.blind and self.kept is None

    @property
    def over(self) -> bool:
        """Whether every answer has ended."""
        return not self._waiting and not self._running

    @property
    def outcome(self) -> str:
        """`2 of 3 answered, 1 stopped`: an answer that was stopped or failed is not one."""
        ends = Counter(each.turn.answer.phase for each in self.contenders)
        others = [f"{ends[end]} {end}" for end in ("stopped", "failed") if ends[end]]
        return ", ".join([f"{ends['done']} of {len(self.contenders)} answered", *others])

    def waits(self, contender: Contender) -> bool:
        """Whether its turn is still to come."""
        return contender in self._waiting

    def due(self) -> list[Contender]:
        """Those to ask now; they count as running from here on."""
        begun: list[Contender] = []
        for each in list(self._waiting):
            if self._running and (self.entry.in_turn or each.alone or any(other.alone for other in self._running)):
                continue
            self._waiting.remove(each)
            self._running.append(each)
            begun.append(each)
        for each in self._running:
            each.beside |= any(other.candidate.model != each.candidate.model for other in self._running)
        return begun

    def ended(self, turn: Turn, error: SquishError | None) -> bool:
        """An answer grows no more. False: its model could not be loaded beside another one, and it is asked again."""
        contender = self.of(turn)
        if contender in self._running:
            self._running.remove(contender)
        refused = isinstance(error, LoadFailed) and not isinstance(error, MemoryShort)
        if refused and contender.beside and not contender.alone:
            contender.alone = True
            turn.answer.go_on()
            self._waiting.append(contender)
            return False
        if error:
            turn.answer.fail(error)
        turn.answer.leave()
        return True

    def stop_waiting(self) -> list[Contender]:
        """Nobody is asked any more; those who were not."""
        left, self._waiting = self._waiting, []
        for each in left:
            each.turn.answer.leave()
        return left

    def keep(self, contender: Contender) -> None:
        """Choose an answer, which holds however the program ends. Raises StoreError."""
        self.kept = contender
        self.close()

    def close(self) -> None:
        """The chat shows the answer that is kept, and is asked like it from here on; else the first of them.

        Raises StoreError.
        """
        chosen = self.kept or self.contenders[0]
        self.conversation.show_version(chosen.turn.answer_id)
        if self.kept:
            candidate = chosen.candidate
            self.conversation.configure(candidate.model, candidate.settings, candidate.preset)
