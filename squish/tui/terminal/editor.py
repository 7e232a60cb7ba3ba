"""Writes a text in the user's own editor; the app stands aside meanwhile. Knows no screen."""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
from pathlib import Path

from textual.app import App, SuspendNotSupported

from squish.errors import ConfigError


async def edit(app: App[None], text: str) -> str | None:
    """The text as the user leaves it, or None when the editor gives up. Raises ConfigError."""
    editor = os.environ.get("VISUAL", "").strip() or os.environ.get("EDITOR", "").strip() or "vi"
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "message.md"
            path.write_text(text, encoding="utf-8")
            with app.suspend(), app.batch_update():
                process = await asyncio.create_subprocess_exec(*shlex.split(editor), str(path))
                code = await process.wait()
            return path.read_text(encoding="utf-8", errors="replace").rstrip("\n") if code == 0 else None
    except (SuspendNotSupported, OSError, ValueError) as error:  # ValueError: a quote that is not closed
        raise ConfigError(f"{editor} could not be used: {error}", hint="Set VISUAL or EDITOR.") from error
