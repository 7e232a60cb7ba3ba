"""What `cpu_precision = "int8"` costs in perplexity, beside float32, on the text that comes with Squish.

    python -m tests.worker.cpu.precision smollm2:135m PATH …

Installed models or directories. Products alone differ: both load the weights as serving would.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from squish.config.settings import Settings
from squish.models.store import Store

TEXT = Path("squish/pull/perplexity.txt")
MOST = 0.005  # how much perplexity may rise, as a share


@dataclass(frozen=True, slots=True)
class Cost:
    """exact, rounded: perplexities in float32 and with activations of 8 bits. divergence: KL, in nats."""

    exact: float
    rounded: float
    divergence: float
    tokens: int

    @property
    def rise(self) -> float:
        return self.rounded / self.exact - 1


def cost(model: Path, predictions: Path, share: float = 1.0) -> Cost:
    """Call it where the extension is in use. predictions: a file that may be written, and be large; share: how much

    of the text is read.
    """
    from squish.worker.jobs.perplexity import perplexity

    text = TEXT.read_text(encoding="utf-8")
    text = text[: int(share * len(text))]
    exact = perplexity(model, text, keep=predictions, exact=True)
    rounded = perplexity(model, text, against=predictions)
    predictions.unlink()
    assert rounded.divergence is not None and rounded.tokens == exact.tokens
    return Cost(exact.perplexity, rounded.perplexity, rounded.divergence, exact.tokens)


def main(names: list[str]) -> None:
    from squish.worker.cpu import install

    settings = Settings.from_environment()
    engine = install.install(install.prepare(settings.worker_cache), settings.worker_cache)
    print(f"{engine.summary}\n| model | tokens | float32 | int8 | rise | KL divergence |\n{'| --- ' * 6}|")
    for name in names:
        model = Path(name) if Path(name).is_dir() else Store(settings.cache_dir).find(name).path
        found = cost(model, settings.worker_cache / "predictions.bin")
        figures = f"{found.exact:.2f} | {found.rounded:.2f} | {100 * found.rise:+.2f} % | {found.divergence:.5f}"
        print(f"| {model.name} | {found.tokens} | {figures} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
