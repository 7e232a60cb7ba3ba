"""What is promised of a file that is being downloaded, and the sidecar that remembers it beside the file's part.

It opens no part and knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What is promised of a file: its size in bytes and its SHA-256 or, for a file that has none, its git blob id."""

    url: str
    path: str
    size: int
    sha256: str | None = None
    git_blob: str | None = None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that is complete and checked. path is relative to the directory of the files."""

    path: str
    size: int
    sha256: str


class Sidecar(msgspec.Struct, frozen=True):
    """What a partial file is a part of; of several ranges also how many bytes there are of each.

    span: bytes of a range, 0 for a single one, of which the length of the part says how far it is.
    """

    size: int
    sha256: str | None
    git_blob: str | None
    etag: str | None
    span: int = 0
    done: tuple[int, ...] = ()

    @classmethod
    def of(cls, file: RemoteFile, etag: str | None, span: int = 0, done: tuple[int, ...] = ()) -> Sidecar:
        return cls(file.size, file.sha256, file.git_blob, etag, span, done)

    def belongs_to(self, file: RemoteFile) -> bool:
        """Whether it is of this very file, not of another version of it."""
        return self == Sidecar.of(file, self.etag, self.span, self.done)


def read(sidecar: Path) -> Sidecar | None:
    try:
        return msgspec.json.decode(sidecar.read_bytes(), type=Sidecar)
    except (OSError, msgspec.DecodeError):
        return None


def received(file: RemoteFile, part: Path, sidecar: Path) -> int:
    """Bytes that lie on disk of a part of this very file."""
    known = _known(file, part, sidecar)
    if known is None:
        return 0
    return min(file.size, sum(known.done) if known.span else part.stat().st_size)


def beginning(file: RemoteFile, part: Path, sidecar: Path) -> int:
    """Those of them that lie there without a gap."""
    known = _known(file, part, sidecar)
    if known is None:
        return 0
    return without_gap(known.done, known.span) if known.span else part.stat().st_size


def without_gap(done: Sequence[int], span: int) -> int:
    """Bytes from the start of a file up to the first that is missing. done: of each range."""
    full = next((number for number, each in enumerate(done) if each < span), len(done) - 1)
    return full * span + done[full]


def _known(file: RemoteFile, part: Path, sidecar: Path) -> Sidecar | None:
    known = read(sidecar)
    return known if known is not None and known.belongs_to(file) and part.is_file() else None
