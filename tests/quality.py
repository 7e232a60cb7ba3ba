"""`make quality`: what compressing costs, by recipe: perplexity and KL divergence from the original on a long text.

The original is an installed model, dequantized where it is quantized. Each recipe is run by the job that a pull runs,
and each model is loaded as serving would, but with products in float32. The text is the one that comes with Squish and
its documentation, from the start.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path

from squish.config.settings import Settings
from squish.models import recipes
from squish.models.store import Store

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
    parser.add_argument("recipes", nargs="*", default=_DEFAULT, help="4bit, 4bit-search, …, or directories of models")
    parser.add_argument("--model", default="smollm2:135m", help="an installed model, or a directory")
    parser.add_argument("--tokens", type=int, default=4096)
    options = parser.parse_args()
    _prepare()
    with tempfile.TemporaryDirectory() as directory:
        _run(Path(directory), options.model, tuple(options.recipes), options.tokens)


def _prepare() -> None:
    """MLX keeps the BLAS that it finds first, so this comes before it is imported."""
    from squish.worker.cpu import install

    cache = Settings.from_environment().worker_cache
    install.install(install.prepare(cache), cache)


def _run(directory: Path, model: str, names: tuple[str, ...], tokens: int) -> None:
    from squish.worker.jobs.perplexity import perplexity
    from tests.pull.shards import full_precision

    installed = Path(model) if Path(model).is_dir() else Store(Settings.from_environment().cache_dir).find(model).path
    original, predictions = directory / "original", directory / "predictions"
    for name, content in full_precision(installed, original, 1).items():
        (original / name).write_bytes(content)
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
    from squish.ipc.frames import QuantizeShards
    from squish.worker.jobs.quantize import quantize_shards

    chosen = recipes.from_tag(name)
    if chosen is None or chosen.recipe is None:
        raise SystemExit(f"{name} is neither a recipe, such as 4bit, 3bit-g32 and 4bit-search, nor a directory.")
    for path in destination.glob("*"):
        path.unlink()
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
    return spent


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
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _show(each: _Result, base: float) -> None:
    loss = math.log(each.perplexity / base)
    figures = f"{each.bits:.2f} | {each.perplexity:.2f} | {loss:.4f} | {each.divergence:.4f} | {each.seconds:.1f}"
    print(f"| {each.name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
