"""The full-screen chat as the child of `squish web`: textual's driver for browsers stands where a terminal would be."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

_LOOK = 1.0  # seconds


def main() -> None:
    os.environ["TEXTUAL_DRIVER"] = "squish.tui.terminal.browser:BrowserDriver"  # before textual reads it
    from squish import console
    from squish.commands import exits
    from squish.errors import SquishError

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        code = _run()
    except SquishError as error:
        console.error(error)
        code = exits.of(error)
    sys.exit(code)


def _run() -> int:
    from squish.commands.serving.serve import serve_beside
    from squish.config.settings import Settings
    from squish.tui.program import run

    settings = Settings.from_environment()
    return run(settings, sys.argv[1] if len(sys.argv) > 1 else settings.model, serve=serve_beside, in_browser=True)


def _end_with(parent: int) -> None:
    """End when the server has gone, however it went."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
