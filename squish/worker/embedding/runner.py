"""An embedding model at work: texts of all requests in batches of about equal length, one batch a step.

Everything here belongs to the MLX thread. Requests take turns, so that a short one does not wait for all texts of a
long one, and share a batch where their texts are alike in length.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from squish.embeddings import Embeddings
from squish.errors import EngineError, SquishError
from squish.ipc.frames import Cancel, Embedded, Failed, FromWorker, WireError
from squish.system.accelerator import PREFILL_STEP_ON_CPU
from squish.worker import device
from squish.worker.embedding.embedder import Embedder, Ranker, TokenizedText, unit
from squish.worker.embedding.intake import CANCELLED, PreparedTexts, TextInbox

_TOKENS = 16_384  # of a batch, its filling counted; one long text alone may have more
_SCORES = 1 << 26  # numbers of attention that one layer of a batch may make
_SHORTEST = 3 / 4  # of the longest text of a batch; a shorter one would be filling for the most part


@dataclass(slots=True)
class TextJob:
    """A request in work. left: places of texts that have no vector yet, the longest first; vectors: by place."""

    request: int
    texts: Sequence[TokenizedText]
    dimensions: int | None
    left: deque[int] = field(default_factory=deque)
    vectors: dict[int, bytes] = field(default_factory=dict)
    width: int = 0

    @classmethod
    def of(cls, prepared: PreparedTexts) -> TextJob:
        places = sorted(range(len(prepared.texts)), key=lambda place: -len(prepared.texts[place].tokens))
        return cls(prepared.request, prepared.texts, prepared.dimensions, deque(places))


def next_batch(jobs: Sequence[TextJob], most: int) -> list[tuple[TextJob, int]]:
    """Texts to compute together: the longest of the first request, and others that fit beside it, taken out of `left`.

    most: tokens of the batch.
    """
    length = len(jobs[0].texts[jobs[0].left[0]].tokens)
    room = max(1, min(most // length, _SCORES // (length * length * 16)))
    batch: list[tuple[TextJob, int]] = []
    for job in jobs:
        for place in list(job.left):
            if len(batch) == room:
                return batch
            if _SHORTEST * length <= len(job.texts[place].tokens) <= length:
                job.left.remove(place)
                batch.append((job, place))
    return batch


class VectorRunner:
    """Answers requests until the inbox says that it is over. send: takes a frame to the front process."""

    def __init__(self, embedder: Embedder | Ranker, inbox: TextInbox, send: Callable[[FromWorker], None]) -> None:
        self._embedder, self._inbox, self._send = embedder, inbox, send
        self._most = PREFILL_STEP_ON_CPU if device.on_cpu() else _TOKENS
        self._jobs: deque[TextJob] = deque()

    def run(self) -> None:
        """Work until the inbox says that it is over."""
        while self._drain():
            self._step()

    def _drain(self) -> bool:
        """Take in what has arrived; wait only when there is nothing to do. False when it is time to end."""
        while True:
            try:
                item = self._inbox.get(block=not self._jobs)
            except queue.Empty:
                return True
            match item:
                case None:
                    return False
                case PreparedTexts():
                    self._jobs.append(TextJob.of(item))
                case Cancel(request=request):
                    self._cancel(request)

    def _cancel(self, request: int) -> None:
        for job in [job for job in self._jobs if job.request == request]:
            self._jobs.remove(job)
            self._send(Failed(request, WireError.of(CANCELLED)))

    def _step(self) -> None:
        batch = next_batch(self._jobs, self._most)
        try:
            vectors = self._embedder([job.texts[place] for job, place in batch])
            mx.eval(vectors)
        except Exception as error:  # noqa: BLE001 - whatever it is, the requests of this batch hear of it
            self._fail({job.request for job, _ in batch}, error)
            return
        for (job, place), vector in zip(batch, vectors, strict=True):
            job.vectors[place] = _bytes_of(vector, job.dimensions)
            job.width = job.dimensions or vector.size
        for job in {id(job): job for job, _ in batch}.values():
            if not job.left:
                self._jobs.remove(job)
                self._send(Embedded(job.request, _result(job)))
        self._jobs.rotate(-1)

    def _fail(self, requests: set[int], error: Exception) -> None:
        problem = f"The model failed while it computed embeddings: {type(error).__name__}: {error}"
        failure = WireError.of(error if isinstance(error, SquishError) else EngineError(problem))
        self._jobs = deque(job for job in self._jobs if job.request not in requests)
        for request in sorted(requests):
            self._send(Failed(request, failure))


def _bytes_of(vector: mx.array, dimensions: int | None) -> bytes:
    """float32, little-endian as this machine has it; cut to `dimensions` numbers and scaled to length 1 again."""
    if dimensions is not None:
        vector = unit(vector[:dimensions])
    exported: Any = vector.astype(mx.float32)
    return bytes(memoryview(exported))


def _result(job: TextJob) -> Embeddings:
    vectors = b"".join(job.vectors[place] for place in range(len(job.texts)))
    return Embeddings(vectors, job.width, tuple(len(text.tokens) for text in job.texts))
