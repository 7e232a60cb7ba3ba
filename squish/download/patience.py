"""How long a download waits, how often it tries again, and after how many seconds."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """When a download tries again, and when it gives up.

    attempts: tries in a row that bring fewer than `floor` bytes each; delays and stall in seconds; a connection that
    brings fewer than `floor` bytes in one stall period is given up; connections: files, or ranges of a large file, at a
    time; span: bytes of such a range, where a file has more than two.
    """

    attempts: int = 6
    first_delay: float = 0.5
    longest_delay: float = 30.0
    longest_wait: float = 300.0
    stall: float = 30.0
    floor: int = 1024
    connections: int = 4
    span: int = 64 * 1024 * 1024

    def delay(self, failures: int, asked: float | None) -> float:
        """Seconds to the next try: what the server asks for, else doubling with some chance in it."""
        if asked is not None:
            return min(asked, self.longest_wait)
        backoff: float = self.first_delay * 2.0 ** max(0, failures - 1)
        return min(backoff, self.longest_delay) * random.uniform(0.5, 1.0)


class Interrupted(Exception):
    """A try that failed in a way that another one may not. wait: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait
