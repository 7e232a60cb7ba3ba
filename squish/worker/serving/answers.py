"""Serves a model that writes: prompts become token ids on threads of their own, and the runner answers them."""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_lm.models.cache import make_prompt_cache

from squish.format.model_directory import display_name
from squish.ipc.frames import Load, Loaded, Warned
from squish.system.host import HOST
from squish.worker import memory
from squish.worker.cache import kv_bits
from squish.worker.cache.disk import DiskTier
from squish.worker.cache.prefix import PrefixCache
from squish.worker.connection import FrameSocket
from squish.worker.cpu.blas import BlasReport
from squish.worker.cpu.install import prepare_model
from squish.worker.intake import Intake
from squish.worker.model.load import load as load_model
from squish.worker.prompt.encoder import PromptEncoder
from squish.worker.runner import Inbox, PrefixSaved, Runner, Stop
from squish.worker.serving.beginning import engine_for, hand_to, settled
from squish.worker.threads import read, start
from squish.worker.tokenizer.facts import Shelf

if TYPE_CHECKING:
    from squish.worker.group.lead import Group
    from squish.worker.speculation.loading import DraftPair

_DISK_BUDGET = 2 << 30


def serve(channel: FrameSocket, load: Load, report: BlasReport, cache_dir: Path, shelf: Shelf) -> None:
    """Load it and answer until the socket closes. Raises what loading raises."""
    inbox: Inbox = queue.SimpleQueue()
    intake = Intake(inbox, channel.send)
    start(channel, "reader", lambda: read(channel, partial(hand_to, intake), lambda: inbox.put(Stop())))
    pair = _pair(load, shelf)
    engine = engine_for(channel, load, report, cache_dir)
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
    start(channel, "tokenizer", lambda: intake.run(encoder, long=False))
    start(channel, "long prompts", lambda: intake.run(encoder, long=True))
    leading, parts = (group.leading(loaded.model), f", {group.about}") if group else (None, "")
    backend = f"{loaded.dtype}, {engine.summary}, {kv.bits}-bit KV cache{parts}"
    warnings = (*(each.sentence for each in engine.warnings), *kv.warnings)
    settled(
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
    budget = min(memory.cache_budget(), group.cache_budget) if group else memory.cache_budget()
    return PrefixCache(budget, make_prompt_cache(model), disk, exact=exact, pressure=HOST.pressure, wake=wake)


def _prepared(model: Any, load: Load, group: Group | None) -> tuple[bool, kv_bits.KvBits]:
    """Change a model for the CPU, if possible: whether its numbers are the same in any company, and its KV cache."""
    exact = (group is None or group.way == "tensor") and prepare_model(model, load.kv_bits)
    found = kv_bits.found(model, load.kv_bits, display_name(Path(load.path)))
    return exact and (group is None or group.exact), found


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


def _disk_tier(load: Load, cache_dir: Path, numbers: str, warn: Callable[[str], None]) -> DiskTier | None:
    """Where a model's prefix cache lies on disk: its files are of use only to the same weights and arithmetic.

    None in a group, where each rank would have to keep its part of a file.
    """
    if load.group:
        return None
    try:
        identity = (Path(load.path) / "manifest.toml").read_bytes() + numbers.encode()
        key = hashlib.sha256(identity).hexdigest()[:32]
        return DiskTier(cache_dir / "prefix" / key, key, _DISK_BUDGET, warn)
    except OSError:
        return None  # a directory that is not of the store, or a disk that takes no files
