"""How a stream is cut into pieces. Pure."""

from __future__ import annotations

import msgspec


class ServerSentEvents:
    """`data:` lines of JSON, as OpenAI streams them."""

    content_type = "text/event-stream; charset=utf-8"
    end = b"data: [DONE]\n\n"

    def data(self, value: msgspec.Struct) -> bytes:
        return b"data: " + msgspec.json.encode(value) + b"\n\n"

    def comment(self, text: str) -> bytes:
        return f": {text}\n\n".encode()
