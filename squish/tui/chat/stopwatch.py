"""Measures how long something has taken, and stands still while the user is asked something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs as soon as it is made. clock: gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._asked_at: float | None = None

    def restart(self) -> None:
        self._began = self._clock()

    @property
    def seconds(self) -> float:
        """Since it was started, without those that the user took for an answer."""
        return (self._clock() if self._asked_at is None else self._asked_at) - self._began

    @property
    def is_asking(self) -> bool:
        return self._asked_at is not None

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While the user is asked something, no time passes."""
        self._asked_at = asked_at = self._clock()
        try:
            yield
        finally:
            self._began += self._clock() - asked_at
            self._asked_at = None
