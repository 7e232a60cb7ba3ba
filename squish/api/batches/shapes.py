"""Files and batches as OpenAI's API shows them, and as they are kept. Structs only."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from squish.api.batches.lines import ENDPOINTS, LineProblem
from squish.api.fields.documented import documented

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "cancelling", "cancelled"]
ENDED: tuple[Status, ...] = ("failed", "completed", "cancelled")


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """key: the name of the key with which it came; nobody else sees it."""

    id: str
    object: str = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str = "processed"
    key: str | None = None


class FileUpload(msgspec.Struct, kw_only=True):
    """POST /v1/files, as a form."""

    file: Annotated[str, documented("The file itself: a request a line, at most 32 MB.")]
    purpose: Annotated[str, documented("What it is for.", enum=["batch"])]


class FileList(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: str = "file"
    deleted: bool = True


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    total: int = 0
    completed: int = 0
    failed: int = 0


class Problems(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: list[LineProblem]


class BatchObject(msgspec.Struct, frozen=True, kw_only=True):
    """expires_at is when OpenAI would give up; here a batch goes on until it is done. key: the name of the key with
    which it came; nobody else sees it."""

    id: str
    object: str = "batch"
    endpoint: str
    errors: Problems | None = None
    input_file_id: str
    completion_window: str
    status: Status = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: Counts = Counts()
    metadata: dict[str, str] | None = None
    key: str | None = None


class BatchRequest(msgspec.Struct, kw_only=True):
    """POST /v1/batches."""

    input_file_id: Annotated[str, documented("A file with purpose batch.", minLength=1)]
    endpoint: Annotated[str, documented("Where each of its requests goes.", enum=list(ENDPOINTS))]
    completion_window: Annotated[str, documented("As OpenAI has it; here nothing expires.", enum=["24h"])]
    metadata: Annotated[dict[str, str], documented("Kept, and shown with the batch.", maxProperties=16)] | None = None


class BatchList(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
