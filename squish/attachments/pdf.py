"""The text of a PDF, page by page, with pypdf, which is an extra. What is hostile in a file is for the child process
that this runs in to survive, or not."""

from __future__ import annotations

from importlib.util import find_spec
from typing import BinaryIO

from squish.errors import InvalidInput

NEEDED = "reading a PDF needs a package: pip install pypdf"


def can_read() -> bool:
    """Whether the extra `documents` is installed."""
    return find_spec("pypdf") is not None


def text_of(file: BinaryIO, limit: int) -> str:
    """The text of all pages. limit: characters after which no further page is read. Raises InvalidInput."""
    if not can_read():
        raise InvalidInput(NEEDED)
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError, PyPdfError

    try:
        reader = PdfReader(file, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise InvalidInput("it is protected by a password")
        pages, size = list[str](), 0
        for number, page in enumerate(reader.pages, 1):
            if text := page.extract_text().strip():
                pages.append(f"[page {number}]\n{text}")
                size += len(text)
            if size > limit:
                break
    except (DependencyError, FileNotDecryptedError) as error:
        raise InvalidInput("it is encrypted in a way that cannot be read") from error
    except LimitReachedError as error:
        raise InvalidInput("what is packed in it is larger than may be read") from error
    except PyPdfError as error:
        raise InvalidInput("it is damaged, or not a PDF") from error
    if not pages:
        raise InvalidInput("it has no text; its pages may be scanned pictures")
    return "\n\n".join(pages)
