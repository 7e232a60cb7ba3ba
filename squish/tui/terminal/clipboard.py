"""Puts text on the user's clipboard: with the system's own program when the user sits here, with OSC 52 when they came
by SSH. OSC 52 alone is not enough: macOS Terminal ignores it. Knows no widget.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from squish.system import clipboard


async def put(text: str, otherwise: Callable[[str], None]) -> None:
    """Put text on the clipboard. otherwise: takes it where there is no program for that, as the terminal may."""
    program = clipboard.program(os.environ, "copy")
    if program is None or not await clipboard.fill(program, text):
        otherwise(text)
