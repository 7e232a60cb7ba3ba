"""A program: what the extension of a processor computes. `python -m tests.worker.cpu.decode EXTENSION MODEL`.

It prints, as JSON, the kernels in use, a hash of products in many formats, and tokens of a real model.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

_PROMPT = (1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198)
_TOKENS = 6


def main(library: Path, model: Path) -> None:
    os.environ["MLX_DISABLE_COMPILE"] = "1"
    from squish.worker.model import imports

    imports.prepare()
    from squish.worker.cpu import extension, functions

    native = extension._open(library)
    functions.use(native)
    print(json.dumps({"kernel": native.kernel(), "products": products(native), "tokens": tokens(model)}))


def products(native: Any) -> str:
    """Of 8-bit activations, whose sums are whole numbers: the same on every processor."""
    import mlx.core as mx
    import numpy as np

    x = mx.array(np.random.default_rng(1).integers(-127, 128, (5, 256)).astype(np.float32))
    found = []
    for bits in (2, 3, 4, 5, 6, 8):
        weight = np.random.default_rng(bits).integers(0, 1 << 32, (35, 8 * bits), np.uint32)
        scales = np.random.default_rng(bits).integers(1, 100, (35, 8)).astype(np.float16) / 64
        matrix = native.pack(mx.array(weight), mx.array(scales), mx.array(-scales), bits, 32)
        found.append(native.products(x, [matrix])[0])
    mx.eval(found)
    return hashlib.sha256(b"".join(np.array(each).tobytes() for each in found)).hexdigest()


def tokens(path: Path) -> list[int]:
    """What the model answers, greedily, its blocks fused as in a worker."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    from squish.worker.cpu.install import prepare_model
    from squish.worker.cpu.kv import BatchCache, SequenceCache
    from squish.worker.model import load
    from squish.worker.model.model_files import read_config

    model: Any = load.build(path, read_config(path))
    load.place(model, path, 1 << 32, exact=False)
    assert prepare_model(model)
    cache = [BatchCache([SequenceCache.of(each)]) for each in make_prompt_cache(model)]
    pending = list(_PROMPT)
    answer: list[int] = []
    while len(answer) < _TOKENS:
        best: Any = mx.argmax(model(mx.array([pending]), cache=cache)[0, -1]).item()
        pending, answer = [best], [*answer, best]
    return answer


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
