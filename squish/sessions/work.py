"""What an engine needs to know of a request, whatever is asked for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from squish.errors import SquishError
from squish.generation import GenerationEvent
from squish.ipc.frames import ToWorker


class Work(Protocol):
    """A request in a model's queue or with its worker.

    rows: places that it takes; keep_alive: seconds that the model stays loaded after it, None leaves that as it is;
    account: who takes turns with others; background: it goes behind requests that somebody waits for; grammar: its
    answer is held to one;
    sent: the worker has it; heard: the worker has said something of it; attempts: how often it was sent.
    """

    sent: bool
    heard: bool
    cancelled: bool
    attempts: int

    @property
    def rows(self) -> int: ...

    @property
    def keep_alive(self) -> float | None: ...

    @property
    def account(self) -> str: ...

    @property
    def background(self) -> bool: ...

    @property
    def grammar(self) -> bool: ...

    @property
    def unfinished(self) -> Collection[int]:
        """Its rows that have not ended."""

    def begin(self) -> None:
        """It goes to a worker that has loaded the model."""

    def frame(self, id: int) -> ToWorker:
        """What the worker is asked; it is called by id there."""

    def put(self, event: GenerationEvent) -> None:
        """Hand over an event."""

    def fail(self, error: SquishError) -> None:
        """End with this error."""

    def finish_unsent(self) -> None:
        """End what the worker never saw."""
