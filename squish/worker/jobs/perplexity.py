"""How well a model reads a text: perplexity, and how far its predictions are from those of the original.

It loads the model as serving would, so what is measured is what a user gets. What the original predicts lies in a file
while the compressed model is measured: (tokens, vocabulary) logarithms of probabilities, float16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from squish.errors import CorruptModel, EngineError
from squish.ipc.frames import Measured
from squish.system.host import HOST
from squish.worker.model.load import LoadedModel, load
from squish.worker.prompt.encoder import FOREIGN_TOKENIZER

_WINDOW = 512
_ROWS = 64  # of the original's predictions in memory at once


def perplexity(
    path: Path, text: str, *, keep: Path | None = None, against: Path | None = None, exact: bool = False
) -> Measured:
    """Perplexity over all tokens of a text but the first of each window of 512.

    keep: a file that gets the predictions; against: such a file of the original, for the divergence from it; exact: as
    for `load`. Raises what loading raises, CorruptModel where the tokenizer is another model's, EngineError where the
    model computes no numbers or its predictions cannot be kept.
    """
    try:
        return _measured(path, text, keep, against, exact)
    except OSError as error:
        raise EngineError(f"The predictions of the original cannot be kept: {error.strerror or error}.") from error


def _measured(path: Path, text: str, keep: Path | None, against: Path | None, exact: bool) -> Measured:
    loaded = load(path, exact=exact)
    total, count, divergence = 0.0, 0, 0.0
    if keep is not None:
        keep.write_bytes(b"")
    for window in _windows(loaded, text, path.name):
        found = _predictions(loaded, window)
        total -= cast(float, mx.take_along_axis(found, window[0, 1:, None], axis=-1).sum().item())
        if keep is not None:
            with keep.open("ab") as file:
                np.array(found.astype(mx.float16)).tofile(file)
        if against is not None:
            divergence += _divergence(found, against, count)
        count += found.shape[0]
    if not count:
        raise CorruptModel(f"The tokenizer of {path.name} makes no tokens of a text.")
    if not math.isfinite(total):
        raise EngineError("The model computes values for the bundled text that are not numbers.")
    mean = None if against is None else divergence / count
    return Measured(math.exp(min(total / count, 700.0)), count, HOST.peak(), mean)


def _windows(loaded: LoadedModel, text: str, name: str) -> Iterator[mx.array]:
    """The text in pieces of at most (1, 513) tokens."""
    ids = loaded.tokenizer.encode(text)
    if ids and max(ids) >= loaded.vocab_size:
        raise CorruptModel(FOREIGN_TOKENIZER, param="tokenizer.json")
    for start in range(0, len(ids) - 1, _WINDOW):
        yield mx.array(ids[start : start + _WINDOW + 1])[None]


def _predictions(loaded: LoadedModel, window: mx.array) -> mx.array:
    """(tokens, vocabulary) logarithms of probabilities of all tokens but the first, float32."""
    model: Any = loaded.model
    logits = model(window[:, :-1])[0].astype(mx.float32)
    found: mx.array = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    mx.eval(found)
    return found


def _divergence(found: mx.array, against: Path, first: int) -> float:
    """The sum of the KL divergences of some tokens from the original's. first: their place in its file.

    Tokens that either model gives no probability at all, which have one in no other, do not count.
    """
    count, vocabulary = found.shape
    kept: NDArray[np.float16] = np.memmap(against, np.float16, "r").reshape(-1, vocabulary)[first : first + count]
    total = 0.0
    for start in range(0, count, _ROWS):
        truth = kept[start : start + _ROWS].astype(np.float32)
        difference = truth - np.array(found[start : start + _ROWS])
        usable = np.isfinite(difference)
        total += float((np.exp(truth, where=usable, out=np.zeros_like(truth)) * np.where(usable, difference, 0)).sum())
    return total
