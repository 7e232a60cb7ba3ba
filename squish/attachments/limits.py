"""How much may go along with one message, and what reading it may take."""

from __future__ import annotations

MAX_TEXT = 512 * 1024
"""Bytes of text of one file, document or page."""

MAX_ALL = 1024 * 1024
"""Bytes of text of everything that goes with one message."""

MAX_FILES = 200
"""Files of one folder."""

MAX_DOCUMENTS = 20
"""Documents of one folder that are read; reading one takes a process of its own."""

MAX_ENTRIES = 20_000
"""Names in a folder and below it that are looked at."""

MAX_DOCUMENT = 32 * 1024 * 1024
"""Bytes of a document on the disk, or of a page of the web."""

MAX_HTML = 8 * 1024 * 1024
"""Bytes of a page as it is written."""

MAX_MEMORY = 1024 * 1024 * 1024
"""Bytes that reading a document may take."""

MAX_SECONDS = 20
"""Of computing; reading a document may take twice as many by the clock, and a page of the web this many."""
