"""What a pull reports while it runs: the values that every front door shows in its own way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from squish import figures
from squish.models.manifest import Installed, Loss

Phase = Literal["resolve", "download", "score", "compress", "import", "measure", "verify"]
IN_STEPS: frozenset[Phase] = frozenset({"measure"})
"""Phases that go forward in steps, not in bytes."""


class PullStarted(msgspec.Struct, frozen=True):
    """What is being installed under which id, and from where."""

    id: str
    source: str


class Progress(msgspec.Struct, frozen=True):
    """done and total in bytes, or in steps (IN_STEPS), total 0 where it is not known; speed in bytes per second, eta in
    seconds."""

    phase: Phase
    done: int
    total: int
    speed: float | None = None
    eta: float | None = None


class Notice(msgspec.Struct, frozen=True):
    """A sentence that the user should read now: what is about to be done, or what it costs."""

    text: str


class CompressionReport(msgspec.Struct, frozen=True):
    """What compressing did. Sizes and memory in bytes; kept_as: the id under which the original is installed.

    perplexity: of the original and of the result on the same text, None where it was not measured; divergence: the mean
    KL divergence of the result from the original, in nats a token; measure_memory: the most that measuring took, for
    which a whole model is loaded; unmeasured: why bits were chosen without knowing what each matrix matters.
    """

    recipe: str
    before: int
    after: int
    largest_shard: int
    peak_memory: int
    perplexity_before: float | None = None
    perplexity_after: float | None = None
    divergence: float | None = None
    measure_memory: int | None = None
    kept_as: str | None = None
    unmeasured: str = ""

    @property
    def loss(self) -> Loss | None:
        """What compressing cost, where all of it was measured."""
        before, after, divergence = self.perplexity_before, self.perplexity_after, self.divergence
        return None if before is None or after is None or divergence is None else Loss(before, after, divergence)


class Pulled(msgspec.Struct, frozen=True):
    """The end: the model as it is installed. fresh: it was not there before this pull."""

    installed: Installed
    fresh: bool = True
    compression: CompressionReport | None = None


def amount(phase: Phase, done: int, total: int) -> str:
    """How far a phase is: `4.0 MB of 8.0 MB`, or `1 of 2 steps`."""
    if phase in IN_STEPS:
        return f"{done} of {total} steps"
    return f"{figures.size(done)} of {figures.size(total)}"


PullEvent = PullStarted | Progress | Notice | Pulled
Report = Callable[[PullEvent], None]
