"""A program: greedy answers of an MLX model with its weights in float32, over Squish's own BLAS.

    python tests/greedy.py MODEL BLAS_CACHE < {"prompts": [[token, …], …], "ends": [token, …], "limit": tokens}

It prints one {"first": [the eight best first tokens], "tokens": [the answer]} for each prompt, as a JSON list. It is a
process of its own because a BLAS can only be chosen before MLX is imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from squish.worker.cpu.blas import prepare


def main(model_path: Path, cache_path: Path) -> None:
    prepare(cache_path)
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model, load_model

    request = json.load(sys.stdin)
    model, _ = load_model(model_path)
    model.set_dtype(mx.float32)
    model = dequantize_model(model)
    answers = [_answer(model, prompt, request["ends"], request["limit"]) for prompt in request["prompts"]]
    print(json.dumps(answers))
    mx.clear_streams()


def _answer(model: Any, prompt: list[int], ends: list[int], limit: int) -> dict[str, list[int]]:
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    cache, pending = make_prompt_cache(model), prompt
    first: list[int] = []
    tokens: list[int] = []
    while len(tokens) < limit:
        ranked: Any = mx.argsort(-model(mx.array([pending]), cache=cache)[0, -1])[:8].tolist()
        first = first or ranked
        if ranked[0] in ends:
            break
        tokens.append(ranked[0])
        pending = ranked[:1]
    return {"first": first, "tokens": tokens}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
