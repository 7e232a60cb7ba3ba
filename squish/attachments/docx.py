"""The text of a Word document: a zip file of XML. Both are read with bounds, and no entity is ever expanded."""

from __future__ import annotations

import re
import zipfile
import zlib
from typing import IO, BinaryIO
from xml.parsers import expat

from squish.errors import InvalidInput

MAX_XML = 64 * 1024 * 1024
"""Bytes of a document's own part, unpacked."""

_BODY = "word/document.xml"
_PIECE = 1 << 20
_DEEPEST = 1000  # elements within each other: a table in a table in a text box has about fifty
_BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_HEADING = re.compile(r"heading\s*([1-6])", re.IGNORECASE)
_UNREADABLE = (
    zipfile.BadZipFile,  # not a zip file, or its directory or a checksum is wrong
    KeyError,  # it has no document of Word
    EOFError,  # the part is cut off
    zlib.error,  # what is packed is damaged
    RuntimeError,  # it is encrypted, or packed in a way that zipfile does not know
    OSError,  # it names a place before its beginning
    UnicodeError,  # a name in it is not UTF-8
)
"""What zipfile raises for such files. Only LZMA, which Word does not use, has an error of its own."""


def text_of(file: BinaryIO) -> str:
    """Paragraphs, headings (`# …`), items of lists (`- …`) and tables (`a | b`). Raises InvalidInput."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(_BODY) as part:
            return _read(part)
    except _UNREADABLE as error:
        raise InvalidInput("it is damaged, encrypted or not a Word document") from error


def _read(part: IO[bytes]) -> str:
    body, size = _Body(), 0
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = body.start, body.end
    parser.CharacterDataHandler = body.text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        while piece := part.read(_PIECE):
            size += len(piece)
            if size > MAX_XML:
                raise InvalidInput(f"its text is more than {MAX_XML >> 20} MiB of XML")
            parser.Parse(piece)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise InvalidInput("its XML is damaged") from error
    return body.whole()


def _refuse(*_: object) -> None:
    """Word writes no DOCTYPE, and entities can be declared nowhere else."""
    raise InvalidInput("its XML declares a document type, which Word never does")


class _Body:
    """What was read so far: lines, and the paragraph, row and cell that are being read."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._paragraph: list[str] = []
        self._mark = ""
        self._in_text = False
        self._depth = 0
        self._skipped = 0  # depth within what is there twice, for older programs
        self._rows: list[list[str]] = []  # of the tables around, the innermost last
        self._cells: list[list[str]] = []  # lines of their open cells

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        self._depth += 1
        if self._depth > _DEEPEST:
            raise InvalidInput("its XML is nested too deeply to be read")
        if self._skipped or name == "Fallback":
            self._skipped += 1
            return
        value = next((value for key, value in attributes.items() if key.rpartition(" ")[2] == "val"), "")
        match name:
            case "t":
                self._in_text = True
            case "pStyle" if found := _HEADING.fullmatch(value):
                self._mark = "#" * int(found[1]) + " "
            case "numPr":
                self._mark = self._mark or "- "
            case "tr":
                self._rows.append([])
            case "tc":
                self._cells.append([])
            case _ if name in _BREAKS:
                self._paragraph.append(_BREAKS[name])

    def end(self, name: str) -> None:
        name = name.rpartition(" ")[2]
        self._depth -= 1
        if self._skipped:
            self._skipped -= 1
            return
        match name:
            case "t":
                self._in_text = False
            case "p":
                self._end_paragraph()
            case "tc" if self._cells and self._rows:
                self._rows[-1].append(" ".join(each for each in self._cells.pop() if each))
            case "tr" if self._rows:
                self._add(" | ".join(self._rows.pop()))

    def text(self, text: str) -> None:
        if self._in_text and not self._skipped:
            self._paragraph.append(text)

    def _end_paragraph(self) -> None:
        text = "".join(self._paragraph).strip("\n")
        self._add(f"{self._mark}{text}" if text.strip() else "")
        self._paragraph, self._mark = [], ""

    def _add(self, line: str) -> None:
        (self._cells[-1] if self._cells else self._lines).append(line)

    def whole(self) -> str:
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip()
