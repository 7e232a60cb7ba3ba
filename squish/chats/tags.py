"""Tags of chats: how people write them, and how they are kept: in small letters, without the `#`. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import msgspec

from squish.errors import InvalidInput
from squish.text import clean

LONGEST = 32
_TAG = re.compile(r"[^\W_][\w/-]*")


class TagChange(msgspec.Struct, frozen=True):
    """What a line like `work -old` does to the tags of a chat."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def tag(word: str) -> str:
    """A tag as it is kept. Raises InvalidInput."""
    found = as_kept(word)
    if not _TAG.fullmatch(found) or len(found) > LONGEST:
        hint = f"A tag has at most {LONGEST} letters, digits, - _ or /, and begins with a letter or a digit."
        raise InvalidInput(f"{clean(word) or 'An empty text'} is not a tag.", hint=hint, param="tag")
    return found


def tags(words: Iterable[str]) -> tuple[str, ...]:
    """Tags as they are kept, in order, each once. Raises InvalidInput."""
    return tuple(sorted({tag(word) for word in words}))


def change(line: str) -> TagChange:
    """`work #recipes -old`: what is added, and behind a `-` what is removed. Raises InvalidInput."""
    words = line.replace(",", " ").split()
    gone = [word.removeprefix("-") for word in words if word.startswith("-")]
    return TagChange(tags(word for word in words if not word.startswith("-")), tags(gone))


def written(kept: Iterable[str]) -> str:
    """`#recipes #work`."""
    return " ".join(f"#{each}" for each in kept)


def taken_out(line: str) -> tuple[str, tuple[str, ...]]:
    """The words of a search, and the tags among them: `#work light` looks for light in what is tagged work.

    What is not a tag yet, as while it is being written, is left out.
    """
    words = line.split()
    found = [as_kept(word) for word in words if word.startswith("#")]
    rest = " ".join(word for word in words if not word.startswith("#"))
    return rest, tuple(dict.fromkeys(each for each in found if _TAG.fullmatch(each)))


def as_kept(word: str) -> str:
    """A tag, or the beginning of one, in the spelling in which tags are kept."""
    return unicodedata.normalize("NFC", word.removeprefix("#")).lower()
