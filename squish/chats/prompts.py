"""Prompt templates: messages with names that are used again, each time with other values. It knows no front door."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from squish.chats.chats import Chats
from squish.chats.templates import INPUT, LARGEST_FILE, Around, filled_text, uses
from squish.errors import InvalidInput
from squish.files import read_regular
from squish.text import clean

_NAME = re.compile(r"[^\W_][\w.-]{0,39}")


def checked_name(name: str) -> str:
    """A name that a template may have. Raises InvalidInput."""
    if not _NAME.fullmatch(name) or name in ("save", "rm"):
        hint = "A name is one word of at most 40 letters, digits, - _ and dots."
        said = f"{clean(name)} cannot be the name of a template." if name else "The template has no name."
        raise InvalidInput(said, hint=hint, param="template")
    return name


def message(template: str, values: Mapping[str, str], around: Around) -> str:
    """What is asked: the template around the input, or with the input behind it where it does not say where.

    Raises InvalidInput as filled_text does.
    """
    behind = around.input if around.input and around.input.strip() and not uses(template, INPUT) else ""
    return "\n\n".join(filter(None, (filled_text(template, values, around), behind)))


def named(home: Path, name: str) -> str:
    """The text of a template that was saved, or of a file. Raises InvalidInput with the names there are."""
    saved, known = home / "chats.db", dict[str, str]()
    if saved.exists():
        with closing(Chats(saved)) as chats:
            known = chats.prompts()
    if name in known:
        return known[name]
    try:
        return read_regular(Path(name).expanduser(), LARGEST_FILE, follow=True).decode("utf-8-sig").rstrip()
    except UnicodeDecodeError:
        raise InvalidInput(f"--template: {clean(name)} is not UTF-8 text.", param="--template") from None
    except (OSError, ValueError, RuntimeError):
        there = f"Available: {', '.join(clean(each) for each in known)}. " if known else ""
        hint = f"{there}`/template save NAME TEXT` in a chat makes one; a file works too."
        raise InvalidInput(
            f"No template is named {clean(name)}, and no file is.", hint=hint, param="--template"
        ) from None
