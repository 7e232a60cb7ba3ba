"""The latest responses, kept in memory, and the conversations that they ended. It knows no HTTP.

A response belongs to the key that asked for it: to another key it is as unknown as one that never was.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from squish.api.responses.answers import Response
from squish.errors import InvalidInput
from squish.generation import Message

MOST = 256
MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """messages: the whole conversation without instructions, the answer included. size: bytes of all this as JSON.

    key: the name of the key it belongs to, if the client had one.
    """

    response: Response
    messages: tuple[Message, ...]
    size: int
    key: str | None


class ResponseStore:
    """The latest responses; the oldest go first. most: of them. most_bytes: of all of them, as JSON."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: dict[str, StoredResponse] = {}
        self._bytes = 0

    def keep(self, response: Response, messages: tuple[Message, ...], key: str | None = None) -> None:
        """Keep a response, unless it alone is too large."""
        size = len(msgspec.json.encode(response)) + len(msgspec.json.encode(messages))
        if size > self._most_bytes:
            return
        self._kept[response.id] = StoredResponse(response, messages, size, key)
        self._bytes += size
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def find(self, id: str, key: str | None = None) -> StoredResponse | None:
        kept = self._kept.get(id)
        return kept if kept is not None and kept.key == key else None

    def delete(self, id: str, key: str | None = None) -> bool:
        """Whether it was there."""
        if self.find(id, key) is None:
            return False
        self._drop(id)
        return True

    def messages(self, id: str, key: str | None = None) -> tuple[Message, ...]:
        """The conversation that a response ended. Raises InvalidInput, naming the field, for one that is not kept."""
        kept = self.find(id, key)
        if kept is None:
            hint = "Send the whole conversation in input. " + self.bounds
            message = f"previous_response_id {id[:64]!r} is not kept here."
            raise InvalidInput(message, hint=hint, param="previous_response_id")
        return kept.messages

    def _drop(self, id: str) -> None:
        self._bytes -= self._kept.pop(id).size

    @property
    def bounds(self) -> str:
        """For people: which responses are kept."""
        return (
            f"The latest {self._most} responses are kept, up to {self._most_bytes >> 20} MB, until the server ends; "
            "none with store: false."
        )
