"""The process that reads one foreign document: `python -m squish.attachments.child KIND < document`.

Whatever the document does to its reader happens here, within limits of time and memory. stdout gets `T` and the text,
or `E` and why there is none.
"""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from typing import BinaryIO

from squish.attachments import docx, html, pdf
from squish.attachments.limits import MAX_HTML, MAX_MEMORY, MAX_SECONDS, MAX_TEXT
from squish.errors import InvalidInput
from squish.text import clean


def main() -> None:
    _limit(resource.RLIMIT_CPU, MAX_SECONDS)
    _limit(resource.RLIMIT_AS, MAX_MEMORY)  # macOS ignores it; the parent watches the memory as well
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)  # pipes are no files
    kind, _, charset = sys.argv[1].partition(":")
    try:
        answer = "T" + read(sys.stdin.buffer, kind, charset)
    except InvalidInput as error:
        answer = "E" + error.message
    except MemoryError:
        answer = f"Eit needs more than {MAX_MEMORY >> 20} MiB of memory to be read"
    except RecursionError:
        answer = "Eit is nested too deeply to be read"
    sys.stdout.buffer.write(answer.encode("utf-8", errors="replace"))


def read(file: BinaryIO, kind: str, charset: str = "") -> str:
    """The text of a document, clean. kind: pdf, docx, or html with the charset that its server named.

    Raises InvalidInput.
    """
    if kind == "pdf":
        text = pdf.text_of(file, MAX_TEXT)
    elif kind == "docx":
        text = docx.text_of(file)
    else:
        data = file.read(MAX_HTML + 1)
        if len(data) > MAX_HTML:
            raise InvalidInput(f"it has more than {MAX_HTML >> 20} MiB")
        text = html.text_of(data, charset)
    text = clean(text).strip()
    if not text:
        raise InvalidInput("it has no text")
    if len(text.encode("utf-8", errors="replace")) > MAX_TEXT:
        raise InvalidInput(f"it has more than {MAX_TEXT >> 10} KiB of text")
    return text


def _limit(what: int, most: int) -> None:
    with suppress(ValueError, OSError):  # a stricter limit is set already
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main()
