"""Writes the branch of a chat that is shown to a file. Knows no widget."""

from __future__ import annotations

from pathlib import Path

from squish.chats.chats import Chats
from squish.chats.export import export, file_name, format_of
from squish.errors import StoreError
from squish.files import write_new


def write(chats: Chats, id: int, name: str) -> Path:
    """Write to a file that is not there yet; its absolute path. name: empty takes one from the title.

    Raises InvalidInput for an ending that is not known, StoreError.
    """
    chat = chats.get(id)
    path = Path(name or file_name(chat)).expanduser()
    text = export(chat, chats.branch(id), format_of(path))
    try:
        write_new(path, text)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}.") from error
    return path.absolute()
