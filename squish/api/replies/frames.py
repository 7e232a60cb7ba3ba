"""How a stream is cut into pieces. Pure."""

from __future__ import annotations

import msgspec


class ServerSentEvents:
    """`data:` lines of JSON, as OpenAI streams chats and completions."""

    content_type = "text/event-stream; charset=utf-8"
    end = b"data: [DONE]\n\n"

    def data(self, value: msgspec.Struct) -> bytes:
        return b"data: " + msgspec.json.encode(value) + b"\n\n"

    def comment(self, text: str) -> bytes:
        return f": {text}\n\n".encode()


class NamedEvents:
    """Server-sent events that have a name besides: the tag of their Struct."""

    content_type = "text/event-stream; charset=utf-8"
    end = b""

    def data(self, value: msgspec.Struct) -> bytes:
        tag = value.__struct_config__.tag
        if not isinstance(tag, str):
            raise TypeError(f"{type(value).__name__} has no tag to name its event by")
        return b"event: %b\ndata: %b\n\n" % (tag.encode(), msgspec.json.encode(value))

    def comment(self, text: str) -> bytes:
        return f": {text}\n\n".encode()


class JsonLines:
    """A JSON text a line. There are no comments: a dialect keeps the connection alive with values."""

    content_type = "application/x-ndjson"
    end = b""

    def data(self, value: msgspec.Struct) -> bytes:
        return msgspec.json.encode(value) + b"\n"

    def comment(self, text: str) -> bytes:
        return b""
