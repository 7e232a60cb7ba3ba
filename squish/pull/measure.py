"""What compressing costs, in perplexity: of the original and of the result on the same bundled text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from squish.config.settings import Settings
from squish.errors import CorruptModel, EngineError
from squish.ipc.frames import Measured, MeasurePerplexity
from squish.ipc.process import run_job
from squish.pull.events import CompressionReport, Notice, Progress, Report

_TEXT = Path(__file__).parent / "perplexity.txt"


async def measure(
    before: Path, after: Path, compression: CompressionReport, settings: Settings, report: Report
) -> CompressionReport:
    """The report with both perplexities; of a model that cannot be measured, for want of memory say, with None."""
    text = _TEXT.read_text(encoding="utf-8")
    found: list[Measured | None] = []
    for number, directory in enumerate((before, after)):
        report(Progress("measure", number, 2))
        try:
            job = MeasurePerplexity(path=str(directory), text=text)
            found.append(await run_job(job, settings.worker_cache, Measured))
        except (EngineError, CorruptModel) as error:
            found.append(None)
            report(Notice(f"Perplexity was not measured: {error.message}"))
    report(Progress("measure", 2, 2))
    original, compressed = (None if each is None else each.perplexity for each in found)
    peak = max((each.peak_memory for each in found if each is not None), default=None)
    return replace(compression, perplexity_before=original, perplexity_after=compressed, measure_memory=peak)
