"""Where the program starts: `squish`, or `python -m squish`."""

from __future__ import annotations

import gc
import signal


def main() -> None:
    """The console script. While the program is still being imported, Ctrl-C ends it without a word.

    Where the program was started with SIGINT ignored, as in the background of a script, it stays so.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # modules are never garbage: they are not to be traversed while more are imported
    from squish.cli import main as run

    if not ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
