"""One file on its way to the disk: the bytes so far, their running hashes, and a sidecar that says what they are of.

`NAME.part` and `NAME.json` outlive the process; what is in them is trusted only as far as the hash goes. It knows no
network.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from squish.errors import CorruptModel, StoreError

_CHUNK = 1024 * 1024


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


class _Sidecar(msgspec.Struct, frozen=True):
    """What a partial file is a part of."""

    size: int
    sha256: str | None
    git_blob: str | None
    etag: str | None


class PartFile:
    """A file on its way: the bytes so far, their running hashes, and the sidecar."""

    def __init__(self, file: RemoteFile, target: Path, path: Path, sidecar: Path) -> None:
        self.file, self.target, self.path, self.sidecar = file, target, path, sidecar
        self.offset = 0
        self.etag: str | None = None
        self._stream: BinaryIO | None = None
        self._reset_hashes()

    def finished(self) -> Downloaded | None:
        """The file if an earlier run completed it and it is still right; a wrong one is removed."""
        if not self.target.is_file():
            return None
        with self.target.open("rb") as stream:
            self._absorb(stream)
        if self.offset == self.file.size and self._mismatch() is None:
            return Downloaded(self.file.path, self.offset, self._sha256.hexdigest())
        self.target.unlink()
        self.offset = 0
        self._reset_hashes()
        return None

    def open(self) -> None:
        """Take up the bytes of an earlier run where they belong to the same file, and hash them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self._stream = self.path.open("r+b")
        try:
            known = msgspec.json.decode(self.sidecar.read_bytes(), type=_Sidecar)
        except (OSError, msgspec.DecodeError):
            known = None
        if known is not None and known == self._promise(known.etag):
            self.etag = known.etag
            self._absorb(self._stream)
        if known is None or self.offset > self.file.size:
            self.restart(None)
        self._stream.truncate(self.offset)

    def restart(self, etag: str | None) -> None:
        """Forget all bytes. etag: of the answer that now begins."""
        stream = self._opened()
        stream.seek(0)
        stream.truncate()
        self.offset, self.etag = 0, etag
        self._reset_hashes()
        partial = self.sidecar.with_suffix(".new")
        partial.write_bytes(msgspec.json.encode(self._promise(etag)))
        partial.replace(self.sidecar)

    def write(self, data: bytes) -> None:
        stream = self._opened()
        stream.write(data)
        stream.flush()
        self._update(data)

    def finish(self) -> Downloaded:
        """Check the hash and put the file in its place. Raises CorruptModel, with the bytes thrown away."""
        reason = self._mismatch()
        if reason is not None:
            self.restart(None)
            raise CorruptModel(
                f"{self.file.path} arrived damaged: {reason}.",
                hint="Run the same command again; if it happens again, the file on the server is broken.",
            )
        os.fsync(self._opened().fileno())
        self.close()
        self.path.replace(self.target)
        self.sidecar.unlink(missing_ok=True)
        return Downloaded(self.file.path, self.offset, self._sha256.hexdigest())

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _opened(self) -> BinaryIO:
        if self._stream is None:
            raise StoreError(f"{self.path.name} is not open.")
        return self._stream

    def _promise(self, etag: str | None) -> _Sidecar:
        return _Sidecar(self.file.size, self.file.sha256, self.file.git_blob, etag)

    def _reset_hashes(self) -> None:
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\x00" % self.file.size, usedforsecurity=False)

    def _absorb(self, stream: BinaryIO) -> None:
        while data := stream.read(_CHUNK):
            self._update(data)

    def _update(self, data: bytes) -> None:
        self._sha256.update(data)
        if self.file.sha256 is None:
            self._git.update(data)
        self.offset += len(data)

    def _mismatch(self) -> str | None:
        if self.file.sha256 is not None:
            wanted, found = self.file.sha256, self._sha256.hexdigest()
        elif self.file.git_blob is not None:
            wanted, found = self.file.git_blob, self._git.hexdigest()
        else:
            return None
        return None if wanted == found else f"its hash is {found[:12]}…, {wanted[:12]}… was announced"
