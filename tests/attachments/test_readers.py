"""Documents as text: what people write in them is kept, and what is hostile in them harms nothing."""

from __future__ import annotations

import io
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from squish.attachments import docx, html, pdf
from squish.errors import InvalidInput
from tests.attachments import made
from tests.attachments.made import paragraph


def word(body: str, declaration: str = "") -> str:
    return docx.text_of(io.BytesIO(made.docx(body, declaration)))


def test_pages_of_a_pdf_are_numbered() -> None:
    assert pdf.text_of(io.BytesIO(made.pdf("Hello", "World")), 1000) == "[page 1]\nHello\n\n[page 2]\nWorld"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no pdf", "not a PDF"),
        (made.pdf("Hello")[:300], "not a PDF"),
        (made.pdf(), "no text"),
        (made.pdf_of([b""]), "no text"),
    ],
)
def test_a_pdf_without_text_says_why(data: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        pdf.text_of(io.BytesIO(data), 1000)


def test_no_page_is_read_behind_the_limit() -> None:
    assert pdf.text_of(io.BytesIO(made.pdf("one", "two", "three")), 4).endswith("two")


def test_a_word_document_keeps_headings_lists_and_tables() -> None:
    item = "<w:p><w:pPr><w:numPr/></w:pPr><w:r><w:t>milk</w:t><w:tab/><w:t>2</w:t><w:br/></w:r></w:p>"
    cells = "".join(f"<w:tc>{paragraph(each)}</w:tc>" for each in ("a", "b"))
    body = f"{paragraph('Title', 'Heading2')}{paragraph('Some &amp; more')}{item}<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
    assert word(body) == "## Title\nSome & more\n- milk\t2\na | b"


def test_what_stands_twice_for_older_programs_is_read_once() -> None:
    twice = "<w:Choice><w:r><w:t>new</w:t></w:r></w:Choice><w:Fallback><w:r><w:t>old</w:t></w:r></w:Fallback>"
    assert word(f"<w:p>{twice}</w:p>{paragraph('end')}") == "new\nend"


def test_a_table_in_a_table_is_in_its_cell() -> None:
    inner = f"<w:tbl><w:tr><w:tc>{paragraph('x')}</w:tc><w:tc>{paragraph('y')}</w:tc></w:tr></w:tbl>"
    assert word(f"<w:tbl><w:tr><w:tc>{paragraph('a')}{inner}</w:tc></w:tr></w:tbl>") == "a x | y"


def test_no_entity_is_expanded() -> None:
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    with pytest.raises(InvalidInput, match="document type"):
        word(paragraph("&b;"), laughs)


def test_a_zip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docx, "MAX_XML", 1 << 20)
    with pytest.raises(InvalidInput, match="more than 1 MiB"):
        word(" " * (3 << 20))


def test_what_is_nested_without_end_is_not_read_to_its_end() -> None:
    assert word("<w:x>" * 900 + paragraph("in") + "</w:x>" * 900) == "in"
    with pytest.raises(InvalidInput, match="nested too deeply"):
        word("<w:x>" * 2000)


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04", made.docx(paragraph("x"))[:200], made.docx("<w:p>")],
    ids=["empty", "header", "cut", "unclosed"],
)
def test_a_damaged_word_document_says_so(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="damaged"):
        docx.text_of(io.BytesIO(data))


def directory_entry(data: bytes, at: int, value: bytes) -> bytes:
    """A zip file of one member with these bytes written into what its directory says of it."""
    entry = data.index(b"PK\x01\x02") + at
    return data[:entry] + value + data[entry + len(value) :]


WHOLE = made.docx(paragraph("x"))
PACKED = WHOLE.index(b"word/document.xml") + len("word/document.xml")


@pytest.mark.parametrize(
    ("data", "raises"),
    [
        (b"words", zipfile.BadZipFile),
        (WHOLE.replace(b"word/document.xml", b"word/settings.xml"), KeyError),
        (WHOLE[:PACKED] + b"\xff" * 40 + WHOLE[PACKED + 40 :], zlib.error),
        (directory_entry(WHOLE, 8, b"\x01\x00"), RuntimeError),
        (directory_entry(WHOLE, 10, b"\x63\x00"), NotImplementedError),
        (directory_entry(directory_entry(WHOLE, 8, b"\x00\x08"), 46, b"\xff"), UnicodeError),
    ],
    ids=["not a zip", "without a document", "damaged", "encrypted", "another method", "name not in UTF-8"],
)
def test_whatever_zipfile_has_against_it_is_said_in_one_way(data: bytes, raises: type[Exception]) -> None:
    with pytest.raises(raises), zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.read("word/document.xml")
    with pytest.raises(InvalidInput, match="it is damaged, encrypted or not a Word document"):
        docx.text_of(io.BytesIO(data))


def test_no_byte_that_is_changed_raises_anything_else(tmp_path: Path) -> None:
    """In a real file, where a place before its beginning is an OSError."""
    path = tmp_path / "a.docx"
    for at in range(len(WHOLE)):
        for value in (0, 1, 255):
            path.write_bytes(WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :])
            with path.open("rb") as file, suppress(InvalidInput):
                docx.text_of(file)
    for end in range(len(WHOLE)):
        path.write_bytes(WHOLE[:end])
        with path.open("rb") as file, pytest.raises(InvalidInput):
            docx.text_of(file)


def test_a_page_keeps_its_text() -> None:
    page = (
        "<html><head><title>T</title><style>p{}</style><script>if (a<b) x()</script></head><body><h2>One\n two</h2>"
        "<p>a <b>b</b>&nbsp;&lt;c&gt;</p><ul><li>x<li>y</ul><table><tr><th>k<th>v<tr><td>1<td>2</table>"
        "<pre>def f():\n    return 1</pre><svg><text>no</text></svg><noscript>no</noscript>end<br/>of it</body>"
    )
    assert html.text_of(page.encode()) == (
        "T\n\n## One two\n\na b <c>\n\n- x\n- y\n\nk | v\n1 | 2\n\n```\ndef f():\n    return 1\n```\n\nend\nof it"
    )


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        ("é".encode(), "", "é"),
        ("é".encode("latin-1"), "iso-8859-1", "é"),
        ('<meta charset="cp1252">€'.encode("cp1252"), "", "€"),
        ("café-x".encode(), "punycode", "café-x"),
        (b'<meta charset="unicode_escape">\\x41', "", "\\x41"),
        ("é".encode("utf-16"), "", "é"),
        (b"\xe9", "no-such", "é"),
        (b"\xe9", "zip", "é"),
        (b"\xef\xbb\xbfx", "utf-8", "x"),
    ],
)
def test_a_page_is_decoded_as_it_says(data: bytes, charset: str, text: str) -> None:
    assert html.text_of(data, charset) == text


def test_a_page_that_closes_what_it_never_opened_is_read() -> None:
    assert html.text_of(b"</pre></script></p>a<script>b</svg>c</script>d") == "ad"
