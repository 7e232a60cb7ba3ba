"""What compressing costs on the bundled text: both perplexities, and how far the result is from the original."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace
from msgspec.structs import replace as replace_struct

from squish.config.settings import Settings
from squish.errors import CorruptModel, EngineError
from squish.ipc.frames import Measured, MeasurePerplexity
from squish.ipc.jobs import Jobs
from squish.pull.events import CompressionReport, Notice, Progress, Report

_TEXT = Path(__file__).parent / "perplexity.txt"


async def measure(
    before: Path, after: Path, compression: CompressionReport, settings: Settings, report: Report
) -> CompressionReport:
    """The report with both perplexities; of a model that cannot be measured, for want of memory say, with None."""
    text = _TEXT.read_text(encoding="utf-8")
    predictions = after.parent / "predictions.bin"
    jobs = (
        MeasurePerplexity(path=str(before), text=text, keep=str(predictions)),
        MeasurePerplexity(path=str(after), text=text, against=str(predictions)),
    )
    found: list[Measured | None] = []
    # A worker of its own: the memory it says is that of measuring, and its products are those of the CPU engine.
    async with Jobs(settings.worker_cache) as worker:
        for number, job in enumerate(jobs):
            report(Progress("measure", number, 2))
            if number and found[0] is None:
                job = replace_struct(job, against=None)
            try:
                found.append(await worker.run(job, Measured))
            except (EngineError, CorruptModel) as error:
                found.append(None)
                report(Notice(f"Perplexity was not measured: {error.message}"))
    predictions.unlink(missing_ok=True)
    report(Progress("measure", 2, 2))
    return replace(
        compression,
        perplexity_before=found[0].perplexity if found[0] else None,
        perplexity_after=found[1].perplexity if found[1] else None,
        divergence=found[1].divergence if found[1] else None,
        measure_memory=max((each.peak_memory for each in found if each is not None), default=None),
    )
