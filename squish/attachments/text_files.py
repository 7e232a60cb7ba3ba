"""Which bytes are text: UTF-8 without a null character."""

from __future__ import annotations


class NotText(ValueError):
    """It says why."""


def decode(data: bytes) -> str:
    """Raises NotText."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NotText("not UTF-8 text") from None
    if "\x00" in text:
        raise NotText("not text")
    return text
