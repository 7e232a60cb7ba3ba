"""Documents of foreign origin, read in a short-lived process of their own: it may hang, crash or eat memory, and the
chat goes on."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import BinaryIO, Literal

from squish.attachments.limits import MAX_MEMORY, MAX_SECONDS, MAX_TEXT
from squish.errors import InvalidInput
from squish.ipc.environment import environment
from squish.system.pipes import let_go

DocumentKind = Literal["pdf", "docx", "html"]

_LOOK = 0.1  # seconds between two looks at its memory


async def text_of(file: BinaryIO, kind: DocumentKind, charset: str = "") -> str:
    """The text of a document, clean, at most MAX_TEXT bytes. file: a real file, at its beginning.

    Raises InvalidInput, whose message goes on after the document's name and a colon.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "squish.attachments.child", f"{kind}:{charset}",
            stdin=file, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env=environment(), start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise InvalidInput(f"its reader could not be started ({error.strerror})") from error
    watch = asyncio.create_task(_watch(process.pid))
    try:
        async with asyncio.timeout(2 * MAX_SECONDS):
            assert process.stdout is not None
            answer = await _all(process.stdout)
            code = await process.wait()
    except TimeoutError:
        raise InvalidInput(f"reading it took longer than {2 * MAX_SECONDS} s") from None
    finally:
        watch.cancel()
        with suppress(ProcessLookupError):
            process.kill()
        let_go(process)
        await process.wait()
    if watch.done() and not watch.cancelled() and watch.exception() is None and watch.result():
        raise InvalidInput(f"it needs more than {MAX_MEMORY >> 20} MiB of memory to be read")
    return _text(answer, code)


def _text(answer: bytes, code: int) -> str:
    text = answer.decode("utf-8", errors="replace")
    if code == 0 and text.startswith("T"):
        return text[1:]
    if code == 0 and text.startswith("E"):
        raise InvalidInput(text[1:])
    if code < 0:
        raise InvalidInput(f"reading it took more than {MAX_SECONDS} s, or more memory than it may have")
    raise InvalidInput("it is damaged: its text cannot be read")


async def _all(stream: asyncio.StreamReader) -> bytes:
    parts, size = list[bytes](), 0
    while (piece := await stream.read(1 << 16)) and size <= MAX_TEXT:
        parts.append(piece)
        size += len(piece)
    return b"".join(parts)


async def _watch(pid: int) -> bool:
    """End a process that takes more memory than it may, where the system does not; whether that was done."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        while process.memory_info().rss <= MAX_MEMORY:  # noqa: ASYNC110  a process tells nobody
            await asyncio.sleep(_LOOK)
        process.kill()
        return True
    return False
