"""Serves a model that makes vectors of texts, or judges pairs of them."""

from __future__ import annotations

import queue
from dataclasses import replace
from functools import partial
from pathlib import Path

import mlx.core as mx

from squish.format.model_directory import display_name
from squish.ipc.frames import Load, Loaded
from squish.worker import memory
from squish.worker.cache import kv_bits
from squish.worker.connection import FrameSocket
from squish.worker.cpu.blas import BlasReport
from squish.worker.embedding.intake import TextEncoder, TextInbox, TextIntake
from squish.worker.embedding.loading import load as load_model
from squish.worker.embedding.runner import VectorRunner
from squish.worker.serving.beginning import engine_for, hand_to, settled
from squish.worker.threads import read, start
from squish.worker.tokenizer.facts import Shelf


def serve(channel: FrameSocket, load: Load, report: BlasReport, cache_dir: Path, shelf: Shelf) -> None:
    """Load it and answer until the socket closes. Raises what loading raises."""
    inbox: TextInbox = queue.SimpleQueue()
    intake = TextIntake(inbox, channel.send)
    start(channel, "reader", lambda: read(channel, partial(hand_to, intake), lambda: inbox.put(None)))
    # Activations of 8 bits would move vectors further than weights of 8 bits do.
    engine = replace(engine_for(channel, load, report, cache_dir), precision="float32")
    loaded = load_model(Path(load.path), shelf)
    if load.wire_weights:
        memory.wire(loaded.weights_bytes)
    encoder = TextEncoder(loaded)
    start(channel, "tokenizer", lambda: intake.run(encoder))
    backend = f"{loaded.dtype}, {engine.summary}"
    warnings = (
        *(each.sentence for each in engine.warnings),
        *kv_bits.warnings_for_vectors(load.kv_bits, display_name(Path(load.path))),
    )
    settled(channel, Loaded(loaded.longest, loaded.weights_bytes, backend, warnings, 0, False, *engine.multiplies))
    VectorRunner(loaded.embedder, inbox, channel.send).run()
    mx.clear_streams()
