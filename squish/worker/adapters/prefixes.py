"""Prefix caches by adapter: what a model with one has read is of no use to the model without it, or with another.

All of them together keep to the budget of one. It belongs to the MLX thread.
"""

from __future__ import annotations

from squish.worker.cache.prefix import PrefixCache


class Prefixes:
    """main: of the model as it is, the only one that goes to disk."""

    def __init__(self, main: PrefixCache) -> None:
        self.main = main
        self._of_adapters: dict[str, PrefixCache] = {}

    def of(self, adapter: str | None) -> PrefixCache:
        """The one of an adapter."""
        if adapter is None:
            return self.main
        return self._of_adapters.setdefault(adapter, self.main.beside())

    def forget(self, adapter: str) -> None:
        """The adapter is another one from now on."""
        self._of_adapters.pop(adapter, None)

    @property
    def nbytes(self) -> int:
        return self.main.nbytes + sum(each.nbytes for each in self._of_adapters.values())

    def fit(self) -> None:
        """Keep to the budget, or to a part of it while other programs need memory."""
        for each in (self.main, *self._of_adapters.values()):
            each.fit()

    def keep_to(self, budget: int, used: PrefixCache) -> None:
        """Let go of what is not needed until all take at most `budget` bytes; of the one in use last."""
        over = self.nbytes - budget
        others = [each for each in (self.main, *self._of_adapters.values()) if each is not used]
        for each in (*others, used):
            if over <= 0:
                return
            before = each.nbytes
            each.shrink(max(0, before - over))
            over -= before - each.nbytes
