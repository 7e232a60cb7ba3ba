"""What the header of an HTTP/1.1 request has to be. Pure: bytes in; a header in plain spelling, or a refusal, out.

Strict, because a proxy between a client and us may read a doubtful header differently than we do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from squish.api.errors import Refused

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.([01])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*(.*?)[ \t]*", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.%]+\]|[0-9A-Za-z._~-]+)(?::[0-9]{0,5})?")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_ONCE = (
    "host", "authorization", "x-api-key", "origin", "expect",
    "content-length", "transfer-encoding", "content-type", "content-encoding",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What can be read of a header that is refused. fields: (name, value) pairs; whole: all of it was there."""

    method: str
    target: bytes
    fields: list[tuple[str, str]]
    whole: bool


def check_head(head: bytes) -> bytes:
    """A header, given and returned without its last empty line, as one that has no two spellings: names in lower case,
    no space around values, codings and connection options in lower case.

    Raises Refused: 400, 415 for a compressed body, 417 for Expect.
    """
    line, *lines = head.split(b"\r\n")
    version = _REQUEST_LINE.fullmatch(line)
    if version is None:
        raise _bad("The first line is not an HTTP/1.1 request, like: GET /v1/models HTTP/1.1")
    fields: dict[str, bytes] = {}
    plain = [line]
    options: set[bytes] = set()
    for each in lines:
        name, value = _field(each)
        if name in fields and name in _ONCE:
            raise _bad(f"The header {name.title()} appears twice; send it once.")
        fields[name] = value
        if name == "connection":
            options.update(option.strip().lower() for option in value.split(b","))
        else:
            plain.append(name.encode() + b": " + (value.lower() if name in ("transfer-encoding", "expect") else value))
    modern = version[3] == b"1"
    _check_host(fields.get("host"), needed=modern)
    _check_body(fields, modern)
    if fields.get("expect", b"100-continue").lower() != b"100-continue":
        raise Refused(417, "expectation_failed", "The only Expect that this server knows is: 100-continue")
    kept = b"close" not in options and (modern or b"keep-alive" in options)
    if kept is not modern:
        plain.append(b"connection: keep-alive" if kept else b"connection: close")
    return b"\r\n".join(plain)


def glimpse(received: bytes, most: int) -> Glimpse:
    """What can be read of the header that these bytes begin with, of which at most so many are looked at."""
    head, end, _ = received[:most].partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    if not end and lines:
        lines.pop()  # it may go on
    words = line.split(b" ")
    method = words[0].decode() if len(words) > 1 and re.fullmatch(_TOKEN, words[0]) else "NONE"
    target = words[1] if method != "NONE" and re.fullmatch(rb"/[!-~]*", words[1]) else b"*"
    found = [_FIELD.fullmatch(each) for each in lines]
    fields = [(each[1].decode().lower(), each[2].decode(errors="surrogateescape")) for each in found if each]
    return Glimpse(method, target, fields, bool(end))


def check_chunk(line: bytes) -> None:
    """Raise Refused for what should be the size of a chunk: a line with the line break before it, none after it."""
    if line[:2] != b"\r\n" or not _CHUNK_SIZE.fullmatch(line[2:]):
        raise _bad("The body is not in chunks: each begins with its size in hexadecimal digits, on a line of its own.")


def _field(line: bytes) -> tuple[str, bytes]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise _bad(f"{_shown(line)} is not a header. Write its name, a colon without a space before it, and its value.")
    if _CONTROL.search(found[2]):
        raise _bad(f"The header {_shown(found[1])} has a control character in its value.")
    return found[1].decode().lower(), found[2]


def _check_host(host: bytes | None, *, needed: bool) -> None:
    if host is None and needed:
        raise _bad("The header Host is missing; HTTP/1.1 needs it, like: Host: localhost:11435")
    if host is not None and not _HOST.fullmatch(host):
        raise _bad(f"The header Host is {_shown(host)}; it has to be a name or an address, and a port if there is one.")


def _check_body(fields: dict[str, bytes], modern: bool) -> None:
    length, transfer = fields.get("content-length"), fields.get("transfer-encoding")
    if length is not None and transfer is not None:
        raise _bad("Content-Length and Transfer-Encoding exclude each other; send one of them.")
    if length is not None and not re.fullmatch(rb"[0-9]{1,18}", length):
        raise _bad(f"The header Content-Length is {_shown(length)}; it has to be the number of bytes of the body.")
    if transfer is not None and transfer.lower() != b"chunked":
        raise _bad("The only Transfer-Encoding that this server reads is: chunked")
    if transfer is not None and not modern:
        raise _bad("HTTP/1.0 has no Transfer-Encoding; send Content-Length.")
    encoding = fields.get("content-encoding", b"identity")
    if encoding.lower() != b"identity":
        message = f"A body with Content-Encoding {_shown(encoding)} is not read. Send it without compression."
        raise Refused(415, "unsupported_content_encoding", message)


def _shown(value: bytes) -> str:
    return repr(value[:60].decode("ascii", "replace"))


def _bad(message: str) -> Refused:
    return Refused(400, "bad_request", message)
