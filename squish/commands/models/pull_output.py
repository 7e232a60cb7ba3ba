"""How a pull looks on the command line: one moving line and sentences on stderr, or JSON lines on stdout."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from squish import console, figures
from squish.models.manifest import Manifest
from squish.pull.events import CompressionReport, Notice, Progress, Pulled, PullEvent, PullStarted, amount


@contextmanager
def as_talk() -> Iterator[Callable[[PullEvent], None]]:
    """For people: a bar on a terminal, elsewhere a line every few seconds. Where nobody knows how long a phase still
    takes, with the seconds that it has taken.
    """
    status, phase, since = console.Status(), "", 0.0

    def show(event: PullEvent) -> None:
        nonlocal phase, since
        match event:
            case PullStarted(id=id, source=source):
                console.note(f"{id} from {source}")
            case Progress():
                if event.phase != phase:
                    phase, since = event.phase, time.monotonic()
                if event.eta is None:
                    status.wait(_progress_line(event), since)
                else:
                    status.show(_progress_line(event))
            case Notice(text=text):
                status.clear()
                console.note(text)
            case Pulled():
                status.clear()
                _summary(event)

    try:
        yield show
    finally:
        status.clear()


@contextmanager
def as_lines() -> Iterator[Callable[[PullEvent], None]]:
    """For programs: every event as a JSON object with its kind under "event"."""

    def show(event: PullEvent) -> None:
        console.out(json.dumps(_as_json(event), ensure_ascii=True))

    yield show


def stopped(last: Progress | None) -> None:
    """What Ctrl-C leaves. last: how far it was."""
    if last is not None and last.total and last.phase in ("download", "score", "compress"):
        console.note_over_status(f"Stopped at {100 * last.done // last.total} %. Run the same command to continue.")
    else:
        console.note_over_status("Stopped. Run the same command to start again.")


def _progress_line(event: Progress) -> str:
    if not event.total:
        return f"{event.phase}…"
    parts = [
        f"{event.phase:9}{figures.bar(event.done / event.total, 24)} {figures.percent(event.done / event.total):>5}"
    ]
    parts.append(amount(event.phase, event.done, event.total))
    if event.speed:
        parts.append(f"{figures.size(event.speed)}/s")
    if event.eta is not None:
        parts.append(f"{figures.waited(event.eta)} left")
    return "  ".join(parts)


def _summary(event: Pulled) -> None:
    manifest = event.installed.manifest
    what = f"{manifest.quantization}, {figures.size(manifest.size)}"
    if manifest.loss is not None:
        what += f", {manifest.loss.label}"
    if event.compression is not None:
        for line in _compression_lines(event.compression, manifest.quantization):
            console.note(line)
    if event.fresh:
        console.note(f"{manifest.id} installed: {what}. Try: {_use(manifest)}")
    else:
        console.note(f"{manifest.id} is already installed: {what}. --force pulls it again. Try: {_use(manifest)}")


def _use(manifest: Manifest) -> str:
    """The command that shows what a model is for."""
    if manifest.kind in ("rerank", "completion"):  # only the server asks these
        return "squish serve"
    return f'squish embed {manifest.id} "some text"' if manifest.kind == "embedding" else f"squish run {manifest.id}"


def _compression_lines(report: CompressionReport, quantization: str) -> list[str]:
    lines = [
        f"Compressed to {quantization}: {figures.size(report.before)} → {figures.size(report.after)} "
        f"({report.after / max(report.before, 1):.0%}); compressing took at most {figures.size(report.peak_memory)} "
        f"of memory, largest shard {figures.size(report.largest_shard)}."
    ]
    if report.perplexity_after is not None:
        before = "?" if report.perplexity_before is None else f"{report.perplexity_before:.2f}"
        memory = (
            "" if report.measure_memory is None else f"; measuring took at most {figures.size(report.measure_memory)}"
        )
        away = "" if report.divergence is None else f", KL divergence {report.divergence:.3f}"
        lines.append(
            f"Perplexity on the bundled text: {before} → {report.perplexity_after:.2f}{away} (lower is better){memory}."
        )
    if report.unmeasured:
        lines.append(
            "How much each matrix matters to the predictions could not be measured, so bits were chosen by the share "
            f"of its squares that a matrix loses: {report.unmeasured}. A plain recipe with --search is the better "
            "choice for such a model: --bits 4 --search."
        )
    if report.kept_as is not None:
        lines.append(f"The original is installed as {report.kept_as}.")
    return lines


def _as_json(event: PullEvent) -> dict[str, Any]:
    match event:
        case PullStarted(id=id, source=source):
            return {"event": "started", "id": id, "source": source}
        case Progress(phase=phase, done=done, total=total, speed=speed, eta=eta):
            return {"event": "progress", "phase": phase, "done": done, "total": total, "speed": speed, "eta": eta}
        case Notice(text=text):
            return {"event": "notice", "text": text}
        case Pulled(installed=installed, fresh=fresh, compression=report):
            manifest = installed.manifest
            known = {"id": manifest.id, "size": manifest.size, "quantization": manifest.quantization, "fresh": fresh}
            fields = CompressionReport.__struct_fields__
            details = None if report is None else {name: getattr(report, name) for name in fields}
            return {"event": "installed", **known, "compression": details}
