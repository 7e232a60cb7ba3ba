"""The worker process: `python -m squish.worker FD CACHE_DIR`, started by squish.ipc.process and by nobody else.

The first frame decides what it is: Load makes it serve a model until its socket closes; a job frame makes it do that
job. Threads: reader (frames in), two tokenizers (prompts → token ids), and the main thread, which alone touches MLX.
"""

from __future__ import annotations

import gc
import hashlib
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squish.errors import EngineError, LoadFailed, SquishError
from squish.ipc.frames import (
    HEARTBEAT,
    Alive,
    Cancel,
    Compiling,
    CountTokens,
    Embed,
    Failed,
    Generate,
    Job,
    Load,
    Loaded,
    MeasurePerplexity,
    ToWorker,
    Warned,
    WireError,
)
from squish.ipc.limits import is_of_processes, memory_limit, process_limit
from squish.system.host import HOST
from squish.worker import descriptors
from squish.worker.connection import FrameSocket

if TYPE_CHECKING:
    from squish.worker.cache.disk import DiskTier
    from squish.worker.cache.kv_bits import KvBits
    from squish.worker.cache.prefix import PrefixCache
    from squish.worker.cpu.blas import BlasReport
    from squish.worker.cpu.install import CpuEngine
    from squish.worker.embedding.intake import TextIntake
    from squish.worker.group.lead import Group
    from squish.worker.intake import Intake
    from squish.worker.speculation.loading import DraftPair
    from squish.worker.tokenizer.facts import Shelf

_EXIT_GRACE = 4.0
_DISK_BUDGET = 2 << 30


def main() -> None:
    """Serve the socket given on the command line."""
    channel = FrameSocket(socket.socket(fileno=int(sys.argv[1])))
    cache_dir = Path(sys.argv[2])
    descriptors.keep_limit()
    gc.disable()  # until everything is there that stays: see _settled
    # The model is on disk. Whatever a library would like to ask the Hub, the answer is no.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    try:
        _work(channel, cache_dir)
    except Exception as error:  # the last guard of the process: the front must hear of it before the process ends
        channel.send(Failed(None, WireError.of(_failure(error))))
        if not isinstance(error, SquishError):
            raise
    finally:
        channel.drain()


def _work(channel: FrameSocket, cache_dir: Path) -> None:
    from squish.worker.cpu.install import prepare

    report = prepare(cache_dir)
    # Only now may MLX be imported: the BLAS it finds first is the one it keeps. It is imported before there is anything
    # to do, so that a spare worker has it behind it.
    from squish.worker.model import imports
    from squish.worker.tokenizer.facts import Shelf

    imports.prepare()
    shelf = Shelf(cache_dir / "tokenizers")
    _start(channel, "heartbeat", lambda: _beat(channel))
    match channel.receive():
        case Load() as load:
            serve = _embed if _makes_vectors(Path(load.path)) else _serve
            serve(channel, load, report, cache_dir, shelf)
        case job if isinstance(job, Job):
            gc.enable()
            _do_jobs(channel, job, report, cache_dir, shelf)


def _do_jobs(channel: FrameSocket, first: Job, report: BlasReport, cache_dir: Path, shelf: Shelf) -> None:
    """Do one job after the other, until the socket closes. Between them, what they took is with the system again."""
    from squish.worker import memory
    from squish.worker.jobs import convert

    engine: CpuEngine | None = None
    waiting: queue.SimpleQueue[ToWorker | None] = queue.SimpleQueue()
    waiting.put(first)
    _start(channel, "reader", lambda: _read(channel, waiting.put, lambda: waiting.put(None)))
    while isinstance(job := waiting.get(), Job):
        if isinstance(job, MeasurePerplexity) and engine is None:
            from squish.worker.cpu.install import install

            engine = install(report, cache_dir)
        result = convert.run(job, channel.send, shelf)
        gc.collect()
        memory.give_back()
        channel.send(result)


def _serve(channel: FrameSocket, load: Load, report: BlasReport, cache_dir: Path, shelf: Shelf) -> None:
    from squish.worker import memory
    from squish.worker.intake import Intake
    from squish.worker.model.load import load as load_model
    from squish.worker.prompt.encoder import PromptEncoder
    from squish.worker.runner import Inbox, PrefixSaved, Runner, Stop

    inbox: Inbox = queue.SimpleQueue()
    intake = Intake(inbox, channel.send)
    _start(channel, "reader", lambda: _read(channel, partial(_hand_to, intake), lambda: inbox.put(Stop())))
    pair = _pair(load, shelf)
    engine = _engine(channel, load, report, cache_dir)
    draft, draft_bytes = pair.load_draft(load.kv_bits) if pair else (None, 0)
    group = _group(load, channel)
    cut, tokenizer = group.cut if group else None, pair.tokenizer if pair else None
    float32 = engine.precision == "float32"
    loaded = load_model(Path(load.path), shelf=shelf, tokenizer=tokenizer, exact=float32, cut=cut)
    exact, kv = _prepared(loaded.model, load, group)
    weights_bytes = loaded.weights_bytes + draft_bytes
    if load.wire_weights:
        memory.wire(weights_bytes)
    encoder = PromptEncoder(loaded.tokenizer, loaded.context_length, loaded.vocab_size, snapshots=not loaded.trimmable)
    _start(channel, "tokenizer", lambda: intake.run(encoder, long=False))
    _start(channel, "long prompts", lambda: intake.run(encoder, long=True))
    leading, parts = (group.leading(loaded.model), f", {group.about}") if group else (None, "")
    backend = f"{loaded.dtype}, {engine.summary}, {kv.bits}-bit KV cache{parts}"
    warnings = (*(each.sentence for each in engine.warnings), *kv.warnings)
    _settled(
        channel, Loaded(loaded.context_length, weights_bytes, backend, warnings, kv.bits, kv.choice, *engine.multiplies)
    )
    numbers = f"{loaded.dtype}, {engine.kernel}, {engine.precision}, {kv.bits}"
    disk = _disk_tier(load, cache_dir, numbers, lambda message: channel.send(Warned(message)))
    prefix = _prefix(loaded.model, disk, group, exact, wake=lambda: inbox.put(PrefixSaved()))
    Runner(
        loaded.model if leading is None else leading,
        loaded.tokenizer,
        loaded.context_length,
        prefix,
        inbox,
        channel.send,
        lookup=load.prompt_lookup,
        draft=draft,
        group=leading,
    ).run()


def _prefix(
    model: Any, disk: DiskTier | None, group: Group | None, exact: bool, wake: Callable[[], None]
) -> PrefixCache:
    """The prefix cache, in the memory that the rank with the least room has for it."""
    from mlx_lm.models.cache import make_prompt_cache

    from squish.worker import memory
    from squish.worker.cache.prefix import PrefixCache

    budget = min(memory.cache_budget(), group.cache_budget) if group else memory.cache_budget()
    return PrefixCache(budget, make_prompt_cache(model), disk, exact=exact, pressure=HOST.pressure, wake=wake)


def _prepared(model: Any, load: Load, group: Group | None) -> tuple[bool, KvBits]:
    """Change a model for the CPU, if possible: whether its numbers are the same in any company, and its KV cache."""
    from squish.format.model_directory import display_name
    from squish.worker.cache import kv_bits
    from squish.worker.cpu.install import prepare_model

    exact = (group is None or group.way == "tensor") and prepare_model(model, load.kv_bits)
    found = kv_bits.found(model, load.kv_bits, display_name(Path(load.path)))
    return exact and (group is None or group.exact), found


def _settled(channel: FrameSocket, loaded: Loaded) -> None:
    """Frozen, modules, the vocabulary and the layers cost no garbage collection while answers are written."""
    gc.freeze()
    gc.enable()
    channel.send(loaded)


def _group(load: Load, channel: FrameSocket) -> Group | None:
    """The other ranks, connected, where there are any. Raises LoadFailed."""
    if load.group is None:
        return None
    from squish.worker.group.lead import Group

    return Group(load.group, load, channel)


def _pair(load: Load, shelf: Shelf) -> DraftPair | None:
    """The model and its draft, where it has one, of which only the tokenizers are open. Raises ConfigError."""
    if not load.draft:
        return None
    from squish.worker.speculation.loading import paired

    return paired(Path(load.path), Path(load.draft), shelf)


def _embed(channel: FrameSocket, load: Load, report: BlasReport, cache_dir: Path, shelf: Shelf) -> None:
    import mlx.core as mx

    from squish.format.model_directory import display_name
    from squish.worker import memory
    from squish.worker.cache import kv_bits
    from squish.worker.embedding.intake import TextEncoder, TextInbox, TextIntake
    from squish.worker.embedding.loading import load as load_model
    from squish.worker.embedding.runner import VectorRunner

    inbox: TextInbox = queue.SimpleQueue()
    intake = TextIntake(inbox, channel.send)
    _start(channel, "reader", lambda: _read(channel, partial(_hand_to, intake), lambda: inbox.put(None)))
    # Activations of 8 bits would move vectors further than weights of 8 bits do.
    engine = replace(_engine(channel, load, report, cache_dir), precision="float32")
    loaded = load_model(Path(load.path), shelf)
    if load.wire_weights:
        memory.wire(loaded.weights_bytes)
    encoder = TextEncoder(loaded)
    _start(channel, "tokenizer", lambda: intake.run(encoder))
    backend = f"{loaded.dtype}, {engine.summary}"
    warnings = (
        *(each.sentence for each in engine.warnings),
        *kv_bits.warnings_for_vectors(load.kv_bits, display_name(Path(load.path))),
    )
    _settled(channel, Loaded(loaded.longest, loaded.weights_bytes, backend, warnings, 0, False, *engine.multiplies))
    VectorRunner(loaded.embedder, inbox, channel.send).run()
    mx.clear_streams()


def _engine(channel: FrameSocket, load: Load, report: BlasReport, cache_dir: Path) -> CpuEngine:
    """What computes, once nobody else may delete the model."""
    from squish.worker.cpu.install import compiles_first, install
    from squish.worker.model.hold import hold

    hold(Path(load.path))
    if not compiles_first(cache_dir):
        return install(report, cache_dir, load.cpu_precision)
    channel.send(Compiling(True))
    engine = install(report, cache_dir, load.cpu_precision)
    channel.send(Compiling(False))
    return engine


def _makes_vectors(model: Path) -> bool:
    """Whether a directory holds an embedding model; one that cannot be read is for loading to refuse."""
    from squish.format.model_directory import display_name, read_config
    from squish.worker.model.model_files import kind_of

    try:
        return kind_of(model, read_config(model, display_name(model))) != "chat"
    except SquishError:
        return False


def _disk_tier(load: Load, cache_dir: Path, numbers: str, warn: Callable[[str], None]) -> DiskTier | None:
    """Where a model's prefix cache lies on disk: its files are of use only to the same weights and arithmetic.

    None in a group, where each rank would have to keep its part of a file.
    """
    from squish.worker.cache.disk import DiskTier

    if load.group:
        return None
    try:
        identity = (Path(load.path) / "manifest.toml").read_bytes() + numbers.encode()
        key = hashlib.sha256(identity).hexdigest()[:32]
        return DiskTier(cache_dir / "prefix" / key, key, _DISK_BUDGET, warn)
    except OSError:
        return None  # a directory that is not of the store, or a disk that takes no files


def _hand_to(intake: Intake | TextIntake, frame: ToWorker) -> None:
    if isinstance(frame, Generate | CountTokens | Embed):
        intake.take(frame)
    elif isinstance(frame, Cancel):
        intake.cancel(frame)


def _start(channel: FrameSocket, name: str, target: Callable[[], None]) -> None:
    """Run a thread that is needed as long as the process lives: where it fails, the process ends and says why."""

    def run() -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001 - without this thread the process would live on and never answer
            channel.send(Failed(None, WireError.of(_failure(error))))
            channel.drain()
            os._exit(1)

    threading.Thread(target=run, name=name, daemon=True).start()


def _failure(error: BaseException) -> SquishError:
    """What went wrong, where nobody has words for it. Memory that is missing shows itself in more than one way."""
    if isinstance(error, SquishError):
        return error
    if is_of_processes(error):
        return LoadFailed("The worker process could not start a thread.", hint=process_limit())
    if isinstance(error, MemoryError):
        return LoadFailed("There is not enough memory for the worker process of this model.", hint=memory_limit())
    return EngineError(f"The worker failed: {type(error).__name__}: {error}", hint=memory_limit())


def _beat(channel: FrameSocket) -> None:
    while True:
        channel.send(Alive())
        time.sleep(HEARTBEAT)


def _read(channel: FrameSocket, take: Callable[[ToWorker], None], stop: Callable[[], None]) -> None:
    """The reader thread: hands frames on until the socket closes; then ends the main thread, or else the process."""
    while (frame := channel.receive()) is not None:
        take(frame)
    stop()
    time.sleep(_EXIT_GRACE)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with the compiler that the main thread may be waiting for
    os._exit(1)


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # all is written and saved; to take modules and arrays apart one by one is a twentieth of a second
