"""The extension, for tests of what it computes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from squish.worker.cpu import extension

CACHE = Path(tempfile.gettempdir()) / "squish-test-cache"


def native() -> Any:
    """The extension as this machine compiles it; without a compiler the test is skipped."""
    opened = extension.open_extension(CACHE)
    if opened.module is None:
        pytest.skip(opened.reason or "the extension is for Linux")
    return opened.module
