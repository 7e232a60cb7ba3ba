"""Files that a message names with `@path`: found in the text, checked for their size, read. Knows no widget."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from squish import figures
from squish.chats.messages import Attachment
from squish.errors import InvalidInput

MAX_FILE = 512 * 1024
MAX_ALL = 1024 * 1024
_NAMED = re.compile(r"(?<!\S)@(\"[^\"\n]+\"|\S+)")
_TRAILING = ".,;:!?)"
_COMPLETIONS = 6


@dataclass(frozen=True, slots=True)
class Mention:
    """A file that a draft names. problem: why it cannot go along, or nothing; missing: there is no such file."""

    name: str
    path: Path
    size: int = 0
    problem: str = ""
    missing: bool = False


def mentions(text: str, directory: Path) -> list[Mention]:
    """The files named in a draft, each once. `@name` that is not a file and does not look like one is only a word."""
    found: dict[Path, Mention] = {}
    total = 0
    for match in _NAMED.finditer(text):
        mention = _look(match[1].strip('"'), directory)
        if mention and mention.path not in found:
            total += mention.size
            if total > MAX_ALL and not mention.problem:
                problem = f"all files together may have {figures.size(MAX_ALL)}"
                mention = Mention(mention.name, mention.path, mention.size, problem)
            found[mention.path] = mention
    return list(found.values())


def read(mention: Mention) -> Attachment | str:
    """The file's text, or why it is none."""
    try:
        data = mention.path.read_bytes()
    except OSError as error:
        return f"{mention.name}: {error.strerror}."
    if len(data) > MAX_FILE:
        return f"{mention.name} is larger than {figures.size(MAX_FILE)}."
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return f"{mention.name} is not UTF-8 text."
    return f"{mention.name} is not text." if "\x00" in text else Attachment(mention.name, text)


def gather(text: str, directory: Path, kept: Iterable[Attachment] = ()) -> tuple[Attachment, ...]:
    """The files that a message names, read. kept: those of the message that it is another version of.

    Raises InvalidInput for one that cannot go along.
    """
    before = {each.name: each for each in kept}
    found = list[Attachment]()
    for mention in mentions(text, directory):
        if mention.missing:
            found += [before[mention.name]] if mention.name in before else []
            continue
        file = f"{mention.name}: {mention.problem}." if mention.problem else read(mention)
        if isinstance(file, str):
            raise InvalidInput(f"Not sent. {file}")
        found.append(file)
    return tuple(found)


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
            if each.name.startswith(start) and (start.startswith(".") or not each.name.startswith("."))
        )
    except OSError:
        return []
    head = draft[: match.start(1)] + (f"{folder}/" if folder or begun.startswith("/") else "")
    return [head + name for name in names[:_COMPLETIONS] if head + name != draft and " " not in name]


def _look(name: str, directory: Path) -> Mention | None:
    for candidate in dict.fromkeys((name, name.rstrip(_TRAILING))):
        try:
            path = (directory / Path(candidate).expanduser()).resolve()
            if path.is_file():
                size = path.stat().st_size
                problem = f"larger than {figures.size(MAX_FILE)}" if size > MAX_FILE else ""
                return Mention(candidate, path, size, problem)
            if path.is_dir() and candidate.strip("./~"):
                return Mention(candidate, path, problem="a folder")
        except (OSError, RuntimeError, ValueError):
            return None
    if re.search(r"/|\.[A-Za-z0-9]{1,5}$", name.rstrip(_TRAILING)):
        return Mention(name, directory / name, problem="not found", missing=True)
    return None
