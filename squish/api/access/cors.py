"""Cross-origin requests of browsers: off unless origins are named. Cookies are never allowed with them.

Pure: header values in, headers out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ANY = "*"

_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
_MAX_AGE = "600"  # seconds for which a browser need not ask again


def allows(allowed: Sequence[str], origin: str | None) -> bool:
    """Whether pages of this origin may read answers."""
    return origin is not None and (ANY in allowed or origin.lower() in allowed)


def answer_headers(allowed: Sequence[str], origin: str | None) -> dict[str, str]:
    """What an answer carries. It varies by origin as soon as some origin is allowed, so that caches keep them apart."""
    if not allowed:
        return {}
    if not allows(allowed, origin):
        return {"vary": "Origin"}
    assert origin is not None
    return {
        "access-control-allow-origin": ANY if ANY in allowed else origin,
        "access-control-expose-headers": "X-Request-Id, Request-Id, Retry-After",
        "vary": "Origin",
    }


def preflight_headers(allowed: Sequence[str], origin: str, headers: str | None) -> dict[str, str] | None:
    """The answer to a browser that asks before it sends; None where the answer is no."""
    if not allows(allowed, origin):
        return None
    found = {"access-control-allow-methods": "GET, HEAD, POST, DELETE", "access-control-max-age": _MAX_AGE}
    if headers and len(headers) <= 2000 and _HEADER_NAMES.fullmatch(headers.strip()):
        found["access-control-allow-headers"] = headers.strip()  # a * would not cover Authorization
    return found
