"""How far a pull from the Hub is: reported ten times a second, with the speed of the last seconds."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from squish.pull.events import Phase, Progress, Report
from squish.pull.local_files import ModelFiles

_TICK = 0.1
_SETTLED = 0.5  # seconds after which a speed says something
_SAMPLES = 50


class Meter:
    """Reports the progress of a download, and of a conversion that goes on behind it, while the block is open.

    to_convert: bytes that are converted, None where nothing is; fraction: how much of that is done already.
    What an earlier run left counts as done, not as speed.
    """

    def __init__(
        self, download: ModelFiles, report: Report, *, to_convert: int | None = None, fraction: float = 0.0
    ) -> None:
        self._download, self._report = download, report
        self._to_convert, self._fraction = to_convert, fraction
        self._phase: Phase = "compress"
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)

    def converted(self, phase: str, fraction: float) -> None:
        """Take in how much of the conversion is done, or of what comes before it."""
        self._phase, self._fraction = "score" if phase == "score" else "compress", fraction

    async def __aenter__(self) -> Self:
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ticking.cancel()
        self._report(self._progress())

    async def _tick(self) -> None:
        while True:
            self._report(self._progress())
            await asyncio.sleep(_TICK)

    def _progress(self) -> Progress:
        download, now = self._download, asyncio.get_running_loop().time()
        self._samples.append((now, download.received))
        if self._to_convert is not None and download.done >= download.total:
            return Progress(self._phase, int(self._to_convert * self._fraction), self._to_convert)
        speed, missing = self._speed(), download.total - download.done
        return Progress("download", download.done, download.total, speed, missing / speed if speed else None)

    def _speed(self) -> float | None:
        """Bytes per second over the samples, None where that says nothing yet."""
        (first, before), (last, now) = self._samples[0], self._samples[-1]
        return (now - before) / (last - first) if last - first > _SETTLED and now > before else None
