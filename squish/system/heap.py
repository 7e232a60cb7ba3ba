"""What the C library does with memory that was freed."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 20


def return_large_blocks() -> None:
    """From now on give a block of a megabyte or more back to the system when it is freed.

    glibc starts out that way, and keeps blocks of up to 32 MB once the first was freed: a server that read some large
    bodies would keep as much memory as they took together. Does nothing where the C library has no such setting.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
