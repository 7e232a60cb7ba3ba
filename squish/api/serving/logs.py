"""Where the server's log goes: stderr, a line an event, without escape sequences. Prompts and keys never get there."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from squish.text import clean

Level = Literal["debug", "info", "warning", "error"]

_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class CleanFormatter(logging.Formatter):
    """Lines that cannot harm the terminal they are read on. A traceback keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message.replace("\r", " ").replace("\n", " ")
        return super().formatMessage(record)


def configure(level: Level) -> None:
    """Send the log of this process to stderr. Sanic speaks only of what is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CleanFormatter(_FORMAT))
    for name, wanted in (("squish", level), ("sanic", "warning"), ("asyncio", "warning")):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(wanted.upper())
        logger.propagate = False
