"""What each module of this folder offers. It reads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Pressure = Literal["normal", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Memory of the machine now, in bytes.

    available: what programs can have without anything being compressed or swapped. gpu: the most of it that a GPU which
    shares it may hold; 0 where there is none.
    """

    total: int
    available: int
    gpu: int = 0


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """What makes the system keep `squish serve` running for one user: a file, and the commands around it.

    log: where its output goes. start: to run, in order, once the file is there; stop: before it is removed; state:
    prints what the system knows and ends with 0 while the service runs. Where it does so of every service that is
    installed, runs is the line that it prints of a running one alone, and why how the line begins that says why another
    does not run. patience: seconds for which starting is refused while the service before still ends, which takes as
    long as its answers do.
    """

    path: Path
    text: str
    log: Path
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    state: tuple[str, ...]
    runs: str = ""
    why: str = ""
    patience: int = 1


class Host(Protocol):
    """A system. Its module has these names; tests hold both modules to it."""

    NAME: str
    MARKER: str
    COMPILES: bool

    def unsuitable(self) -> str | None:
        """Why MLX cannot run on this machine at all, in one sentence that says what to do; else None."""

    def version(self) -> str:
        """The system's version, as its users know it."""

    def memory(self) -> MemoryReading:
        """The machine's memory now; under a millisecond."""

    def pressure(self) -> Pressure:
        """How urgently the system wants memory back."""

    def footprint(self, pid: int) -> int | None:
        """Bytes of memory that a process of this user takes; None when it has ended or is another user's."""

    def peak(self) -> int:
        """The most bytes that this process had in memory."""

    def free_space(self, directory: Path) -> int:
        """Bytes of disk that a user may still write under an existing directory. Raises OSError."""

    def awake_command(self, pid: int) -> tuple[str, ...]:
        """A program that keeps the machine from sleeping until it or the process ends; nothing where none is needed."""

    def application_settings(self, home: Path) -> Path:
        """Where other programs of a user keep their settings. home: the user's own."""

    def service(self, home: Path, command: Sequence[str], log: Path) -> ServiceFile:
        """How to keep a command running as this user's service. home: the user's own; log: where its output goes."""
