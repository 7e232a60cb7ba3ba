"""How well a model reads a text: perplexity, to compare a compressed model with its original.

It loads the model as serving would, so what is measured is what a user gets.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import mlx.core as mx
from mlx import nn

from squish.errors import CorruptModel, EngineError
from squish.ipc.frames import Measured
from squish.system.host import HOST
from squish.worker.load import load
from squish.worker.prompt import FOREIGN_TOKENIZER

_WINDOW = 512


def perplexity(path: Path, text: str) -> Measured:
    """Perplexity over all tokens of a text but the first of each window of 512.

    Raises what loading raises, CorruptModel where the tokenizer is another model's, and EngineError where the model
    computes no numbers.
    """
    loaded = load(path)
    ids = loaded.tokenizer.encode(text)
    if ids and max(ids) >= loaded.vocab_size:
        raise CorruptModel(FOREIGN_TOKENIZER, param="tokenizer.json")
    total, count = 0.0, 0
    for start in range(0, len(ids) - 1, _WINDOW):
        window = mx.array(ids[start : start + _WINDOW + 1])[None]
        if window.shape[1] < 2:
            break
        logits = loaded.model(window[:, :-1]).astype(mx.float32)
        losses = nn.losses.cross_entropy(logits, window[:, 1:])
        total += cast(float, losses.sum().item())
        count += losses.size
    if not count:
        raise CorruptModel(f"The tokenizer of {path.name} makes no tokens of a text.")
    if not math.isfinite(total):
        raise EngineError("The model computes values for the bundled text that are not numbers.")
    return Measured(math.exp(min(total / count, 700.0)), count, HOST.peak())
