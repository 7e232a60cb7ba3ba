"""Thoughts in the shape of OpenAI's encrypted reasoning, for clients that send nothing else of an item back. Pure.

Nothing is encrypted: who gets the field has read the thoughts beside it.
"""

from __future__ import annotations

import base64
import binascii

_MARK = "squish:"


def sealed(thoughts: str) -> str:
    return _MARK + base64.b64encode(thoughts.encode()).decode()


def opened(content: str | None) -> str | None:
    """The thoughts; None for what another server has encrypted."""
    if content is None or not content.startswith(_MARK):
        return None
    try:
        return base64.b64decode(content.removeprefix(_MARK), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
