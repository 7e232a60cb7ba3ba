"""Holds a model's directory while this process serves it, so that no other process deletes it unasked.

The hold is a shared lock on the directory itself and ends with the process, however it ends.
"""

from __future__ import annotations

import os
from pathlib import Path

from squish.files import lock


def hold(path: Path) -> int:
    """Lock the directory for reading until the process ends; gives the descriptor, which must stay open.

    A file system without locks holds nothing: then deleting is as safe as it was before.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # loading will say what is wrong with it
        return -1
    try:
        lock(descriptor, shared=True)
    except OSError:
        pass
    return descriptor
