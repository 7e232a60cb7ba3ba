"""The expected size and hash of a file to download, and the sidecar that keeps them beside the file's part.

It opens no part and knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to download, with the size and hash that are expected of it.

    size in bytes; sha256, or git_blob (the git blob id) for a file whose SHA-256 is not known.
    """

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


def read_sidecar(path: Path) -> Sidecar | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sidecar)
    except (OSError, ValueError, RecursionError):
        return None


def bytes_on_disk(file: RemoteFile, part: Path, sidecar: Path) -> int:
    """Bytes of a part of this very file."""
    known = _matching_sidecar(file, part, sidecar)
    if known is None:
        return 0
    return min(file.size, sum(known.done) if known.span else part.stat().st_size)


def bytes_from_start(file: RemoteFile, part: Path, sidecar: Path) -> int:
    """Those of them that lie there without a gap."""
    known = _matching_sidecar(file, part, sidecar)
    if known is None:
        return 0
    return bytes_without_gap(known.done, known.span) if known.span else part.stat().st_size


def bytes_without_gap(done: Sequence[int], span: int) -> int:
    """Bytes from the start of a file up to the first that is missing. done: of each range."""
    full = next((number for number, each in enumerate(done) if each < span), len(done) - 1)
    return full * span + done[full]


def _matching_sidecar(file: RemoteFile, part: Path, sidecar: Path) -> Sidecar | None:
    known = read_sidecar(sidecar)
    return known if known is not None and known.belongs_to(file) and part.is_file() else None
