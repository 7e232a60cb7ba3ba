"""The files that clients upload and that batches make, in one directory, bounded together.

A file is there once its description is, which is written last.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from email.parser import HeaderParser
from pathlib import Path

import msgspec

from squish.api.batches.shapes import FileObject
from squish.api.errors import Refused
from squish.errors import InvalidInput, StoreError
from squish.files import move_whole, sync_directory, write_whole

MOST_BYTES = 1 << 30
_HOUR = 3600
_ID = re.compile(r"file-[0-9a-f]{24}")


class Files:
    """clock: seconds since 1970."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock

    def add(self, name: str, purpose: str, content: bytes, key: str | None) -> FileObject:
        """Keep an upload. Raises InvalidInput when all of them together would be too large, and StoreError."""
        used = sum(each.bytes for each in self.list())
        if used + len(content) > MOST_BYTES:
            message = f"The files on this server would take more than {MOST_BYTES >> 30} GB together."
            raise InvalidInput(message, hint="Delete some.", param="file")
        id = new_id("file-")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            write_whole(self.content_path(id), content, mode=0o600)
            return self._describe(id, name, purpose, len(content), key)
        except OSError as error:
            raise StoreError(f"{self._directory} cannot be written: {error.strerror}.") from error

    def adopt(self, scratch: Path, name: str, purpose: str, key: str | None) -> FileObject:
        """Make a file of this directory that is complete one that clients see. The same name gives the same id."""
        id = _id_of(name)
        move_whole(scratch, self.content_path(id))
        return self._describe(id, name, purpose, self.content_path(id).stat().st_size, key)

    def disown(self, name: str) -> None:
        """Delete what `adopt` made under this name, if it did."""
        self.delete(_id_of(name))

    def sweep(self) -> None:
        """Delete what a kill has left: contents without a description that are too old to be given one."""
        for content in self._directory.glob("file-*.jsonl"):
            try:
                if not self._description(content.stem).exists() and content.stat().st_mtime < self._clock() - _HOUR:
                    content.unlink()
            except FileNotFoundError:
                pass

    def list(self) -> list[FileObject]:
        """All of them, the newest first."""
        found = (self._read(path) for path in self._directory.glob("file-*.json"))
        return sorted((each for each in found if each), key=lambda each: (-each.created_at, each.id))

    def find(self, id: str) -> FileObject | None:
        return self._read(self._description(id)) if _ID.fullmatch(id) else None

    def content_path(self, id: str) -> Path:
        """Where the content of a file that is there lies."""
        return self._directory / f"{id}.jsonl"

    def delete(self, id: str) -> bool:
        """Whether there was one."""
        if self.find(id) is None:
            return False
        self._description(id).unlink(missing_ok=True)
        self.content_path(id).unlink(missing_ok=True)
        sync_directory(self._directory)
        return True

    def _describe(self, id: str, name: str, purpose: str, size: int, key: str | None) -> FileObject:
        now = int(self._clock())
        found = FileObject(id=id, bytes=size, created_at=now, filename=name, purpose=purpose, key=key)
        write_whole(self._description(id), msgspec.json.encode(found), mode=0o600)
        return found

    def _description(self, id: str) -> Path:
        return self._directory / f"{id}.json"

    def _read(self, path: Path) -> FileObject | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=FileObject)
        except (OSError, msgspec.DecodeError):
            return None


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


def _id_of(name: str) -> str:
    return "file-" + hashlib.sha256(name.encode()).hexdigest()[:24]


def read_upload(body: bytes) -> tuple[str, str, bytes]:
    """The name, the purpose and the content of a form. Raises InvalidInput naming the field.

    The boundary between its parts is its first line, as in every form.
    """
    boundary = body[:256].partition(b"\r\n")[0]
    if not re.fullmatch(rb"--[!-~]{1,70}", boundary):
        message = "The body is not a form; send multipart/form-data with the fields purpose and file."
        raise Refused(400, "invalid_value", message)
    fields: dict[str, tuple[str, bytes]] = {}
    for part in body.removeprefix(boundary).split(b"\r\n" + boundary):
        head, found, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        header = HeaderParser().parsestr(head.decode(errors="replace"))
        if found:
            field = str(header.get_param("name", "", header="content-disposition"))
            fields[field] = (header.get_filename() or "", content)
    if "file" not in fields:
        raise InvalidInput("file is missing.", param="file")
    if fields.get("purpose", ("", b""))[1] != b"batch":
        raise InvalidInput("purpose must be batch.", param="purpose")
    name, content = fields["file"]
    if not content:
        raise InvalidInput("file is empty.", param="file")
    return _shown_name(name), "batch", content


def _shown_name(name: str) -> str:
    kept = "".join(each for each in name if each.isprintable()).rpartition("/")[2]
    return kept[:200] or "requests.jsonl"
