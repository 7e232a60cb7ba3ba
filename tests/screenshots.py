"""Draws the pictures of the documentation from the scenes of the tests: `python -m tests.screenshots [directory]`."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from unittest.mock import patch

from textual import constants

from tests.tui.scenes import SCENES, no_package

PICTURES = {
    "chat": "chats",
    "params": "params",
    "find": "find",
    "first-run": "first-run",
    "hub": "hub",
    "models": "library",
    "downloads": "downloads",
    "server": "server",
}
SIZE = (100, 30)


async def draw(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, scene in PICTURES.items():
        make, play = SCENES[scene]
        # A terminal of few colors, in which this may run, has stronger ones.
        with patch("squish.hub.search.packaged_file", no_package), patch.object(constants, "COLOR_SYSTEM", "truecolor"):
            app = make()
            async with app.run_test(size=SIZE) as pilot:
                await play(pilot)
                # The identifiers of an export are new every time; without them a picture changes only with the screen.
                picture = re.sub(r"terminal-\d+", "terminal", app.export_screenshot())
                (directory / f"{name}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    asyncio.run(draw(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots")))
