"""`make quality`: what compressing costs, by recipe: perplexity and KL divergence from the original on a long text.

The original is an installed model, dequantized where it is quantized. Each recipe is run by the job that a pull runs,
in a worker, and each model is loaded as serving would, but with products in float32. The text is the one that comes
with Squish and its documentation, from the start.

Weights that were published with few bits lie on a grid, and a format with the same groups finds it again. `--shuffle`
puts the hidden units, those of the MLP and those of the values in another order: the same model, on no grid.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squish.config.settings import Settings
from squish.errors import SquishError
from squish.models import recipes
from squish.models.store import Store
from tests.arguments import count, recipe

_ROOT = Path(__file__).parent.parent
_DEFAULT = ("4bit", "4bit-search", "4bit-calibrated", "3bit", "3bit-search", "3bit-calibrated")


@dataclass(frozen=True, slots=True)
class _Result:
    """bits: of the files, a weight; seconds: CPU time of compressing."""

    name: str
    bits: float
    perplexity: float
    divergence: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="make quality", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "recipes",
        nargs="*",
        type=_recipe_or_directory,
        default=_DEFAULT,
        help="4bit, 4bit-search, …, or directories of models",
    )
    parser.add_argument("--model", type=_installed, default="smollm2:135m", help="an installed model, or a directory")
    parser.add_argument("--tokens", type=count, default=4096)
    parser.add_argument("--shuffle", action="store_true", help="in another order of its units (llama, qwen, gemma 3)")
    options = parser.parse_args()
    _prepare()
    with tempfile.TemporaryDirectory() as directory:
        _run(Path(directory), options.model, tuple(options.recipes), options.tokens, options.shuffle)


def _recipe_or_directory(text: str) -> str:
    return text if Path(text).is_dir() else recipe(text)


def _installed(text: str) -> Path:
    """The directory of a model."""
    if Path(text).is_dir():
        return Path(text)
    try:
        return Store(Settings.from_environment().cache_dir).find(text).path
    except SquishError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _prepare() -> None:
    """MLX keeps the BLAS that it finds first, so this comes before it is imported."""
    from squish.worker.cpu import install

    cache = Settings.from_environment().worker_cache
    install.install(install.prepare(cache), cache)


def _run(directory: Path, installed: Path, names: tuple[str, ...], tokens: int, shuffle: bool) -> None:
    from squish.worker.jobs.perplexity import perplexity
    from tests.pull.shards import full_precision

    original, predictions = directory / "original", directory / "predictions"
    for name, content in full_precision(installed, original, 1).items():
        (original / name).write_bytes(content)
    if shuffle:
        _shuffle(original)
    text = _text(original, tokens)
    base = perplexity(original, text, keep=predictions, exact=True)
    print(f"{base.tokens:,} tokens\n\n| recipe | bits | perplexity | loss | KL divergence | CPU |\n{'| --- ' * 6}|")
    _show(_Result("original", _bits(original, original), base.perplexity, 0, 0), base.perplexity)
    for name in names:
        path, seconds = Path(name), 0.0
        if not path.is_dir():
            path = directory / "compressed"
            seconds = _compress(original, path, name)
        found = perplexity(path, text, against=predictions, exact=True)
        assert found.divergence is not None
        bits = _bits(path, original)
        _show(_Result(name, bits, found.perplexity, found.divergence, seconds), base.perplexity)


def _compress(original: Path, destination: Path, name: str) -> float:
    """CPU seconds of it."""
    from squish.ipc.frames import Quantized, QuantizeShards
    from squish.ipc.jobs import run_job

    chosen = recipes.from_tag(name)
    assert chosen
    assert chosen.recipe
    for path in destination.glob("*"):
        path.unlink()
    shards = tuple(path.name for path in original.glob("*.safetensors"))
    before = _cpu_seconds()
    with tempfile.TemporaryDirectory() as headers:
        for shard in shards:
            (Path(headers) / f"{shard}.json").write_text("{}")
        job = QuantizeShards(str(original), headers, str(destination), shards, chosen.recipe)
        asyncio.run(run_job(job, Settings.from_environment().worker_cache, Quantized))
    spent = _cpu_seconds() - before
    for path in original.iterdir():
        if path.suffix != ".safetensors" and not (destination / path.name).exists():
            (destination / path.name).write_bytes(path.read_bytes())
    return spent


def _shuffle(model: Path) -> None:
    """Put the units of a model in another order, which changes no prediction."""
    import mlx.core as mx

    config = json.loads((model / "config.json").read_text())
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    keys, size = config.get("num_key_value_heads", heads), config.get("head_dim") or hidden // heads
    mx.random.seed(0)
    order = mx.random.permutation(hidden)
    for path in model.glob("*.safetensors"):
        loaded: Any = mx.load(str(path))
        for name in loaded:
            kind, layer = name.split(".")[-2], next((part for part in name.split(".") if part.isdecimal()), "0")
            mx.random.seed(1 + int(layer))
            inner = mx.random.permutation(config["intermediate_size"])
            of_keys = [mx.random.permutation(size) for _ in range(keys)]
            weight = loaded[name]
            if kind in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens", "lm_head"):
                weight = weight[..., order] if weight.ndim == 2 else weight
            if kind in ("gate_proj", "up_proj"):
                weight = weight[inner]
            if kind == "v_proj":
                weight = weight[mx.concatenate([each + size * number for number, each in enumerate(of_keys)])]
            if kind == "o_proj":
                places = [of_keys[head * keys // heads] + size * head for head in range(heads)]
                weight = weight[order][:, mx.concatenate(places)]
            if kind == "down_proj":
                weight = weight[order][:, inner]
            if kind.endswith("norm") and kind not in ("q_norm", "k_norm"):
                weight = weight[order]
            loaded[name] = weight
        mx.eval(loaded)
        mx.save_safetensors(str(path), loaded, metadata={"format": "mlx"})


def _text(model: Path, tokens: int) -> str:
    """What comes with Squish and its documentation by turns of paragraphs, so many tokens of it."""
    from mlx_lm.utils import load_tokenizer

    bundled = (_ROOT / "squish/pull/perplexity.txt").read_text(encoding="utf-8")
    pages = "\n".join(path.read_text(encoding="utf-8") for path in sorted((_ROOT / "docs").glob("*.md")))
    tokenizer = load_tokenizer(model)
    ids = tokenizer.encode(bundled + "\n" + pages[: tokens * 8])[: tokens + 1]
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def _bits(path: Path, original: Path) -> float:
    """Bits a weight of the files."""
    parts = (sum(file.stat().st_size for file in each.glob("*.safetensors")) for each in (path, original))
    after, before = parts
    return 16 * after / before


def _cpu_seconds() -> float:
    """Of workers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _show(each: _Result, base: float) -> None:
    loss = math.log(each.perplexity / base)
    figures = f"{each.bits:.2f} | {each.perplexity:.2f} | {loss:.4f} | {each.divergence:.4f} | {each.seconds:.1f}"
    print(f"| {each.name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
