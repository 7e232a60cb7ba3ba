"""`make monkey`: the program in a terminal, with keys, clicks, pastes and sizes by chance, and it still answers.

`ARGS="--seeds 100-130 --seconds 60"` says which chances, and how long each is tried. A seed decides what is pressed,
the size of the terminal, or that it changes, and whether workers are killed; it has a home of its own with the real
model. In the end what is typed must be drawn within a limit of CPU, no window stays, the program can be left, no
process stays, and the terminal is as it was. Else the last keys and the end of the log are printed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import random
import re
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from squish.text import clean, whole
from tests.arguments import number, refusal
from tests.conftest import MODEL, SQUISH, clean_environment, install_real

Size = tuple[int, int]  # columns, lines

BIG: Size = (100, 30)
SIZES: tuple[Size, ...] = (BIG, (60, 20), (20, 5), (200, 50), (120, 10), (80, 24), (40, 30))
CPU = 30.0  # seconds of it until something must be done
HUNG = 300.0  # seconds on the clock, for what computes nothing
NAMED = {
    "f1": "\x1bOP", "f2": "\x1bOQ", "f3": "\x1bOR", "f4": "\x1bOS", "f5": "\x1b[15~", "f8": "\x1b[19~",
    "f9": "\x1b[20~", "escape": "\x1b", "tab": "\t", "shift+tab": "\x1b[Z", "enter": "\r", "up": "\x1b[A",
    "down": "\x1b[B", "left": "\x1b[D", "right": "\x1b[C", "pageup": "\x1b[5~", "pagedown": "\x1b[6~",
    "alt+up": "\x1b[1;3A", "alt+down": "\x1b[1;3B", "alt+pagedown": "\x1b[6;3~", "alt+pageup": "\x1b[5;3~",
    "home": "\x1b[H", "end": "\x1b[F", "ctrl+end": "\x1b[1;5F", "delete": "\x1b[3~", "backspace": "\x7f",
}  # fmt: skip
KEYS = NAMED | {f"ctrl+{letter}": chr(ord(letter) - 96) for letter in "abcfjlnoprsty"}
WORDS = (
    "hello", "write a long list of 50 animals", "@", "[", "]", *"12befginprstxy", "/tools", "/params", "/find a",
    "/compare hi", "/new", "/again", "/continue", "/preset", "/tag x", "/filter", "/rename foo", "/rename", "/project",
    "/pin", "/archive", "/template", "/defaults", "/export chat.md", "/system you are", "/code 1", "/copy", "/delete",
    "/set temperature 2", "/set max_tokens 500", "/hub", "/server", "/models", "/downloads",
)  # fmt: skip
_ON_AND_OFF = ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"), (b"\x1b[?2004h", b"\x1b[?2004l"))
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|.)")


class Fault(Exception):
    """The program has not done what it always must do."""


class Terminal:
    """The program in a terminal of its own. pressed: what was done to it, the last at the end."""

    def __init__(self, home: Path, size: Size, command: Sequence[str] = (SQUISH,)) -> None:
        self._end, side = pty.openpty()
        os.set_blocking(self._end, False)
        self._tell_size(size)
        environment = clean_environment(home) | {"SQUISH_OFFLINE": "1", "TERM": "xterm-256color"}
        self.program = psutil.Popen([*command], stdin=side, stdout=side, stderr=side, cwd=home, env=environment)
        os.close(side)
        self.pressed: list[str] = []
        self.drawn = bytearray()
        self._unsent = bytearray()

    def close(self) -> None:
        with suppress(psutil.Error):
            self.program.kill()
        self.program.wait()
        os.close(self._end)

    @property
    def workers(self) -> list[psutil.Process]:
        return self.program.children() if self.program.poll() is None else []

    def resize(self, size: Size) -> None:
        self.pressed.append("{}x{}".format(*size))
        self._tell_size(size)
        with suppress(psutil.Error):
            self.program.send_signal(signal.SIGWINCH)

    def _tell_size(self, size: Size) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))

    def send(self, data: str, name: str = "") -> None:
        self.pressed.append(name or data)
        self._unsent += data.encode()

    def run(self, seconds: float) -> None:
        """Send what is to be sent and read what is drawn, for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 or self._unsent:
            sending = [self._end] if self._unsent else []
            readable, writable, _ = select.select([self._end], sending, [], max(left, 0.1))
            try:
                if readable:
                    self.drawn += os.read(self._end, 65536)
                if writable:
                    del self._unsent[: os.write(self._end, self._unsent[:1024])]
            except OSError:  # it has ended
                return
            if left < -HUNG:
                raise Fault("it reads no keys")

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Go on until something is done, which the program has some CPU for."""
        begun, end = self._computed(), time.monotonic() + HUNG
        while not done():
            self.run(0.2)
            if self._computed() - begun > CPU or time.monotonic() > end:
                raise Fault(f"{what}, after {self._computed() - begun:.0f} s of CPU")

    def _computed(self) -> float:
        if self.program.poll() is not None:
            return 0.0
        with suppress(psutil.Error):
            spent = self.program.cpu_times()
            return float(spent.user + spent.system)
        return 0.0


def play(terminal: Terminal, chance: random.Random, seconds: float, kills: bool, sizes: Sequence[Size]) -> None:
    """Press what chance says, for so long or until the program ends."""
    terminal.until(lambda: b"\x1b[?1049h" in terminal.drawn, "it draws nothing")
    terminal.send("hello\r")
    end = time.monotonic() + seconds
    while terminal.program.poll() is None and time.monotonic() < end:
        kind = chance.random()
        if kind < 0.06:
            terminal.resize(chance.choice(sizes))
        elif kind < 0.07:
            _kill(terminal, kills)
        elif kind < 0.09:
            lines = chance.choice((2, 50, 3000))
            terminal.send("\x1b[200~" + "line\n" * lines + "\x1b[201~", f"paste of {lines} lines")
        elif kind < 0.25:
            terminal.send(chance.choice(WORDS) + ("\r" if chance.random() < 0.6 else ""))
        elif kind < 0.32:
            x, y, button = chance.randint(1, 100), chance.randint(1, 30), chance.choice((0, 64, 65))
            terminal.send(f"\x1b[<{button};{x};{y}M\x1b[<{button};{x};{y}m", f"mouse {button} at {x},{y}")
        else:
            for key in [chance.choice(list(KEYS)) for _ in range(chance.choice((1, 1, 2, 3, 5)))]:
                terminal.send(KEYS[key], key)
        terminal.run(chance.choice((0, 0.01, 0.03, 0.1, 0.25, 0.25, 0.6)))
        del terminal.drawn[:-200_000]


def _kill(terminal: Terminal, kills: bool) -> None:
    for worker in terminal.workers if kills else ():
        terminal.pressed.append("kill")
        with suppress(psutil.Error):
            worker.kill()


def answers(terminal: Terminal) -> None:
    """Raises Fault unless what is typed in the chat is drawn. What lies over the chat closes with escape."""
    wide, tries = BIG[0], 0

    def typed() -> bool:
        nonlocal tries
        tries += 1
        word = f"zq{tries}zq"
        for data, name in ((NAMED["f2"], "f2"), (NAMED["escape"], "escape"), (word, "")):
            terminal.send(data, name)
            terminal.run(0.3)
        terminal.drawn.clear()
        terminal.resize((wide + tries % 2, BIG[1]))  # all of it is drawn again
        terminal.run(0.5)
        return terminal.program.poll() is not None or word.encode() in _SEQUENCE.sub(b"", bytes(terminal.drawn))

    terminal.until(typed, "what is typed in the chat is not drawn")


def leave(terminal: Terminal) -> None:
    """Raises Fault unless the program can be left, and then nothing of it stays."""
    workers = terminal.workers
    tries = 0

    def left() -> bool:
        nonlocal tries
        if (tries := tries + 1) % 10 == 1:
            terminal.send("\x11\x11", "ctrl+q twice")
        return terminal.program.poll() is not None

    terminal.until(left, "it does not end")
    terminal.until(lambda: not psutil.wait_procs(workers, timeout=1)[1], "a worker stays")


def judge(terminal: Terminal, log: str) -> None:
    """Raises Fault where the program has not ended as it should."""
    if terminal.program.wait() != 0:
        raise Fault(f"it died with exit code {terminal.program.wait()}")
    for on, off in _ON_AND_OFF:
        if terminal.drawn.rfind(off) <= terminal.drawn.rfind(on):
            raise Fault(f"the terminal is not as before: {off!r} is missing")
    if "Traceback" in log:
        raise Fault("its log has a traceback")


def tried(seed: int, seconds: float, home: Path) -> Fault | None:
    """Try one seed, say what came of it, and what the fault was."""
    chance = random.Random(seed)
    kills, sizes = chance.random() < 0.5, chance.choice((SIZES, SIZES[:1], SIZES[1:2], SIZES[2:3]))
    about = f"seed {seed}, {'any size' if len(sizes) > 1 else '{}x{}'.format(*sizes[0])}{', kills' if kills else ''}"
    terminal = Terminal(home, sizes[0])
    try:
        play(terminal, chance, seconds, kills, sizes)
        by_keys = terminal.program.poll() is not None
        pressed = len(terminal.pressed)
        if not by_keys:
            answers(terminal)
            leave(terminal)
        terminal.run(0.1)
        judge(terminal, _log(home))
    except Fault as fault:
        print(f"{about}: FAULT: {fault}\n  the last keys: {clean(repr(terminal.pressed[-60:]))}\n{_ends(_log(home))}")
        return fault
    finally:
        terminal.close()
    # The palette has a row that quits: where keys ended the program, that is to be seen.
    print(f"{about}: {pressed} keys, {'left by keys: ' + repr(terminal.pressed[-9:]) if by_keys else 'answers'}")
    return None


def _ends(log: str) -> str:
    """Of a long log the beginning too: of a fault that repeats itself without end only that says where from."""
    return log if len(log) < 8000 else f"{log[:5000]}\n…\n{log[-3000:]}"


def _log(home: Path) -> str:
    log = home / ".squish" / "logs" / "tui.log"
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def seeds(text: str) -> range:
    """`7`, or all from one to another: `100-130`."""
    first, _, last = text.partition("-")
    numbers = whole(first), whole(last or first)
    if numbers[0] is None or numbers[1] is None or numbers[1] < numbers[0]:
        raise refusal(text, "a seed, or two with a dash between them, such as 100-130")
    return range(numbers[0], numbers[1] + 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make monkey", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=seeds, default=seeds("1-10"))
    parser.add_argument("--seconds", type=number, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        model = Path(folder) / "model"
        model.mkdir()
        install_real(model, (MODEL, None))
        faults = 0
        for seed in given.seeds:
            home = Path(folder) / str(seed)
            shutil.copytree(model, home, symlinks=True, copy_function=os.link)
            faults += tried(seed, given.seconds, home) is not None
            sys.stdout.flush()
    print(f"{len(given.seeds)} seeds, {faults} of them with a fault")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
