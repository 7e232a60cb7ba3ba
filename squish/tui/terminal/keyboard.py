"""What the terminal sends, as keys and pastes: a paste arrives whole, and an escape key as soon as it can be told from
the beginning of another key. Knows no app.
"""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import signal
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import wait
from functools import partial
from threading import Event

from textual import constants
from textual._xterm_parser import XTermParser
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Key, Paste
from textual.message import Message

_WITH_ALT = {"\r": "alt+enter", "\x08": "alt+backspace"}  # sent in a form that Textual does not know
_PASTE, _PASTED = "\x1b[200~", "\x1b[201~"
_ESCAPE = "an escape before other keys"
_REST = re.compile(r"\[(?:[A-IOZ]|[<?\d][\d;:]*\$?[A-Za-z~])")  # of what was cut after its escape
_LINE_ENDS = re.compile("[\r\n]")
_TYPED, _TYPED_LINES = 200, 3  # characters and ends of lines that are not typed within one read
_READS = 10_000  # that one paste takes at most: input may never end
_CHECK = 0.1  # seconds after which a thread that waits for input looks whether it is to end
_LOCAL = 0.025  # seconds, as ncurses programs on this machine's own terminal have it


def silence(environ: Mapping[str, str]) -> float:
    """Seconds without input after which an escape was a key by itself.

    A terminal sends a key in one piece. Only a connection cuts it: there, and where the user has set ESCDELAY, it is as
    long as Textual has it.
    """
    return constants.ESCAPE_DELAY if {"ESCDELAY", "SSH_CONNECTION", "SSH_TTY"} & environ.keys() else _LOCAL


class PasteParser(XTermParser):
    """Takes a paste as one text, whatever is in it; Textual's own ends it at the first escape character.

    It is far quicker, too: Textual looks at every character by itself.
    """

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._pasting = False
        self._pasted = ""
        self._gave_up = False
        self._passed = ""  # the last characters that Textual's parser got, in which a paste may have begun

    def feed(self, data: str) -> Iterable[Message]:
        if not data:  # the end of all input
            yield from super().feed(data)
        if self._gave_up and _REST.match(data):
            data = "\x1b" + data
        self._gave_up = False
        while data:
            if self._pasting:
                self._pasted, mark, data = (self._pasted + data).partition(_PASTED)
                if mark:
                    self._pasting = False
                    yield Paste(self._pasted.replace("\x00", ""))
                continue
            known, before = len(self._passed), self._passed + data
            at = before.find(_PASTE)
            if at < 0:
                self._passed = before[1 - len(_PASTE) :]
                yield from map(_escape, super().feed(data))
                return
            # Textual begins a paste when the mark was cut: what it takes for one ends at once and is left out.
            keys = data[: at - known] if at >= known else _PASTE[known - at :] + _PASTED
            parsed = super().feed(keys) if keys else ()
            yield from (_escape(each) for each in parsed if not isinstance(each, Paste))
            data, self._pasting, self._pasted, self._passed = before[at + len(_PASTE) :], True, "", ""

    @property
    def between_keys(self) -> bool:
        """Whether what comes next is neither a part of a paste nor of a key."""
        begun = any(_PASTE.startswith(self._passed[at:]) for at in range(len(self._passed)))
        return not (self._pasting or begun or self.waits)

    @property
    def waits(self) -> bool:
        """Whether an escape came that is a key by itself, or the beginning of another one."""
        return self._timeout_time is not None

    def give_up(self) -> Iterable[Message]:
        """No more came. What comes all the same is not taken for letters."""
        self._gave_up = True
        yield from self.all_came()

    def all_came(self) -> Iterable[Message]:
        """No more belongs to what came: an escape at its end was a key."""
        self._timeout_time = 0.0
        yield from self.tick()

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[Key]:
        """Alt with a key is sent as escape and that key. Where Textual knows no such key, they were two keys, and it
        would drop the escape.

        An escape key alone is asked for only where it stood before keys that came quickly: Textual makes "^" of it.
        """
        if sequence == "\x1b" and not alt:
            yield Key(_ESCAPE, None)
            return
        keys = list(super()._sequence_to_key_events(sequence, alt))
        if alt and sequence in _WITH_ALT:
            keys = [Key(_WITH_ALT[sequence], None)]
        if alt and keys and not keys[0].key.startswith("alt+"):
            yield Key("escape", "\x1b")
        yield from keys


def _escape(message: Message) -> Message:
    return Key("escape", "\x1b") if isinstance(message, Key) and message.key == _ESCAPE else message


class InputReader:
    """ready: whether there is input within so many seconds. read: what there is, or nothing at the end of all input.

    ended: whether the terminal has gone; from then on it is always ready, with nothing.
    """

    def __init__(
        self, ready: Callable[[float], bool], read: Callable[[], bytes], silence: float, *, debug: bool = False
    ) -> None:
        self._ready, self._read, self._silence = ready, read, silence
        self._parser = PasteParser(debug)
        self._decode = getincrementaldecoder("utf-8")("replace").decode
        self.ended = False

    def messages(self) -> Iterable[Message]:
        """Wait a moment; what has come by then."""
        waits = self._parser.waits
        # The second look: this thread may have had no turn for longer than it wanted to wait.
        if self._ready(self._silence if waits else _CHECK) or (waits and self._ready(0)):
            if text := self._more():
                yield from self._parser.feed(self._marked(text))
        elif waits:
            yield from self._parser.give_up()

    def _more(self) -> str:
        try:
            data = self._read()
        except OSError:
            data = b""
        self.ended = not data
        return self._decode(data)

    def _marked(self, text: str) -> str:
        """Lines that nobody types at once, with the marks of a paste: not every terminal sends them, and without them
        each line would be sent as a message.
        """
        if len(text) < _TYPED or len(_LINE_ENDS.findall(text)) < _TYPED_LINES or "\x1b" in text:
            return text
        if not self._parser.between_keys:
            return text
        pieces = [text]
        while len(pieces) < _READS and self._ready(self._silence) and (more := self._more()):
            pieces.append(more)
        return "".join((_PASTE, *pieces, _PASTED))

    def close(self) -> None:
        for _ in self._parser.feed(""):
            pass


def hand_on(driver: Driver, messages: Sequence[Message], ended: Event) -> None:
    """Wake the loop once for all of them, and read no more before it has them. ended: nobody takes them any more."""

    async def take() -> None:
        for each in messages:
            driver.process_message(each)

    taken = asyncio.run_coroutine_threadsafe(take(), driver._loop)
    while not (taken.done() or ended.is_set()):
        wait((taken,), _CHECK)


class QuickDriver(LinuxDriver):
    """Textual's own looks for the rest of an escape ten times a second, however soon it is to give up. And it wakes the
    loop for each key, through the pipe that signals come through: full of many keys, it loses SIGTERM.
    """

    _is_stopping = False

    def run_input_thread(self) -> None:
        """Hand on what comes until the app ends."""
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            reader = InputReader(
                lambda seconds: bool(selector.select(seconds)),
                lambda: os.read(self.fileno, 4096),
                silence(os.environ),
                debug=self._debug,
            )
            while not (reader.ended or self.exit_event.is_set()):
                if messages := list(reader.messages()):
                    hand_on(self, messages, self.exit_event)
            reader.close()

    def send_message(self, message: Message) -> None:
        self._app.post_message(message)

    def _sigtstp_application(self, *_: object) -> None:
        """Stop between two steps of the loop: a signal comes also while the queue to the writer of the terminal is
        locked, and what takes the terminal back or lets go of it waits for that lock.
        """
        self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._is_stopping = True
        try:
            super()._sigtstp_application()
        finally:
            self._is_stopping = False

    def _sigcont_application(self, *_: object) -> None:
        """Before anything else is drawn, if it was stopped there; otherwise between two steps of the loop as well."""
        if self._is_stopping:
            self._go_on()
        else:
            self._loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        """Take the terminal back after a stop, and draw all of it again.

        Textual lets go of the terminal before SIGTSTP stops it. What SIGSTOP stopped has not: taken twice, its keys
        would go to two readers, and at the end it would be left as it is while the app runs.
        """
        if not self._auto_restart:
            return
        if self._is_in_background():  # continued by the shell's `bg`
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        if not self._must_signal_resume:
            self._must_signal_resume = True
            self.suspend_application_mode()
        self.resume_application_mode()
        self._loop.call_soon_threadsafe(partial(self._app.refresh, layout=True))

    def _is_in_background(self) -> bool:
        try:
            return os.tcgetpgrp(self.fileno) != os.getpgrp()
        except OSError:  # no terminal, or none any more
            return False
