"""Documents are read in a process of their own, which may end as it likes."""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import psutil
import pytest

from squish.attachments import child, documents, limits
from squish.attachments.documents import DocumentKind
from squish.errors import InvalidInput
from tests.attachments import made
from tests.conftest import PATIENCE


async def text_of(data: bytes, kind: DocumentKind) -> str:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        return await documents.text_of(file, kind)


async def test_a_document_is_read_and_clean() -> None:
    assert await text_of(made.docx(made.paragraph("a\u202eb \u009b31mred")), "docx") == "ab red"


async def test_a_pdf_that_unpacks_to_gigabytes_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"larger than may be read|memory"):
        await text_of(made.pdf_bomb(1 << 27), "pdf")


async def test_a_reader_that_takes_too_much_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_MEMORY", 1)
    with pytest.raises(InvalidInput, match="memory"):
        await text_of(b"<p>words", "html")


async def test_a_reader_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_SECONDS", 0)
    with pytest.raises(InvalidInput, match="took longer"):
        await text_of(b"<p>words", "html")
    await _no_reader_is_left()


async def test_a_reader_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}

    async def start(*_: object, env: dict[str, str], **__: object) -> None:
        given.update(env)
        raise OSError

    collectors = "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
    for name in ("SQUISH_API_KEY", "HF_TOKEN", "SQUISH_JOIN_TOKEN", *collectors):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    with pytest.raises(InvalidInput, match="could not be started"):
        await text_of(b"<p>words", "html")
    assert "PATH" in given
    assert "secret" not in given.values()


@pytest.fixture
def endless() -> Iterator[BinaryIO]:
    """A document that goes on until its reader is ended."""
    end, writer = os.pipe()
    with open(end, "rb") as document, open(writer, "wb"):  # noqa: PTH123  descriptors, not paths
        yield document


async def test_nobody_waits_for_a_reader_that_is_not_wanted_any_more(
    endless: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_SECONDS", PATIENCE)
    task = asyncio.create_task(documents.text_of(endless, "html"))
    while not _readers():
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _no_reader_is_left()


async def test_nobody_waits_for_a_reader_that_has_more_to_say_than_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio reads no further than twice its limit, and never sees the end of such a pipe."""
    full = asyncio.Event()

    async def leave_it(stream: asyncio.StreamReader) -> bytes:
        while not stream._paused:  # type: ignore[attr-defined]
            await asyncio.sleep(0.005)
        full.set()
        await asyncio.Event().wait()
        return b""

    monkeypatch.setattr(documents, "MAX_SECONDS", PATIENCE)
    monkeypatch.setattr(documents, "_all", leave_it)
    task = asyncio.create_task(text_of(b"<p>" + b"words " * 60_000, "html"))
    await full.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _no_reader_is_left()


def _readers() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if _is_reader(each)]


def _is_reader(process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # it has ended meanwhile
        return "squish.attachments.child" in process.cmdline()
    return False


async def _no_reader_is_left() -> None:
    assert [each for each in _readers() if each.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [(b"", -9, "memory"), (b"T", 1, "damaged"), (b"Eit", 0, "it"), (b"", 0, "damaged")],
)
def test_however_a_reader_ends_there_is_a_reason(answer: bytes, code: int, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        documents._text(answer, code)


@pytest.mark.parametrize(
    ("page", "says"), [(b"<script>x</script>", "no text"), (b"x" * (limits.MAX_TEXT + 1), "more than 512 KiB")]
)
def test_what_cannot_go_along_is_not_read_to_its_end(page: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        child.read(io.BytesIO(page), "html")
