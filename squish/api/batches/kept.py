"""The descriptions of batches in a directory, a file each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from squish.api.batches.shapes import BatchObject, Counts
from squish.errors import SquishError
from squish.files import write_whole

_ID = re.compile(r"batch_[0-9a-f]{24}")


class KeptBatches:
    """counts: of batches that run here, which are not written with every answer."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.counts: dict[str, Counts] = {}

    def list(self) -> list[BatchObject]:
        """All of them, the newest first."""
        found = (self._read(path) for path in self._directory.glob("batch_*.json"))
        return sorted((each for each in found if each), key=lambda each: (-each.created_at, each.id))

    def find(self, id: str) -> BatchObject | None:
        return self._read(self._directory / f"{id}.json") if _ID.fullmatch(id) else None

    def keep(self, batch: BatchObject) -> None:
        """Write it, durably. Raises SquishError."""
        try:
            write_whole(self._directory / f"{batch.id}.json", msgspec.json.encode(batch), mode=0o600)
        except OSError as error:
            raise SquishError(f"{self._directory} cannot be written: {error.strerror}.") from error

    def change(self, batch: BatchObject, **fields: Any) -> BatchObject:
        """Change fields of what is kept now, which may be newer than this."""
        changed = msgspec.structs.replace(self.find(batch.id) or batch, **fields)
        self.keep(changed)
        return changed

    def _read(self, path: Path) -> BatchObject | None:
        try:
            batch = msgspec.json.decode(path.read_bytes(), type=BatchObject)
        except (OSError, msgspec.DecodeError):
            return None
        counts = self.counts.get(batch.id)
        return msgspec.structs.replace(batch, request_counts=counts) if counts else batch
