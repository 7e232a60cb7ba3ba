"""How many prompt tokens a step may process: as many as keep everybody else waiting no longer than agreed.

While a step runs, no stream goes on. A GPU takes 2,048 tokens in that time, a CPU a hundred, so the size follows the
speed that was measured. While a pass runs, no request comes in and nobody can stop: a step reads in pieces, where that
costs nothing.
"""

from __future__ import annotations

from squish.system.accelerator import PREFILL_STEP, PREFILL_STEP_ON_CPU
from squish.worker.cache.prefix import BLOCK

_ALONE = 1.0  # seconds a step may take when nothing else runs
_BESIDE_DECODE = 0.4  # seconds that running streams may stand still
_A_PIECE = 0.1  # seconds that who comes new may wait for the pass that runs
_LEAST_PIECE = 512  # tokens; a GPU takes more time for each where there are fewer of them, the CPU engine does not
_WEIGHT = 0.3  # of the newest measurement


class PrefillPace:
    """Sizes of prefill steps and of their passes, in tokens.

    They are whole blocks of the prefix cache, so that reuse cuts where a cold run cuts.
    """

    def __init__(self, *, on_cpu: bool) -> None:
        self._largest = PREFILL_STEP_ON_CPU if on_cpu else PREFILL_STEP
        self._least_piece = BLOCK if on_cpu else _LEAST_PIECE
        self._tokens_per_second: float | None = None

    def step_size(self, *, decoding: bool) -> int:
        """Tokens that the next step may read in all. decoding: streams are waiting for it."""
        if self._tokens_per_second is None:
            return 4 * BLOCK
        tokens = int(self._tokens_per_second * (_BESIDE_DECODE if decoding else _ALONE))
        return max(BLOCK, min(tokens // BLOCK * BLOCK, self._largest))

    @property
    def piece_size(self) -> int:
        """Tokens of it that one pass may read."""
        tokens = int((self._tokens_per_second or 0.0) * _A_PIECE)
        return max(self._least_piece, tokens // BLOCK * BLOCK)

    def measured(self, tokens: int, seconds: float) -> None:
        """Take note of a step that processed so many prompt tokens."""
        if tokens < BLOCK or seconds <= 0:  # too little to tell speed from overhead
            return
        speed = tokens / seconds
        known = self._tokens_per_second or speed
        self._tokens_per_second = known + _WEIGHT * (speed - known)
