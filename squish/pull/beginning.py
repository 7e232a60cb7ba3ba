"""GGUF files on the Hub, judged by their first bytes: a worker says which it needs, and no others are downloaded.

What cannot be imported is refused by the first piece where its family says so, after the vocabulary where a block
format does, and never after the weights. It knows no format of files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from squish.errors import CorruptModel, UnsupportedModel
from squish.hub.snapshot import HubFile
from squish.ipc.frames import InspectStart, Judged
from squish.ipc.jobs import Jobs
from squish.pull import counterpart
from squish.pull.local_files import ModelFiles

FIRST = 64 * 1024
"""Bytes of the first piece. What is smaller as a whole is downloaded and judged then."""


async def judge(download: ModelFiles, files: Sequence[HubFile], partial: Path, repo_id: str, jobs: Jobs) -> None:
    """Judge the files of one model, the first of which says what it is. partial: where pieces may lie meanwhile.

    Their first bytes stay in the download once all are accepted: the header of a large vocabulary has 15 MB.
    Raises UnsupportedModel, CorruptModel, and what downloading raises.
    """
    accepted = dict[str, bytes]()
    for number, file in enumerate(files):
        if file.size > FIRST:
            try:
                accepted[file.path] = await _judge(download, file, partial, jobs, part=number > 0)
            except UnsupportedModel as error:
                raise counterpart.advised(error, repo_id, file.path) from error
            except CorruptModel as error:
                raise damaged(error, repo_id, " Its weights were not downloaded.") from error
    for path, beginning in accepted.items():
        await download.keep(path, beginning)


def damaged(error: CorruptModel, repo_id: str, further: str = "") -> CorruptModel:
    """The same error of a file that lies on the Hub as it arrived, so that no second download helps."""
    hint = f"The file in {repo_id} is damaged: take another one.{further}"
    return CorruptModel(error.message, hint=hint, param="model")


async def _judge(download: ModelFiles, file: HubFile, partial: Path, jobs: Jobs, *, part: bool) -> bytes:
    """The bytes that were read up to the first that was not needed. Raises what `judge` raises."""
    with tempfile.TemporaryDirectory(dir=partial) as directory:
        path = Path(directory) / Path(file.path).name
        path.touch()
        present = list[tuple[int, int]]()
        needed: tuple[int, int] | None = (0, FIRST)
        while needed is not None:
            piece = await download.piece(file.path, *needed)
            with path.open("r+b") as stream:  # what lies between two pieces is a hole, and takes no room on disk
                stream.seek(needed[0])
                stream.write(piece)
            present.append((needed[0], needed[0] + len(piece)))
            needed = (await jobs.run(InspectStart(str(path), file.size, tuple(present), part), Judged)).needed
        end = 0
        for start, stop in present:
            if start == end:
                end = stop
        with path.open("rb") as stream:
            return stream.read(end)
