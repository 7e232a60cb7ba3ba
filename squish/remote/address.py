"""The address of a server as people write it: `localhost:8080`, `http://mac.local:11435/v1`. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from squish.errors import InvalidInput
from squish.text import clean

_PATHS = ("/chat/completions", "/models", "/v1")


def parse(text: str) -> str:
    """The address below which the API lies, without `/v1`. Raises InvalidInput saying what to write."""
    written = text.strip()
    address = written if "://" in written else f"http://{written}"
    shown = clean(written)[:120]
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise _unusable(f"{shown!r} is not an address.") from None
    if parts.username is not None or parts.password is not None:
        problem = "The address has a user name or a password in it, which others on this machine can read."
        raise InvalidInput(problem, hint="Put the key into SQUISH_API_KEY, or name its variable: --key-env VAR.")
    if parts.scheme not in ("http", "https"):
        raise _unusable(f"{parts.scheme}:// addresses cannot be asked.")
    host = parts.hostname or ""
    if not host or clean(address) != address or any(each.isspace() for each in address):
        raise _unusable(f"{shown!r} is not an address.")
    if parts.query or parts.fragment:
        raise _unusable("The address has a ? or a # in it.")
    path = parts.path.rstrip("/")
    for end in _PATHS:
        path = path.removesuffix(end).rstrip("/")
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{path}"


def short(base: str) -> str:
    """The address as a line of the screen has it: `mac.local:11435`."""
    return base.partition("://")[2]


def _unusable(problem: str) -> InvalidInput:
    return InvalidInput(problem, hint="Write it like http://127.0.0.1:8080 or https://host/path.", param="--connect")
