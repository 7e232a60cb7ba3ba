"""The prefix cache: KV caches of earlier rows, found again by the tokens they hold.

A radix tree whose edges are blocks of 64 tokens. Every cut is at a multiple of 64: reuse then leaves the same chunks to
compute as a cold run has, and greedy output stays the same. Where what is computed does not depend on chunks (`exact`),
cuts are anywhere: the last edge of a row may be shorter, and a part of an edge serves too. A cache of plain KV layers
serves every block on its path, each reader through a view of its own on the same arrays; a cache that cannot be trimmed
(rotating, recurrent) serves only the exact length at which its snapshot was taken. The least recently used go first, by
bytes.

It belongs to the MLX thread and knows nothing of rows or requests.
"""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import CacheList, KVCache, QuantizedKVCache

from squish.system.host import Pressure
from squish.worker.cache.cache_file import lay_out, part
from squish.worker.cache.disk import DiskTier, Stored
from squish.worker.cache.saving import PIECE, Saving

BLOCK = 64

_PRESSED = {"normal": 1, "warning": 2, "critical": 8}  # what the budget is divided by where memory is short

_ROOM = 1.25  # times its tokens: a cache with room for more is copied without it

_SAVED = 4 * BLOCK  # tokens; shorter prefixes are computed about as fast as they are read

Block = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Entry:
    """The cache of one row. nodes: where the tree points at it.

    caches: one per layer, not to be written to; None while it is only on disk, in the file that is stored.
    """

    caches: list[Any] | None
    nbytes: int
    stored: Stored | None = None
    nodes: set[Node] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Node:
    """The end of a block. length: tokens down to here. entry: a cache that holds at least those, if there is one."""

    parent: Node | None
    block: Block
    length: int
    children: dict[Block, Node] = field(default_factory=dict)
    entry: Entry | None = None


class PrefixCache:
    """budget: bytes that the entries may hold in memory. layers: an empty cache of the model, to see its kinds.

    disk: where entries go soon, and come back from. wake: called on another thread when one is there. exact: what the
    model computes does not depend on where a prompt is cut. pressure: how urgently the system wants memory back.
    """

    def __init__(
        self,
        budget: int,
        layers: list[Any],
        disk: DiskTier | None = None,
        *,
        exact: bool = False,
        pressure: Callable[[], Pressure] = lambda: "normal",
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.budget = budget
        self._pressure = pressure
        self.exact = exact
        self.nbytes = 0
        self.trimmable = can_trim(layers)
        self._root = Node(None, (), 0)
        self._entries: OrderedDict[Entry, None] = OrderedDict()
        self._disk = disk
        self._wake = wake
        self._unsaved: dict[Entry, None] = {}  # in memory and not on disk; the last is the next to be written
        self._saving: tuple[Entry, Saving] | None = None
        for stored, tokens in disk.index() if disk else []:
            self._add(tokens, Entry(None, 0, stored))

    def __len__(self) -> int:
        return len(self._entries)

    def beside(self) -> PrefixCache:
        """An empty one for the same model with an adapter, in memory alone."""
        made = PrefixCache(self.budget, [], exact=self.exact, pressure=self._pressure)
        made.trimmable = self.trimmable
        return made

    def take(self, tokens: list[int]) -> tuple[int, list[Any] | None]:
        """The longest known prefix: its length in tokens and a cache that holds it, or (0, None).

        At least one token is left over, because a model needs something to process.
        """
        while True:
            best = self._longest(tokens[:-1])
            if best is None:
                return 0, None
            length, entry = best
            if caches := self._in_memory(entry):
                self._entries.move_to_end(entry)
                return length, [_view(cache, length) for cache in caches] if self.trimmable else list(caches)

    def _longest(self, tokens: list[int]) -> tuple[int, Entry] | None:
        """The longest beginning of these tokens that an entry holds: its length, and the entry."""
        path = self._path(tokens)
        best = next(((node.length, node.entry) for node in reversed(path) if node.entry), None)
        at = best[0] if best else 0
        for node in reversed([self._root, *path]) if self.exact else ():
            if node.length >= at and (further := self._within(node, tokens[node.length : node.length + BLOCK])):
                return further
        return best

    def _within(self, node: Node, tokens: list[int]) -> tuple[int, Entry] | None:
        """The same for what comes after a node, less than a block: a part of an edge, where caches can be trimmed."""
        best: tuple[int, Entry] | None = None
        for child in node.children.values():
            common = _common(child.block, tokens)
            fits = common > 0 and (self.trimmable or common == len(child.block))
            if child.entry and fits and (best is None or node.length + common > best[0]):
                best = node.length + common, child.entry
        return best

    def wants(self, tokens: list[int]) -> bool:
        """Whether a cache of exactly these tokens would be of use: it is long enough, and not held already."""
        if self.exact:
            held = self._longest(tokens)
            return len(tokens) > 1 and (held is None or held[0] < len(tokens))
        blocks = len(tokens) // BLOCK
        if not blocks or (not self.trimmable and len(tokens) % BLOCK):
            return False
        path = self._path(tokens)
        return len(path) < blocks or path[-1].entry is None

    def put(self, tokens: list[int], caches: list[Any], part: int = 1) -> None:
        """Keep the cache of these tokens. Call it only when `wants` says so; the arrays are evaluated here.

        part: nothing is kept that takes more than this part of the budget, 16 for a sixteenth.
        """
        caches = [_compact(cache) for cache in caches]
        mx.eval([cache.state for cache in caches])
        entry = Entry(caches, sum(cache.nbytes for cache in caches))
        if entry.nbytes * part > self.budget:
            return
        self._add(tokens, entry)
        if self._disk and entry.nodes:
            self._unsaved[entry] = None
        self.fit()

    def fit(self) -> None:
        """Keep to the budget, or to a part of it while other programs need memory."""
        self.shrink(self.budget // _PRESSED[self._pressure()])

    def shrink(self, target: int) -> None:
        """Let go of the least recently used until at most `target` bytes are in memory."""
        for entry in [entry for entry in self._entries if entry.caches]:
            if self.nbytes <= target:
                return
            if entry.stored:
                self.nbytes -= entry.nbytes
                entry.caches, entry.nbytes = None, 0
            else:
                self._drop(entry)

    @property
    def unsaved(self) -> bool:
        """Whether something is on its way to the disk, or waits for it."""
        return self._saving is not None or bool(self._unsaved)

    def tend(self, *, busy: bool) -> None:
        """Bring what is new to the disk, on another thread. Call it after every step, and before waiting for work.

        busy: rows run, and at most PIECE bytes are to be written until the next call.
        """
        if self._saving and self._saving[1].ended:
            self._saved(*self._saving)
        while self._saving is None and self._unsaved:
            self._save_next()
        if self._saving:
            self._saving[1].allow(PIECE if busy else None)

    def save(self, seconds: float) -> None:
        """The same for what can be written in so many seconds; what cannot is given up."""
        end = time.monotonic() + seconds
        self.tend(busy=False)
        while self._saving and time.monotonic() < end:
            self._saving[1].wait(end - time.monotonic())
            self.tend(busy=False)
        if self._saving:
            self._saving[1].abandon()

    def _save_next(self) -> None:
        """Begin to write the entry that was put in last, of which earlier files may hold a beginning."""
        entry, _ = self._unsaved.popitem()
        assert self._disk
        assert entry.caches is not None
        tokens = _tokens(max(entry.nodes, key=lambda node: node.length))
        before = self._disk.longest(tokens)
        held = before.length if before else 0
        if held == len(tokens):
            entry.stored = before
        if not self.trimmable:
            before, held = None, 0
        if entry.stored or len(tokens) < _SAVED or len(tokens) - held < BLOCK:
            return
        new = self._disk.new(tokens, before)
        caches = [part(each, new.start, len(tokens)) for each in entry.caches] if self.trimmable else entry.caches
        self._saving = entry, Saving(self._disk, new, lay_out(caches, new.about), self._wake)

    def _saved(self, entry: Entry, saving: Saving) -> None:
        self._saving = None
        if self._disk and saving.stored:
            entry.stored = saving.stored
            self._disk.keep(saving.stored)

    def _in_memory(self, entry: Entry) -> list[Any] | None:
        """The caches of an entry, read from disk if need be; None, and the entry is gone, when that fails."""
        if entry.caches is None and self._disk and entry.stored:
            entry.caches = self._disk.read(entry.stored)
            if entry.caches is None:
                self._drop(entry)
                return None
            entry.nbytes = sum(cache.nbytes for cache in entry.caches)
            self.nbytes += entry.nbytes
        return entry.caches

    def _add(self, tokens: list[int], entry: Entry) -> None:
        path = self._grow(tokens)
        if not path:
            return
        self._entries[entry] = None
        self.nbytes += entry.nbytes
        for node in path if self.trimmable else path[-1:]:
            self._point(node, entry)

    def _path(self, tokens: list[int]) -> list[Node]:
        """The nodes along these tokens, as far as the tree goes."""
        path: list[Node] = []
        node = self._root
        for block in _blocks(tokens):
            child = node.children.get(block)
            if child is None:
                break
            path.append(child)
            node = child
        return path

    def _grow(self, tokens: list[int]) -> list[Node]:
        """The nodes along these tokens, made where they are missing."""
        path: list[Node] = []
        node = self._root
        for block in _blocks(tokens, tail=self.exact):
            if block not in node.children:
                self._supersede(node, block)
                node.children[block] = Node(node, block, node.length + len(block))
            node = node.children[block]
            path.append(node)
        return path

    def _supersede(self, node: Node, block: Block) -> None:
        """Take out the ends of rows that the row of a new block goes on from, where that one serves in their place."""
        for child in list(node.children.values()):
            if self.trimmable and len(child.block) < len(block) and block[: len(child.block)] == child.block:
                del node.children[child.block]
                if child.entry:
                    child.entry.nodes.discard(child)
                    if not child.entry.nodes:
                        self._forget(child.entry)

    def _point(self, node: Node, entry: Entry) -> None:
        """Let a node serve from this entry; an entry that no node needs any more is gone."""
        old, node.entry = node.entry, entry
        entry.nodes.add(node)
        if old:
            old.nodes.discard(node)
            if not old.nodes:
                self._forget(old)

    def _drop(self, entry: Entry) -> None:
        """Take an entry out. Its nodes are served by a longer entry below them where there is one, or pruned."""
        for node in sorted(entry.nodes, key=lambda node: node.length, reverse=True):
            heir = next((child.entry for child in node.children.values() if child.entry), None)
            node.entry = heir if self.trimmable else None
            if node.entry:
                node.entry.nodes.add(node)
            self._prune(node)
        entry.nodes.clear()
        if self._saving and self._saving[0] is entry:
            self._saving[1].abandon()  # its memory is wanted
        self._forget(entry)

    def _prune(self, node: Node) -> None:
        while node.parent and not node.children and not node.entry:
            del node.parent.children[node.block]
            node = node.parent

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry]
        self._unsaved.pop(entry, None)
        self.nbytes -= entry.nbytes


def can_trim(layers: list[Any]) -> bool:
    """Whether all caches can be cut to any shorter length, however long they are now."""
    return all(map(_trimmable, layers))


def _blocks(tokens: list[int], *, tail: bool = False) -> list[Block]:
    """The whole blocks of these tokens; with `tail` also what is left after them."""
    end = len(tokens) if tail else len(tokens) - BLOCK + 1
    return [tuple(tokens[at : at + BLOCK]) for at in range(0, end, BLOCK)]


def _common(block: Block, tokens: list[int]) -> int:
    """How many tokens at the beginning are the same."""
    differs = (at for at, (one, other) in enumerate(zip(block, tokens, strict=False)) if one != other)
    return next(differs, min(len(block), len(tokens)))


def _tokens(node: Node) -> list[int]:
    """The tokens from the root down to a node."""
    blocks: list[Block] = []
    while node.parent:
        blocks.append(node.block)
        node = node.parent
    return [token for block in reversed(blocks) for token in block]


def _trimmable(cache: Any) -> bool:
    """Whether a cache can be cut to any shorter length: exact classes, because subclasses may keep more state."""
    if type(cache) is CacheList:
        return all(map(_trimmable, cache.caches))
    return type(cache) in (KVCache, QuantizedKVCache)


def _view(cache: Any, length: int) -> Any:
    """A cache of the first `length` tokens on the same arrays. Nobody writes to it: a batch copies what it takes in."""
    view = copy.copy(cache)
    if type(cache) is CacheList:
        view.caches = tuple(_view(part, length) for part in cache.caches)
    else:
        view.offset = length
    return view


def _compact(cache: Any) -> Any:
    """The same cache without room for more tokens, where that is much of it: 40 tokens have room for 256."""
    if type(cache) is CacheList:
        return CacheList(*map(_compact, cache.caches))
    if type(cache) is not KVCache or cache.keys is None or cache.keys.shape[2] <= _ROOM * cache.offset:
        return cache
    made = KVCache()
    made.offset = cache.offset
    made.keys, made.values = (mx.contiguous(array[..., : cache.offset, :]) for array in (cache.keys, cache.values))
    return made
