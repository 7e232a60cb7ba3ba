"""What a message names with `@…`: a file, a document, a folder or an address. Found in the text and looked at from
outside; nothing is opened here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec

from squish import figures
from squish.attachments import pdf
from squish.attachments.limits import MAX_ALL, MAX_DOCUMENT, MAX_TEXT
from squish.text import is_plain

Kind = Literal["text", "pdf", "docx", "html", "folder", "url", ""]

_NAMED = re.compile(r"(?<!\S)@(\"[^\"\n]+\"|\S+)")
_TRAILING = ".,;:!?)"
_COMPLETIONS = 6
_SOURCE = "!"
_DOCUMENTS: dict[str, Kind] = {".pdf": "pdf", ".docx": "docx", ".html": "html", ".htm": "html", ".xhtml": "html"}
_IMAGES = frozenset(
    {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".ico"}
)
_OFFICE = frozenset({".doc", ".odt", ".rtf", ".ppt", ".pptx", ".odp", ".xls", ".xlsx", ".ods", ".epub", ".pages"})


class Mention(msgspec.Struct, frozen=True):
    """Something that a draft names. kind: empty where it is only a word that looks like a file.

    problem: why it cannot go along, or nothing; missing: there is no such file.
    """

    name: str
    path: Path
    kind: Kind = "text"
    size: int = 0
    problem: str = ""
    missing: bool = False

    @property
    def is_read_slowly(self) -> bool:
        """Whether reading it takes a process, a walk or the network."""
        return self.kind not in ("text", "") and not self.problem


def mentions(text: str, directory: Path) -> list[Mention]:
    """The things named in a draft, each once. `@name` that is not a file and does not look like one is only a word."""
    found: dict[tuple[Path, bool], Mention] = {}
    total = 0
    for match in _NAMED.finditer(text):
        mention = look(match[1].strip('"'), directory)
        if mention and (mention.path, mention.kind == "text") not in found:
            total += mention.size if mention.kind == "text" else 0
            if total > MAX_ALL and not mention.problem:
                problem = f"all files together may have {figures.size(MAX_ALL)}"
                mention = Mention(mention.name, mention.path, mention.kind, mention.size, problem)
            found[(mention.path, mention.kind == "text")] = mention
    return list(found.values())


def look(name: str, directory: Path) -> Mention | None:
    """What a name is; None for a mere word."""
    if re.match(r"https?://", name, re.IGNORECASE):
        address = name.rstrip(_TRAILING if "(" not in name else _TRAILING.replace(")", ""))
        return Mention(address, Path(address), "url")
    source = name.startswith(_SOURCE)
    bare = name.removeprefix(_SOURCE)
    for candidate in dict.fromkeys((bare, bare.rstrip(_TRAILING))):
        try:
            path = (directory / Path(candidate).expanduser()).resolve()
            if path.is_file():
                return _file(candidate, path, source)
            if path.is_dir() and candidate.strip("./~"):
                return Mention(candidate, path, "folder")
            if path.exists() and not path.is_dir():
                return Mention(candidate, path, problem="neither a file nor a folder")
        except RuntimeError:
            return Mention(candidate, directory / candidate, problem="a link that leads to itself")
        except (OSError, ValueError):
            return None
    if re.search(r"/|\.[A-Za-z0-9]{1,5}$", bare.rstrip(_TRAILING)):
        return Mention(name, directory / bare, "", problem="not found", missing=True)
    return None


def document(name: str, path: Path) -> Mention | None:
    """A PDF or a Word document in a folder; None for any other file, such as a page, whose source is read there."""
    if _DOCUMENTS.get(path.suffix.lower()) not in ("pdf", "docx"):
        return None
    return _file(name, path, source=False)


def _file(name: str, path: Path, source: bool) -> Mention:
    size, ending = path.stat().st_size, path.suffix.lower()
    kind: Kind = "text" if source else _DOCUMENTS.get(ending, "text")
    limit = MAX_TEXT if kind == "text" else MAX_DOCUMENT
    if ending in _IMAGES:
        problem = "an image, and no model here can see"
    elif ending in _OFFICE:
        problem = "cannot be read; save it as PDF, docx or text"
    elif kind == "pdf" and not pdf.can_read():
        problem = pdf.NEEDED
    else:
        problem = f"larger than {figures.size(limit)}" if size > limit else ""
    return Mention(name, path, kind, size, problem)


def completions(draft: str, directory: Path) -> list[str]:
    """Drafts in which the `@path` at the end is longer: one for each file that begins so."""
    match = re.search(r"(?<!\S)@(\S*)$", draft)
    if not match:
        return []
    begun = match[1]
    folder, _, start = begun.rpartition("/")
    at = directory / Path(folder or ("/" if begun.startswith("/") else ".")).expanduser()
    try:
        names = sorted(
            each.name + ("/" if each.is_dir() else "")
            for each in at.iterdir()
            if is_plain(each.name)
            and each.name.startswith(start)
            and (start.startswith(".") or not each.name.startswith("."))
        )
    except OSError:
        return []
    head = draft[: match.start(1)] + (f"{folder}/" if folder or begun.startswith("/") else "")
    return [head + name for name in names[:_COMPLETIONS] if head + name != draft and " " not in name]
