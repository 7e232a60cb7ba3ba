"""Which texts are computed together."""

from __future__ import annotations

from squish.worker.embedding.embedder import TokenizedText
from squish.worker.embedding.intake import PreparedTexts
from squish.worker.embedding.runner import TextJob, next_batch


def _job(request: int, *lengths: int) -> TextJob:
    return TextJob.of(PreparedTexts(request, tuple(TokenizedText([1] * length) for length in lengths), None))


def _drained(jobs: list[TextJob], most: int) -> list[list[tuple[int, int]]]:
    """Each batch as (request, length) until nothing is left; the first of the jobs goes behind the others each time."""
    batches = []
    while jobs := [job for job in jobs if job.left]:
        batch = next_batch(jobs, most)
        batches.append([(job.request, len(job.texts[place].tokens)) for job, place in batch])
        jobs = jobs[1:] + jobs[:1]
    return batches


def test_texts_of_like_length_go_together_and_a_batch_is_bounded() -> None:
    batches = _drained([_job(1, 10, 100, 9, 90, 100, 8)], most=250)
    assert batches == [[(1, 100), (1, 100)], [(1, 90)], [(1, 10), (1, 9), (1, 8)]]


def test_requests_share_a_batch() -> None:
    assert _drained([_job(1, 10), _job(2, 9), _job(3, 10)], most=250) == [[(1, 10), (2, 9), (3, 10)]]


def test_a_short_request_does_not_wait_for_all_of_a_long_one() -> None:
    batches = _drained([_job(1, *[100] * 50), _job(2, 10)], most=250)
    assert (2, 10) in batches[1]


def test_a_text_longer_than_a_batch_is_computed_alone() -> None:
    assert _drained([_job(1, 300, 300)], most=250) == [[(1, 300)], [(1, 300)]]


def test_every_text_is_computed_once_whatever_the_lengths() -> None:
    lengths = [1 + (7 * number) % 60 for number in range(200)]
    found = [each for batch in _drained([_job(1, *lengths), _job(2, *lengths)], most=128) for each in batch]
    assert sorted(found) == sorted((request, length) for request in (1, 2) for length in lengths)
