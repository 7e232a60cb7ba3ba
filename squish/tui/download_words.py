"""What is said of a download: how it looks, how far it is, and one line of all of them for the status strip.

Knows no widget.
"""

from __future__ import annotations

from collections.abc import Sequence

from squish import figures
from squish.pull.events import IN_STEPS
from squish.tui.background import Background
from squish.tui.downloads import State, Transfer

LOOKS: dict[State, tuple[str, str, str]] = {
    "waiting": ("◌", "queued", "$text-warning"),
    "running": ("⇣", "", "$text-primary"),
    "paused": ("‖", "paused", "$text-warning"),
    "failed": ("✕", "failed", "$text-error"),
    "done": ("✓", "installed", "$text-success"),
}
_PHASES = {
    "resolve": "asking the Hub",
    "download": "downloading",
    "score": "choosing bits",
    "compress": "compressing",
    "import": "importing",
    "measure": "measuring",
    "verify": "verifying",
}
_READING = "reading"


def look(transfer: Transfer) -> tuple[str, str]:
    """Symbol and word of what it does."""
    symbol, word, _ = LOOKS[transfer.state]
    if transfer.phase == "resolve" and transfer.is_import:  # a model on this machine: nobody is asked for it
        return symbol, word or _READING
    return symbol, word or _PHASES[transfer.phase]


def how_far(transfer: Transfer) -> str:
    """`63 %`, and the seconds of its phase as long as nobody can say when it ends: `12 s`, `100 % · 3 s`."""
    share = figures.percent(transfer.fraction) if transfer.fraction and transfer.done else ""
    return " · ".join(filter(None, (share, seconds(transfer) if transfer.eta is None else "")))


def seconds(transfer: Transfer) -> str:
    """The seconds of its phase, once there is one."""
    return figures.waited(transfer.in_phase) if transfer.in_phase >= 1 else ""


def one_line(transfers: Sequence[Transfer]) -> Background:
    """What runs, all of it together: `⇣2 63 % 41 MB/s 1 min 12 s left`, or `⇣1 importing 63 % 12 s`, that have gone by.

    What is paused or failed when nothing runs.
    """
    running = [each for each in transfers if each.active]
    if not running:
        failed, paused = (sum(each.state == state for each in transfers) for state in ("failed", "paused"))
        return Background(f"⇣{failed} failed" if failed else f"⇣{paused} paused" if paused else "")
    pieces = list[str]()
    known = [each for each in running if each.total and (each.phase not in IN_STEPS or len(running) == 1)]
    done, total = sum(each.done for each in known), sum(each.total for each in known)
    if not done or (len(running) == 1 and running[0].phase != "download"):
        pieces.append(look(running[0])[1])
    if done:
        pieces.append(figures.percent(done / total))
    if speed := sum(each.speed or 0 for each in running):
        pieces.append(f"{figures.size(int(speed))}/s")
    if times := [each.eta for each in running if each.eta is not None]:
        pieces.append(f"{figures.waited(max(times))} left")
    else:
        pieces += filter(None, [seconds(max(running, key=lambda each: each.in_phase))])
    return Background(f"⇣{len(running)}", " ".join(pieces))
