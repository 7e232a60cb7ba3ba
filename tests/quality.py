"""`make quality`: what compressing costs, by recipe: perplexity and KL divergence from the original on a long text.

The original is an installed model, dequantized where it is quantized. Each recipe is run by the job that a pull runs,
and each model is loaded as serving would. The text is the documentation of Squish and of Python, from the start.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics  # type: ignore[import-untyped]
from typing import Any, cast

import mlx.core as mx

from squish.config.settings import Settings
from squish.ipc.frames import QuantizeShards
from squish.models import recipes
from squish.models.store import Store
from squish.worker.jobs.quantize import quantize_shards
from squish.worker.load import LoadedModel, load
from tests.pull.shards import full_precision

_WINDOW = 512
_DOCS = Path(__file__).parent.parent / "docs"
_DEFAULT = ("4bit", "4bit-search", "3bit", "3bit-search")


@dataclass(slots=True)
class _Result:
    """seconds: CPU time of compressing; loss: the sum over the tokens; divergence: likewise."""

    name: str
    seconds: float
    loss: float = 0.0
    divergence: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="make quality", description=__doc__.split("\n\n")[0])
    parser.add_argument("recipes", nargs="*", default=_DEFAULT, help="as behind a model's name: 4bit, 4bit-search, …")
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--tokens", type=int, default=8192)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        _run(Path(directory), options.model, tuple(options.recipes), options.tokens)


def _run(directory: Path, model: str, names: tuple[str, ...], tokens: int) -> None:
    installed = Store(Settings.from_environment().cache_dir).find(model).path
    original = directory / "original"
    for name, content in full_precision(installed, original, 1).items():
        (original / name).write_bytes(content)
    results = [_compress(original, directory / name, name) for name in names]
    base = _Result("original", 0.0)
    count = 0
    with_models = [load(directory / result.name) for result in (base, *results)]
    for window in _windows(with_models[0], tokens):
        truth = _log_probabilities(with_models[0], window)
        count += window.shape[1] - 1
        for result, loaded in zip((base, *results), with_models, strict=True):
            found = truth if result is base else _log_probabilities(loaded, window)
            picked = mx.take_along_axis(found, window[0, 1:, None], axis=-1)
            result.loss -= cast(float, picked.sum().item())
            result.divergence += cast(float, (mx.exp(truth) * (truth - found)).sum().item())
    _show((base, *results), count)


def _compress(original: Path, destination: Path, name: str) -> _Result:
    chosen = recipes.from_tag(name)
    if chosen is None or chosen.recipe is None:
        raise SystemExit(f"{name} is not a recipe; 4bit, 3bit-g32 and 4bit-search are.")
    shards = tuple(path.name for path in original.glob("*.safetensors"))
    before = _cpu_seconds()
    with tempfile.TemporaryDirectory() as headers:
        for shard in shards:
            (Path(headers) / f"{shard}.json").write_text("{}")
        job = QuantizeShards(str(original), headers, str(destination), shards, chosen.recipe)
        quantize_shards(job, lambda *_: None)
    spent = _cpu_seconds() - before
    for path in original.iterdir():
        if path.suffix != ".safetensors" and not (destination / path.name).exists():
            (destination / path.name).write_bytes(path.read_bytes())
    return _Result(name, spent)


def _windows(loaded: LoadedModel, tokens: int) -> Iterator[mx.array]:
    """The text in pieces of (1, 513) tokens, by turns of both documentations."""
    ours = "\n".join(path.read_text(encoding="utf-8") for path in sorted(_DOCS.glob("*.md")))
    pythons = "\n".join(topics[name] for name in sorted(topics))
    for start in range(0, tokens // 2, _WINDOW):
        for text in (ours, pythons):
            ids = loaded.tokenizer.encode(text[: tokens * 8])[start : start + _WINDOW + 1]
            yield mx.array(ids)[None]


def _log_probabilities(loaded: LoadedModel, window: mx.array) -> mx.array:
    """(tokens, vocabulary) of all tokens but the first."""
    model: Any = loaded.model
    logits = model(window[:, :-1])[0].astype(mx.float32)
    found: mx.array = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    mx.eval(found)
    return found


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _show(results: tuple[_Result, ...], count: int) -> None:
    print(f"{count:,} tokens\n\n| recipe | perplexity | KL divergence | seconds of CPU |\n| --- | --- | --- | --- |")
    for each in results:
        perplexity, divergence = math.exp(each.loss / count), each.divergence / count
        print(f"| {each.name} | {perplexity:.2f} | {divergence:.4f} | {each.seconds:.1f} |")


if __name__ == "__main__":
    main()
