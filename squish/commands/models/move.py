"""How `squish move` shows one move: a moving line on a terminal, and where the model lies then."""

from __future__ import annotations

from pathlib import Path

from squish import console, figures
from squish.models.move import move
from squish.models.store import Store


def move_shown(store: Store, name: str, directory: Path, *, force: bool) -> None:
    """Move one model. Raises what `squish.models.move.move` raises."""
    status = console.Status()

    def report(done: int, total: int) -> None:
        share = done / total if total else 1.0
        bar = f"{figures.bar(share, 24)} {figures.percent(share):>5}"
        status.show(f"move     {bar}  {figures.size(done)} of {figures.size(total)}")

    try:
        moved = move(store, name, directory, report, force=force)
    except KeyboardInterrupt:
        console.note_over_status("Stopped. The model is where it was; run the same command to continue.")
        raise
    finally:
        status.clear()
    console.note(f"{moved.manifest.id} is now in {moved.path.resolve()}.")
