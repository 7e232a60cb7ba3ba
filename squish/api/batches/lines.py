"""The lines of a batch, in OpenAI's shapes: what is asked, one request a line, and what came of it. Pure."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import msgspec

from squish.api import bodies
from squish.errors import InvalidInput

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
LONGEST_ID = 512
_PREFIX = "batch_req_"
_BEGINNING = b'{"id":"'  # of each line that an output is given


class Item(msgspec.Struct, frozen=True):
    """A line of the input. custom_id: unique in its file. body: what the endpoint at url takes."""

    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"

    @property
    def mark(self) -> str:
        """16 hexadecimal digits that tell this request from another one with the same custom_id.

        Spaces and the order of the body's fields do not matter.
        """
        body = msgspec.json.encode(msgspec.json.decode(self.body), order="sorted")
        return hashlib.sha256(b"\n".join((self.url.encode(), body))).hexdigest()[:16]


class Tokens(msgspec.Struct):
    """What a batch has cost. cached: of those of the prompts, the ones that were not computed again."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def add(self, other: Tokens) -> None:
        self.prompt += other.prompt
        self.cached += other.cached
        self.completion += other.completion


class LineResponse(msgspec.Struct, frozen=True):
    status_code: int
    request_id: str
    body: msgspec.Raw


class LineError(msgspec.Struct, frozen=True):
    code: str
    message: str


class Line(msgspec.Struct, frozen=True):
    """A line of the output.

    id: the result of `line_id`. error: why there is no response. A request that was refused has a response, whose
    status code says so, and no error.
    """

    id: str
    custom_id: str
    response: LineResponse | None = None
    error: LineError | None = None

    @property
    def is_answer(self) -> bool:
        return self.response is not None and self.response.status_code == 200

    @property
    def is_settled(self) -> bool:
        """Whether trying again would change nothing: it is answered, or what it asks for is wrong."""
        return self.response is not None and self.response.status_code < 500


class SettledLine(msgspec.Struct, frozen=True):
    """What is remembered of a line of an output: its place in the file, and the tokens it cost, not its text."""

    id: str
    custom_id: str
    is_answer: bool
    start: int
    end: int
    tokens: Tokens


class LineProblem(msgspec.Struct, frozen=True):
    """What is wrong with a line of the input; the first line is 1."""

    code: str
    message: str
    param: str | None
    line: int


def line_id(item: Item) -> str:
    """A new id for the answer to a request; it contains the request's mark."""
    return f"{_PREFIX}{item.mark}{secrets.token_hex(4)}"


def answers(line: SettledLine, mark: str) -> bool:
    """Whether it is the answer to the request with this mark."""
    return line.id.startswith(f"{_PREFIX}{mark}")


def decode_line(text: bytes) -> Line:
    """A line of an output. Raises DecodeError."""
    return msgspec.json.decode(text, type=Line)


def items(file: Iterable[bytes]) -> Iterator[Item]:
    """The requests of a file that `problems` found none in. Empty lines are skipped."""
    for text in file:
        if text.strip():
            yield msgspec.json.decode(text, type=Item)


def problems(file: Iterable[bytes], endpoint: str | None = None, most: int = 20) -> list[LineProblem]:
    """What is wrong with the lines of an input, at most so many. endpoint: the one that all must go to."""
    found: list[LineProblem] = []
    seen: dict[str, int] = {}
    empty = True
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        empty = False
        try:
            _check(bodies.decode(text, Item), number, seen, endpoint)
        except InvalidInput as error:
            found.append(LineProblem("invalid_value", error.message, error.param, number))
            if len(found) == most:
                break
    if empty:
        found.append(LineProblem("empty_file", "The file has no requests.", None, 1))
    return found


def _check(item: Item, number: int, seen: dict[str, int], endpoint: str | None) -> None:
    if not 1 <= len(item.custom_id) <= LONGEST_ID:
        raise InvalidInput(f"custom_id must have 1 to {LONGEST_ID} characters.", param="custom_id")
    if (first := seen.setdefault(item.custom_id, number)) != number:
        raise InvalidInput(f"custom_id is the same as in line {first}; it must be unique.", param="custom_id")
    if item.method != "POST":
        raise InvalidInput("method must be POST.", param="method")
    if item.url not in ENDPOINTS:
        raise InvalidInput(f"url must be one of {', '.join(ENDPOINTS)}.", param="url")
    if endpoint is not None and item.url != endpoint:
        raise InvalidInput(f"url must be {endpoint}, the endpoint of the batch.", param="url")
    if not bytes(item.body).lstrip().startswith(b"{"):
        raise InvalidInput("body must be an object.", param="body")


class _Cached(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None


class _Answered(msgspec.Struct):
    usage: _Usage | None = None


def _tokens(line: Line) -> Tokens:
    """What an answer says it has cost; nothing where it says nothing that can be read."""
    try:
        answered = msgspec.json.decode(line.response.body, type=_Answered) if line.response else _Answered()
    except msgspec.DecodeError:
        return Tokens()
    used = answered.usage or _Usage()
    return Tokens(used.prompt_tokens, (used.prompt_tokens_details or _Cached()).cached_tokens, used.completion_tokens)


def _is_half(text: bytes) -> bool:
    """Whether it is the beginning of a line that a kill cut off; a power cut can have put zeros behind it.

    A line that somebody else wrote, and did not end, is not: it would be deleted.
    """
    begun = text.rstrip(b"\0")
    if not (begun.startswith(_BEGINNING) or _BEGINNING.startswith(begun)):
        return False
    try:
        msgspec.json.decode(begun)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return not text.endswith(b"\n")
    return False


def settled(file: BinaryIO) -> tuple[list[SettledLine], bool]:
    """What an output holds that need not be done again, and whether it holds anything else, such as half a line.

    Raises InvalidInput, which goes on from the name of the file, where a line of it is not one of an output.
    """
    kept: list[SettledLine] = []
    clean, end = True, 0
    for number, text in enumerate(file, 1):
        start, end = end, end + len(text)
        try:
            line = decode_line(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if not _is_half(text):
                raise InvalidInput(f"line {number} is not an answer of a batch.") from None
            clean = False
            continue
        if line.is_settled and text.endswith(b"\n"):
            kept.append(SettledLine(line.id, line.custom_id, line.is_answer, start, end, _tokens(line)))
        else:
            clean = False
    return kept, clean
