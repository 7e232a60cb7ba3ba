"""Who may ask: the API key, and on a server without one, the Host and Origin headers. `/health` and `/ready` need none.

OpenAI's clients send the key as a bearer token, Anthropic's in `x-api-key`, and those that take an address with a
password in it as basic authentication.

A key is compared by its hash (clients/keys.py) and never logged.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from squish.api.access import cors
from squish.api.errors import Refused
from squish.system.loopback import is_loopback
from squish.text import clean

OPEN_PATHS = ("/health", "/health/", "/ready", "/ready/")

_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal")


_DESKTOP = (
    "app", "tauri", "wails", "capacitor", "ionic", "vscode-webview", "vscode-file",
    "chrome-extension", "moz-extension", "safari-web-extension",
)  # fmt: skip
"""Schemes of pages that programs and browser extensions bring along: no web site can have them."""


def keys_in(authorization: str | None, api_key: str | None) -> list[str]:
    """The keys that a request carries: in the values of Authorization and of X-Api-Key."""
    return [*_in_authorization(authorization or ""), *([api_key.strip()] if api_key else [])]


def no_key(authorization: str | None, api_key: str | None) -> Refused:
    """What a request is answered (401) that has no key of this server."""
    what = "Incorrect API key provided." if authorization or api_key else "No API key provided."
    message = f"{what} Send it in the header: Authorization: Bearer <key>."
    return Refused(401, "invalid_api_key", message, {"www-authenticate": "Bearer"})


def check_host(header: str | None, bound: str) -> None:
    """Raises Refused (403) when a server for this machine only is asked under a name of the public DNS.

    A web page can make its own name resolve to 127.0.0.1 and so speak to us from the user's browser. It cannot do that
    with an address, a name without a dot, or one of the suffixes that the public DNS does not serve.
    """
    if header is None or not is_loopback(bound):
        return
    name = _host_name(header)
    if "." not in name or name.endswith(_PRIVATE_SUFFIXES) or _is_address(name) or name == bound.lower():
        return
    message = "This server answers requests for this machine only. Set SQUISH_API_KEY to serve it under another name."
    raise Refused(403, "host_not_allowed", message)


def check_origin(origin: str | None, host: str | None, allowed: Sequence[str]) -> None:
    """Raises Refused (403) when a page of a foreign web site asks a server without a key.

    A page cannot read the answer, but it can make the model work. Pages of this machine, of this server itself and of
    programs with a scheme of their own (app://, vscode-webview://) may ask. A file, and a page in a sandbox, which any
    site can make, have the origin null.
    """
    if origin is None or cors.allows(allowed, origin):
        return
    try:
        parts = urlsplit(origin)
        name = (parts.hostname or "").lower()
    except ValueError:
        raise origin_refused(origin) from None
    if parts.scheme in _DESKTOP:
        return
    if parts.scheme in ("http", "https"):
        if name.endswith(".localhost") or is_loopback(name):
            return
        if host is not None and parts.netloc.lower() == host.strip().lower():
            return
    raise origin_refused(origin)


def origin_refused(origin: str) -> Refused:
    """What a page is answered whose origin is not allowed."""
    shown = clean(origin[:100]).strip() or "(empty)"
    message = f"Pages of the origin {shown} may not use this server. Start it with --cors-origin {shown} to allow them."
    if not origin.strip():
        message = "A request with an empty Origin is refused. Leave the header out."
    return Refused(403, "origin_not_allowed", message)


def _in_authorization(header: str) -> list[str]:
    """The key in a value of Authorization: a bearer token, or the password of a user who can have any name."""
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return [value]
    if scheme.lower() != "basic":
        return []
    try:
        return [b64decode(value, validate=True).decode().partition(":")[2]]
    except (binascii.Error, ValueError):
        return []


def _host_name(header: str) -> str:
    header = header.strip().lower()
    if header.startswith("["):
        return header[: header.find("]") + 1]
    return header.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
