"""Documents for the tests, written byte by byte."""

from __future__ import annotations

import io
import zipfile
import zlib

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def pdf(*pages: str) -> bytes:
    """A PDF with one line of text on each page."""
    return pdf_of([b"BT /F1 24 Tf 72 700 Td (%s) Tj ET" % page.encode("ascii") for page in pages])


def pdf_of(contents: list[bytes], more: bytes = b"") -> bytes:
    """A PDF with these content streams, compressed as they are given where `more` says so."""
    count = len(contents)
    kids = b" ".join(b"%d 0 R" % (4 + 2 * at) for at in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, count),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for at, content in enumerate(contents):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % (5 + 2 * at)
        )
        objects.append(b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), more, content))
    out, offsets = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for number, each in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, each))
    table = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    for offset in offsets:
        out.write(b"%010d 00000 n \n" % offset)
    out.write(b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, table))
    return out.getvalue()


def pdf_bomb(size: int) -> bytes:
    """A PDF whose only page is `size` spaces, compressed twice: a few kilobytes that want gigabytes."""
    packer, parts = zlib.compressobj(9), list[bytes]()
    piece = b" " * (1 << 20)
    for _ in range(size >> 20):
        parts.append(packer.compress(piece))
    packed = b"".join([*parts, packer.flush()])
    return pdf_of([zlib.compress(packed, 9)], b"/Filter [/FlateDecode /FlateDecode]")


def docx(body: str, declaration: str = "") -> bytes:
    """A Word document with this XML in its body."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        xml = f'<?xml version="1.0"?>{declaration}<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
        archive.writestr("word/document.xml", xml)
    return out.getvalue()


def paragraph(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"
