"""The routes of files and batches: OpenAI's /v1/files and /v1/batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from squish.api import bodies
from squish.api.batches.files import read_upload
from squish.api.batches.shapes import (
    BatchList,
    BatchObject,
    BatchRequest,
    DeletedFile,
    FileList,
    FileObject,
    FileUpload,
)
from squish.api.dialect import Call, Route, WithStatus
from squish.api.errors import Refused
from squish.api.operation import Operation
from squish.errors import InvalidInput
from squish.text import whole

_MOST = 10_000

HasId = TypeVar("HasId", FileObject, BatchObject)


async def upload(call: Call) -> FileObject:
    """POST /v1/files."""
    name, purpose, content = await call.read(read_upload)
    return await asyncio.to_thread(call.services.batches.files.add, name, purpose, content, call.owner)


async def list_files(call: Call) -> FileList:
    """GET /v1/files."""
    found = _mine(call.services.batches.files.list(), call)
    if purpose := call.query.get("purpose"):
        found = [each for each in found if each.purpose == purpose]
    page, more = _page(found, call)
    return FileList(data=page, first_id=_id(page[:1]), last_id=_id(page[-1:]), has_more=more)


async def get_file(call: Call) -> FileObject:
    """GET /v1/files/{id}."""
    return _one(call.services.batches.files.find(call.parts["id"]), "file", call)


async def get_content(call: Call) -> WithStatus:
    """GET /v1/files/{id}/content."""
    found = await get_file(call)
    path = call.services.batches.files.content_path(found.id)
    return WithStatus(await asyncio.to_thread(path.read_text, "utf-8", "replace"))


async def delete_file(call: Call) -> DeletedFile:
    """DELETE /v1/files/{id}."""
    found = await get_file(call)
    if reader := call.services.batches.reader_of(found.id):
        raise InvalidInput(f"The batch {reader.id} still needs it.", hint="Cancel that, or wait for its end.")
    call.services.batches.files.delete(found.id)
    return DeletedFile(id=found.id)


async def create(call: Call) -> BatchObject:
    """POST /v1/batches."""
    return call.services.batches.create(await call.read(read), call.owner)


async def list_batches(call: Call) -> BatchList:
    """GET /v1/batches."""
    page, more = _page(_mine(call.services.batches.kept.list(), call), call)
    return BatchList(data=page, first_id=_id(page[:1]), last_id=_id(page[-1:]), has_more=more)


async def get_batch(call: Call) -> BatchObject:
    """GET /v1/batches/{id}."""
    return _one(call.services.batches.kept.find(call.parts["id"]), "batch", call)


async def cancel(call: Call) -> BatchObject:
    """POST /v1/batches/{id}/cancel."""
    return call.services.batches.cancel(await get_batch(call))


def read(body: bytes) -> BatchRequest:
    """A body of POST /v1/batches. Raises InvalidInput naming the field."""
    return bodies.decode(body, BatchRequest)


def _page(found: Sequence[HasId], call: Call) -> tuple[list[HasId], bool]:
    """The part of a list that is asked for, and whether there is more behind it."""
    limit, after = call.query.get("limit", "20"), call.query.get("after")
    most = whole(limit)
    if most is None or not 1 <= most <= _MOST:
        raise InvalidInput(f"limit must be between 1 and {_MOST}.", param="limit")
    start = 0
    if after is not None:
        ids = [each.id for each in found]
        if after not in ids:
            raise InvalidInput(f"There is no {after[:64]!r} to go on after.", param="after")
        start = ids.index(after) + 1
    return list(found[start : start + most]), len(found) > start + most


def _id(found: Sequence[HasId]) -> str | None:
    return found[0].id if found else None


def _mine(found: Sequence[HasId], call: Call) -> list[HasId]:
    """Those of the client's key."""
    return [each for each in found if each.key == call.owner]


def _one(found: HasId | None, kind: str, call: Call) -> HasId:
    """What was looked up by its id, where it is there and the client's. Raises Refused (404)."""
    if found is None or found.key != call.owner:
        raise Refused(404, f"{kind}_not_found", f"There is no {kind} {call.parts['id'][:64]!r} here.")
    return found


ROUTES = (
    Route("POST", "/v1/files", upload),
    Route("GET", "/v1/files", list_files),
    Route("GET", "/v1/files/<id>", get_file),
    Route("DELETE", "/v1/files/<id>", delete_file),
    Route("GET", "/v1/files/<id>/content", get_content),
    Route("POST", "/v1/batches", create),
    Route("GET", "/v1/batches", list_batches),
    Route("GET", "/v1/batches/<id>", get_batch),
    Route("POST", "/v1/batches/<id>/cancel", cancel),
)

OPERATIONS = (
    Operation("POST", "/v1/files", "createFile", "Upload a file.", FileObject, FileUpload, form=True),
    Operation("GET", "/v1/files", "listFiles", "The files here, the newest first.", FileList),
    Operation("GET", "/v1/files/{id}", "getFile", "What is known of a file.", FileObject),
    Operation("DELETE", "/v1/files/{id}", "deleteFile", "Delete a file.", DeletedFile),
    Operation("GET", "/v1/files/{id}/content", "getFileContent", "A file itself.", None),
    Operation("POST", "/v1/batches", "createBatch", "Answer the requests of a file.", BatchObject, BatchRequest),
    Operation("GET", "/v1/batches", "listBatches", "The batches here, the newest first.", BatchList),
    Operation("GET", "/v1/batches/{id}", "getBatch", "How far a batch is.", BatchObject),
    Operation("POST", "/v1/batches/{id}/cancel", "cancelBatch", "End a batch; its answers stay.", BatchObject),
)
