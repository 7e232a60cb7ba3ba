"""One file on its way to the disk: which bytes of it are there, their running hashes, and a sidecar that says so.

A large file comes in several ranges at once, each of `span` bytes, a small one in a single range. Of a single range the
length of `NAME.part` says how far it is; of several `NAME.json` does, at most one chunk a range behind what was
written. Both outlive the process; what is in them is trusted only as far as the hash goes. It knows no network.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from threading import Event, Lock

import msgspec

from squish.download.disk import CHUNK, require_not
from squish.download.remote_file import Downloaded, RemoteFile, Sidecar, bytes_without_gap, read_sidecar
from squish.errors import CorruptModel, StoreError
from squish.files import move_whole, write_whole

# Bytes that `write` hashes of what lies on disk already, so that it never takes long; `finish` hashes the rest.
_HASHED_AT_ONCE = 4 * CHUNK


class PartFile:
    """A file on its way. Ranges are known by their number; `write` may be called from several threads.

    What reads much takes a `stop`, and raises Stopped soon after it is set.
    """

    def __init__(self, file: RemoteFile, target: Path, path: Path, sidecar: Path, span: int = 0) -> None:
        self.file, self.target, self.path, self.sidecar = file, target, path, sidecar
        self.etag: str | None = None
        self.resumed = False  # bytes of more than one answer are in it
        self._lock, self._descriptor = Lock(), -1
        self._divide(span)

    @property
    def ranges(self) -> range:
        return range(len(self._done))

    @property
    def received(self) -> int:
        return sum(self._done)

    def position(self, number: int) -> int:
        """Where the next byte of a range belongs."""
        return number * self._span + self._done[number]

    def end(self, number: int) -> int:
        return min((number + 1) * self._span, self.file.size)

    def is_complete(self, number: int) -> bool:
        return self.position(number) >= self.end(number)

    def finished(self, stop: Event) -> Downloaded | None:
        """The file if an earlier run completed it and it is still right; a wrong one is removed."""
        if not self.target.is_file():
            return None
        sha256, git, size = hashlib.sha256(), self._git_hash(), 0
        with self.target.open("rb") as stream:
            while data := stream.read(CHUNK):
                require_not(stop)
                sha256.update(data)
                git.update(data)
                size += len(data)
        if size == self.file.size and self._mismatch(sha256, git) is None:
            return Downloaded(self.file.path, size, sha256.hexdigest())
        self.target.unlink()
        return None

    def open(self, stop: Event) -> None:
        """Take up the bytes of an earlier run where they belong to the same file, and hash those that can be."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        known, here = read_sidecar(self.sidecar), os.fstat(self._descriptor).st_size
        if known is None or not known.belongs_to(self.file):
            self.restart(None)
            return
        self.etag = known.etag
        self._divide(known.span)
        self._done = list(known.done) if known.span else [here]
        there = [0 <= done <= self.end(n) - n * self._span for n, done in enumerate(self._done)]
        if len(self._done) != self._count or not all(there) or self._last_byte() > here:
            self.restart(None)
            return
        self.resumed = self.received > 0
        self._hash_to_end(stop)

    def restart(self, etag: str | None, *, whole: bool = False) -> None:
        """Forget all bytes. etag: of the answer that now begins; whole: from now on in a single range."""
        os.ftruncate(self._opened(), 0)
        self._divide(0 if whole or self._count == 1 else self._span)
        self.etag, self.resumed = etag, False
        self._save()

    def write(self, number: int, data: bytes) -> None:
        """The next bytes of a range."""
        with self._lock:
            descriptor, rest, at = self._opened(), memoryview(data), self.position(number)
            while rest:
                written = os.pwrite(descriptor, rest, at)
                rest, at = rest[written:], at + written
            before = self._done[number]
            self._done[number] += len(data)
            if number * self._span + before == self._hashed:
                self._hash(data)
            self._hash_on()
            if self._count > 1 and (before // CHUNK != self._done[number] // CHUNK or self.is_complete(number)):
                self._save()

    def begin(self, beginning: bytes) -> int:
        """Write what is missing of the file's first bytes; how many were."""
        before = self.received
        for number in self.ranges:
            if rest := beginning[self.position(number) : self.end(number)]:
                self.write(number, rest)
        return self.received - before

    def finish(self, stop: Event) -> Downloaded:
        """Check the hash and put the file in its place. Raises CorruptModel; the bytes stay until `restart`."""
        self._hash_to_end(stop)
        reason = self._mismatch(self._sha256, self._git)
        if reason is not None:
            raise CorruptModel(
                f"{self.file.path} arrived damaged: {reason}.",
                hint="Run the same command again; if it happens again, the file on the server is broken.",
            )
        self.close()
        move_whole(self.path, self.target)
        self.sidecar.unlink(missing_ok=True)
        return Downloaded(self.file.path, self.file.size, self._sha256.hexdigest())

    def close(self) -> None:
        if self._descriptor >= 0:
            if self._count > 1:
                self._save()
            os.close(self._descriptor)
            self._descriptor = -1

    def _divide(self, span: int) -> None:
        """Nothing is there yet, of ranges of so many bytes; 0 for a single one."""
        self._span = span or max(self.file.size, 1)
        self._count = max(1, -(-self.file.size // self._span))
        self._done = [0] * self._count
        self._hashed, self._sha256, self._git = 0, hashlib.sha256(), self._git_hash()

    def _hash_to_end(self, stop: Event) -> None:
        while self._hash_on():
            require_not(stop)

    def _hash_on(self) -> bool:
        """Hash some of what lies on disk behind the hashed bytes without a gap; whether there is more of it."""
        end = bytes_without_gap(self._done, self._span)
        until = min(end, self._hashed + _HASHED_AT_ONCE)
        while self._hashed < until:
            data = os.pread(self._opened(), min(CHUNK, until - self._hashed), self._hashed)
            if not data:
                raise StoreError(f"{self.path.name} was cut by another program.")
            self._hash(data)
        return self._hashed < end

    def _hash(self, data: bytes) -> None:
        self._sha256.update(data)
        if self.file.sha256 is None:
            self._git.update(data)
        self._hashed += len(data)

    def _last_byte(self) -> int:
        return max((self.position(number) for number in self.ranges if self._done[number]), default=0)

    def _save(self) -> None:
        span, done = (self._span, tuple(self._done)) if self._count > 1 else (0, ())
        content = msgspec.json.encode(Sidecar.of(self.file, self.etag, span, done))
        write_whole(self.sidecar, content, durable=False)

    def _opened(self) -> int:
        if self._descriptor < 0:
            raise StoreError(f"{self.path.name} is not open.")
        return self._descriptor

    def _git_hash(self) -> hashlib._Hash:
        return hashlib.sha1(b"blob %d\x00" % self.file.size, usedforsecurity=False)

    def _mismatch(self, sha256: hashlib._Hash, git: hashlib._Hash) -> str | None:
        """What is wrong with the content, going by the expected hash where there is one."""
        pairs = ((self.file.sha256, sha256), (self.file.git_blob, git))
        expected, found = next(((expected, hash) for expected, hash in pairs if expected is not None), (None, sha256))
        if expected is None or expected == found.hexdigest():
            return None
        return f"its hash is {found.hexdigest()[:12]}…, {expected[:12]}… was announced"
