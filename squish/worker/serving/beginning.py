"""What serving a model begins with, whatever it makes: what computes, the frames that arrive, the end of loading."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

from squish.ipc.frames import Cancel, Compiling, CountTokens, Embed, Generate, Load, Loaded, ToWorker
from squish.worker.connection import FrameSocket
from squish.worker.cpu.blas import BlasReport
from squish.worker.cpu.install import CpuEngine, compiles_first, install
from squish.worker.model.hold import hold

if TYPE_CHECKING:
    from squish.worker.embedding.intake import TextIntake
    from squish.worker.intake import Intake


def engine_for(channel: FrameSocket, load: Load, report: BlasReport, cache_dir: Path) -> CpuEngine:
    """What computes, once nobody else may delete the model."""
    hold(Path(load.path))
    if not compiles_first(cache_dir):
        return install(report, cache_dir, load.cpu_precision)
    channel.send(Compiling(True))
    engine = install(report, cache_dir, load.cpu_precision)
    channel.send(Compiling(False))
    return engine


def hand_to(intake: Intake | TextIntake, frame: ToWorker) -> None:
    """What the reader does with a frame."""
    if isinstance(frame, Generate | CountTokens | Embed):
        intake.take(frame)
    elif isinstance(frame, Cancel):
        intake.cancel(frame)


def settled(channel: FrameSocket, loaded: Loaded) -> None:
    """Say that it is loaded.

    Frozen, modules, the vocabulary and the layers cost no garbage collection while answers are written.
    """
    gc.freeze()
    gc.enable()
    channel.send(loaded)
