"""What the header of an HTTP/1.1 request has to be. Pure: bytes in, a refusal out.

Strict, because whoever stands between a client and us may read a doubtful header in another way than we do.
"""

from __future__ import annotations

import re

from squish.api.errors import Refused

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(_TOKEN + rb" [!-~]+ HTTP/1\.([01])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*(.*?)[ \t]*", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.%]+\]|[0-9A-Za-z._~-]+)(?::\d{0,5})?")
_ONCE = ("host", "authorization", "origin", "content-length", "transfer-encoding", "content-type", "content-encoding")


def check_head(head: bytes) -> None:
    """Raise Refused for a header, given without its last empty line: 400, 415 for a compressed body, 417 for Expect."""
    line, *lines = head.split(b"\r\n")
    version = _REQUEST_LINE.fullmatch(line)
    if version is None:
        raise _bad("The first line is no HTTP/1.1 request, like: GET /v1/models HTTP/1.1")
    fields: dict[str, bytes] = {}
    for each in lines:
        name, value = _field(each)
        if name in fields and name in _ONCE:
            raise _bad(f"The header {name.title()} is there twice; send it once.")
        fields[name] = value
    _check_host(fields.get("host"), needed=version[1] == b"1")
    _check_body(fields)
    if fields.get("expect", b"100-continue").lower() != b"100-continue":
        raise Refused(417, "expectation_failed", "The only Expect that this server knows is: 100-continue")


def _field(line: bytes) -> tuple[str, bytes]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise _bad(f"{_shown(line)} is no header. Write its name, a colon without a space before it, and its value.")
    if _CONTROL.search(found[2]):
        raise _bad(f"The header {_shown(found[1])} has a control character in its value.")
    return found[1].decode().lower(), found[2]


def _check_host(host: bytes | None, *, needed: bool) -> None:
    if host is None and needed:
        raise _bad("The header Host is missing; HTTP/1.1 needs it, like: Host: localhost:11435")
    if host is not None and not _HOST.fullmatch(host):
        raise _bad(f"The header Host is {_shown(host)}; it has to be a name or an address, and a port if there is one.")


def _check_body(fields: dict[str, bytes]) -> None:
    length, transfer = fields.get("content-length"), fields.get("transfer-encoding")
    if length is not None and transfer is not None:
        raise _bad("Content-Length and Transfer-Encoding exclude each other; send one of them.")
    if length is not None and not re.fullmatch(rb"\d{1,18}", length):
        raise _bad(f"The header Content-Length is {_shown(length)}; it has to be the number of bytes of the body.")
    if transfer not in (None, b"chunked"):
        raise _bad("The only Transfer-Encoding that this server reads is: chunked")
    encoding = fields.get("content-encoding", b"identity")
    if encoding.lower() != b"identity":
        message = f"A body with Content-Encoding {_shown(encoding)} is not read. Send it without compression."
        raise Refused(415, "unsupported_content_encoding", message)


def _shown(value: bytes) -> str:
    return repr(value[:60].decode("ascii", "replace"))


def _bad(message: str) -> Refused:
    return Refused(400, "bad_request", message)
