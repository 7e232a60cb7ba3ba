"""The text of a web page: headings, paragraphs, lists and tables, without scripts, styles and pictures."""

from __future__ import annotations

import codecs
import re
from html.parser import HTMLParser

_SKIPPED = frozenset({"script", "style", "template", "svg", "noscript", "iframe", "object", "select"})
_BLOCKS = frozenset(
    {"p", "div", "section", "article", "header", "footer", "main", "nav", "aside", "ul", "ol", "table", "blockquote",
     "form", "figure", "figcaption", "address", "dl", "dt", "dd", "fieldset", "details", "summary", "hr", "title"}
)  # fmt: skip
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
"""Codecs of Python that no page is written in; some take a time that grows with the square of the text."""
_HEAD = 4096  # bytes in which a page says how it is written


def text_of(data: bytes, charset: str = "") -> str:
    """charset: what the server named, if anything."""
    page = _Page()
    page.feed(decoded(data, charset))
    page.close()
    return page.whole()


def decoded(data: bytes, charset: str = "") -> str:
    """Bytes as text: by their byte order mark, the server's word, the page's own, else UTF-8; never an error."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    named = _CHARSET.search(data[:_HEAD])
    for name in (charset, named[1].decode("ascii") if named else "", "utf-8"):
        try:
            if codecs.lookup(name).name in _NO_CHARSETS:
                continue
            return data.decode("utf-8-sig" if name.lower() in ("utf-8", "utf8") else name)
        except (LookupError, UnicodeError, ValueError):
            continue
    return data.decode("cp1252", errors="replace")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._skipped: list[str] = []
        self._verbatim = 0
        self._cells = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED:
            self._skipped.append(tag)
        if self._skipped:
            return
        if tag in _BLOCKS:
            self._parts.append("\n\n")
        elif tag in _HEADINGS:
            self._parts += ["\n\n", _HEADINGS[tag]]
        elif tag == "br":
            self._parts.append("\n")
        elif tag == "li":
            self._parts += ["\n", "- "]
        elif tag == "tr":
            self._parts.append("\n")
            self._cells = 0
        elif tag in ("td", "th"):
            self._parts += [" | "] * bool(self._cells)
            self._cells += 1
        elif tag == "pre":
            self._parts.append("\n\n```\n")
            self._verbatim += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _SKIPPED:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._skipped:
            del self._skipped[self._skipped.index(tag) :]
        elif self._skipped:
            return
        elif tag == "pre" and self._verbatim:
            self._verbatim -= 1
            self._parts.append("\n```\n\n")
        elif tag in _BLOCKS or tag in _HEADINGS:
            self._parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._parts.append(data if self._verbatim else re.sub(r"\s+", " ", data))

    def whole(self) -> str:
        text = "".join(self._parts)
        lines, verbatim = [], False
        for line in text.split("\n"):
            fence = line.strip() == "```"
            lines.append(line.rstrip() if verbatim and not fence else re.sub(r" {2,}", " ", line).strip())
            verbatim ^= fence
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
