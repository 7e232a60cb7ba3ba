"""What a project says to assistants, `AGENTS.md` and `CLAUDE.md` in the working directory: found, and put behind the
system prompt of one chat when the user wants it. Never taken by itself. Knows no widget.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from squish import figures
from squish.chats.messages import Attachment, ChatSettings, with_files
from squish.files import read_regular
from squish.text import clean

NAMES = ("AGENTS.md", "CLAUDE.md")
LARGEST = 256 * 1024  # bytes
_BYTES_PER_TOKEN = 4  # about: no tokenizer is loaded when they are offered
_HEAD = "Instructions of the project:"


def found(directory: Path) -> tuple[Attachment, ...]:
    """Those that can be read as text and say something; a link is not followed, it may lead anywhere."""
    files: list[Attachment] = []
    for name in NAMES:
        try:
            text = clean(read_regular(directory / name, LARGEST).decode("utf-8-sig")).strip()
        except (OSError, ValueError):  # UnicodeDecodeError is one
            continue
        if text and all(text != each.text for each in files):
            files.append(Attachment(name, text))
    return tuple(files)


def about(files: Sequence[Attachment]) -> str:
    """`AGENTS.md, about 1.2k tokens`."""
    tokens = sum(len(each.text.encode()) for each in files) // _BYTES_PER_TOKEN
    return f"{' and '.join(each.name for each in files)}, about {figures.count(max(tokens, 1))} tokens"


def included(settings: ChatSettings) -> bool:
    return _HEAD in settings.system


def with_project(settings: ChatSettings, files: Sequence[Attachment]) -> ChatSettings:
    """The settings with the files behind the system prompt."""
    before = without(settings).system
    text = with_files(f"{before}\n\n{_HEAD}" if before else _HEAD, files)
    return msgspec.structs.replace(settings, system=text)


def without(settings: ChatSettings) -> ChatSettings:
    """The settings without them, as for another chat."""
    return msgspec.structs.replace(settings, system=settings.system.partition(_HEAD)[0].rstrip())
