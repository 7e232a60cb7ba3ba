"""What a browser sends, as keys and pastes. Knows no app.

A page of `squish web` sends each key and each paste in one packet, so that nothing has to be waited for.
"""

from __future__ import annotations

from codecs import getincrementaldecoder

from textual.drivers._byte_stream import ByteStream
from textual.drivers.web_driver import WebDriver, _ExitInput
from textual.message import Message

from squish.tui.terminal.keyboard import PasteParser, hand_on


class PacketReader:
    """Keys and pastes from packets, each of which holds whole ones."""

    def __init__(self, *, debug: bool = False) -> None:
        self._parser = PasteParser(debug)
        self._decode = getincrementaldecoder("utf-8")("replace").decode

    def read(self, packet: bytes) -> list[Message]:
        """An escape at the end was a key: what belongs to one would be in the same packet."""
        messages = [*self._parser.feed(text)] if (text := self._decode(packet)) else []
        return [*messages, *self._parser.all_came()] if self._parser.waits else messages


class BrowserDriver(WebDriver):
    """Textual's own waits for the rest of an escape as if it came through a terminal, and takes a long paste character
    by character.
    """

    def run_input_thread(self) -> None:
        """Hand on what comes until the app ends."""
        packets, reader = ByteStream(), PacketReader(debug=self._debug)
        try:
            for data in self._input_reader:
                for kind, payload in packets.feed(data) if data else ():
                    if kind == "D":
                        hand_on(self, reader.read(payload), self.exit_event)
                    else:
                        self._on_meta(kind, payload)
        except _ExitInput:
            pass
        finally:
            self._input_reader.close()

    def send_message(self, message: Message) -> None:
        self._app.post_message(message)
