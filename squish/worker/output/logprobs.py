"""Log-probabilities of tokens: read from the step's arrays for the rows that asked, and tied to the text they became.

Entries leave with the text of their tokens, never before it, so that their bytes joined are that text's bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from squish.generation import Likely, TokenLogprob

_LOWEST = -9999.0  # stands for minus infinity, which JSON cannot say
_BLOCK = 64


class Vocabulary:
    """The bytes of each token. detokenizer: mlx_lm's for this model, whose token table it reads."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._table: Sequence[str | bytes] = getattr(tokenizer.detokenizer, "tokenmap", ())
        self._bytes = _byte_of_character()

    def bytes_of(self, token: int) -> bytes:
        if not 0 <= token < len(self._table):
            return str(self._tokenizer.decode([token])).encode() if not self._table else b""
        written = self._table[token]
        if isinstance(written, bytes):
            return written.replace("▁".encode(), b" ")
        if written and all(character in self._bytes for character in written):
            return bytes(self._bytes[character] for character in written)
        return (written or "").encode()


@dataclass(frozen=True, slots=True)
class LogprobRequest:
    """A token of this step whose log-probabilities are wanted. logprobs: (vocabulary,), evaluated."""

    token: int
    logprobs: mx.array
    top: int


def read(wanted: list[LogprobRequest], vocabulary: Vocabulary, use_numpy: bool) -> list[TokenLogprob]:
    """The entries of one step, all rows in one evaluation."""
    if not wanted:
        return []
    top = max(each.top for each in wanted)
    chosen, ids, values = (_with_numpy if use_numpy else _with_mlx)(wanted, top)
    return [
        _entry(vocabulary, each, float(chosen[row]), ids[row][: each.top], values[row][: each.top])
        for row, each in enumerate(wanted)
    ]


def _with_numpy(wanted: list[LogprobRequest], top: int) -> tuple[Any, Any, Any]:
    chosen, ids, values = [], [], []
    for each in wanted:
        row = np.array(each.logprobs.astype(mx.float32), copy=False)
        best = _likeliest(row, top)
        chosen.append(row[each.token])
        ids.append(best)
        values.append(row[best])
    return chosen, ids, values


def _likeliest(row: Any, top: int) -> Any:
    """The ids of the top values, the largest first. A look at the largest of each block saves ordering all of them."""
    if top == 0:
        return np.array([], dtype=np.int64)
    whole = len(row) // _BLOCK * _BLOCK
    among = np.arange(len(row))
    if whole > top * _BLOCK:
        largest = row[:whole].reshape(-1, _BLOCK).max(axis=1)
        among = np.flatnonzero(row >= np.partition(largest, -top)[-top])
    return among[np.argsort(-row[among], kind="stable")[:top]]


def _with_mlx(wanted: list[LogprobRequest], top: int) -> tuple[Any, Any, Any]:
    rows = mx.stack([each.logprobs for each in wanted]).astype(mx.float32)
    tokens = mx.array([[each.token] for each in wanted])
    chosen = mx.take_along_axis(rows, tokens, axis=-1)[:, 0]
    best = mx.argpartition(-rows, max(top, 1) - 1, axis=-1)[:, :top]
    values = mx.take_along_axis(rows, best, axis=-1)
    order = mx.argsort(-values, axis=-1)
    best, values = mx.take_along_axis(best, order, axis=-1), mx.take_along_axis(values, order, axis=-1)
    mx.eval(chosen, best, values)
    return np.array(chosen), np.array(best), np.array(values)


def _entry(vocabulary: Vocabulary, wanted: LogprobRequest, logprob: float, ids: Any, values: Any) -> TokenLogprob:
    top = []
    for token, value in zip(ids, values, strict=True):
        data = vocabulary.bytes_of(int(token))
        top.append(Likely(_shown(data), data, max(float(value), _LOWEST)))
    data = vocabulary.bytes_of(wanted.token)
    return TokenLogprob(_shown(data), data, max(logprob, _LOWEST), tuple(top))


@dataclass(slots=True)
class _Group:
    """Tokens that became text[start:end] together."""

    start: int
    end: int
    text: str
    entries: list[TokenLogprob]


class Ledger:
    """Which entries belong to which part of a row's text. Positions count characters of the whole text."""

    def __init__(self) -> None:
        self._groups: deque[_Group] = deque()
        self._pending: list[TokenLogprob] = []
        self._length = 0

    def note(self, entry: TokenLogprob) -> None:
        """A token was read; the text goes on by it now or later."""
        self._pending.append(entry)

    def went_on(self, segment: str) -> None:
        """The text has become longer by what the last tokens were."""
        if segment:
            self._split(self._length, segment)
            self._length += len(segment)

    def _split(self, start: int, segment: str) -> None:
        """One group for each token, where tokens and text agree; else one for all of them."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        data = segment.encode()
        if b"".join(entry.bytes for entry in pending) == b" " + data and pending[0].bytes:
            pending[0] = _with_bytes(pending[0], pending[0].bytes[1:])  # the detokenizer drops a first space
        if b"".join(entry.bytes for entry in pending) != data:
            pending = [*(_with_bytes(entry, b"") for entry in pending[:-1]), _with_bytes(pending[-1], data)]
        lengths = [_characters(entry.bytes) for entry in pending]
        if not all(lengths):
            self._groups.append(_Group(start, start + len(segment), segment, pending))
            return
        for entry, length in zip(pending, lengths, strict=True):
            self._groups.append(_Group(start, start + length, segment[:length], [entry]))
            start, segment = start + length, segment[length:]

    def boundary(self, position: int) -> int:
        """The last place up to position where a token ends."""
        return max((group.end for group in self._groups if group.end <= position), default=0)

    def forget(self, end: int) -> None:
        """Text up to end carries no entries."""
        while self._groups and self._groups[0].end <= end:
            self._groups.popleft()

    def take(self, start: int, end: int) -> tuple[TokenLogprob, ...]:
        """The entries of text[start:end], which leaves now. A token that is only partly in it is cut."""
        self.forget(start)
        taken: list[TokenLogprob] = []
        while self._groups and self._groups[0].start < end:
            taken.extend(_visible(self._groups[0], start, end))
            if self._groups[0].end > end:
                break
            self._groups.popleft()
        return tuple(taken)


def _visible(group: _Group, start: int, end: int) -> list[TokenLogprob]:
    """The entries of a group, with the bytes that lie in start..end."""
    if start <= group.start and group.end <= end:
        return group.entries
    first = len(group.text[: max(start - group.start, 0)].encode())
    last = len(group.text[: end - group.start].encode())
    shown, at = [], 0
    for entry in group.entries:
        visible = entry.bytes[max(first - at, 0) : max(last - at, 0)]
        at += len(entry.bytes)
        if visible:
            shown.append(_with_bytes(entry, visible))
    return shown


def _characters(data: bytes) -> int:
    """How many characters the bytes are; 0 when they are no whole ones."""
    try:
        return len(data.decode())
    except UnicodeDecodeError:
        return 0


def _with_bytes(entry: TokenLogprob, data: bytes) -> TokenLogprob:
    return TokenLogprob(_shown(data), data, entry.logprob, entry.top)


def _shown(data: bytes) -> str:
    return data.decode(errors="replace")


def _byte_of_character() -> dict[str, int]:
    """Byte-level vocabularies write a byte as a visible character: itself where it is one, else one from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + at): byte for at, byte in enumerate(hidden)}
