"""How an installed model is shown in a row, and the lines that tell more of the marked one. Knows no screen."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from rich.cells import cell_len
from rich.text import Text
from textual.content import Content

from squish import figures
from squish.models.store import Manifest
from squish.sessions.model_status import ModelStatus
from squish.text import clean
from squish.tui.widgets.table import Column

COLUMNS = (
    Column("Model", 0),
    Column("Disk", 7, right=True),
    Column("Bits", 7, from_width=84, roomy=14, words=True),
    Column("Context", 7, right=True, from_width=76),
    Column("State", 14),
    Column("RAM", 7, right=True, from_width=68),
    Column("tok/s", 5, right=True, from_width=68),
)
_CUT = 30  # cells: what is longer has no room in the list of a usual terminal
_STATES = {
    "loading": ("◌", "loading", "text-warning"),
    "ready": ("●", "in memory", "text-success"),
    "served": ("○", "listed", "foreground-muted"),
    "failed": ("✕", "failed", "text-error"),
}


class SeenSpeed(msgspec.Struct, frozen=True):
    """tps: tokens per second. origin: where that was seen, to stand behind it."""

    tps: float
    origin: str


def row(
    manifest: Manifest,
    status: ModelStatus | None,
    pinned: bool,
    memory: int | None,
    speed: SeenSpeed | None,
    colors: Mapping[str, str],
    waited: float | None = None,
) -> tuple[Text, ...]:
    """A cell for each column. memory: bytes of its worker; colors: the theme's.

    waited: seconds that it has been loading, as of the last look.
    """
    symbol, word, color = _STATES[status.state] if status else ("○", "on disk", "foreground-muted")
    if status and status.state == "loading" and waited and waited >= 1:
        word = f"{word} {figures.waited(waited)}" if waited < 60 else figures.waited(waited)  # what the column holds
    resting = status is None or status.state == "ready"
    return (
        Text(clean(manifest.id)),
        Text(figures.size(manifest.size) if manifest.size else "–"),
        Text(figures.bits(clean(manifest.quantization))),
        Text(figures.count(manifest.context_length) if manifest.context_length else "–"),
        Text(f"{symbol} {'pinned' if pinned and resting else word}", colors.get(color, "")),
        Text(figures.size(memory) if memory else "–"),
        Text(f"{speed.tps:.0f}" if speed else "–"),
    )


def details_of(
    manifest: Manifest, status: ModelStatus | None, pinned: bool, speed: SeenSpeed | None, models: int, total: int,
    draft: str | None = None,
) -> Content:  # fmt: skip
    """Two to four lines about the marked model, and what all of them take. draft: a model that could guess for it."""
    id, source = clean(manifest.id), clean(manifest.source)
    facts = [
        *([id] if cell_len(id) > _CUT and id not in source else []),
        *([f"{manifest.kind} model"] if manifest.kind != "chat" else []),
        clean(manifest.architecture),
        f"{figures.parameters(manifest.parameters)} parameters" if manifest.parameters else "",
        clean(manifest.quantization),
        f"{figures.count(manifest.context_length)} context" if manifest.context_length else "",
        "license unknown" if manifest.license is None else clean(manifest.license),
        source,
    ]
    lines = [(" · ".join(filter(None, facts)), "$foreground-muted")]
    if status and status.error:
        lines.append((f"\n✕ {clean(status.error)}", "$text-error"))
    elif status and status.state == "ready":
        work = f"{status.running} running, {status.waiting} queued" if status.running + status.waiting else "idle"
        kept = "stays in memory" if pinned else "unloaded after a while without requests"
        weights = [f"weights {figures.size(status.weights_bytes)} in memory"] if status.weights_bytes else []
        lines.append(("\n" + " · ".join([*weights, work, kept]), "$foreground-muted"))
    elif status and status.compiling:
        lines.append(("\ncompiling the engine for this machine (once)", "$text-warning"))
    elif pinned:
        lines.append(("\nstays in memory once it is loaded", "$foreground-muted"))
    if speed:
        lines.append((f"\n{figures.speed(speed.tps)} {speed.origin}", "$foreground-muted"))
    if draft:
        lines.append((f"\n{clean(draft)} can draft for it: [draft] in config.toml", "$foreground-muted"))
    disk = f", {figures.size(total)} on disk" if total else ""  # a server elsewhere may not say
    lines.append((f"\n{models} model{'s' * (models != 1)}{disk}", "$foreground-muted"))
    return Content.assemble(*lines)
