"""One HTTP request of a download: where it is redirected to, who gets the token, and what an answer's status means.

Proxies (HTTPS_PROXY, NO_PROXY) and certificates (SSL_CERT_FILE) of the environment are honored by the HTTP library.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from squish.errors import ConfigError, GatedRepo, HubError

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

_REDIRECTS = 5
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Interrupted(Exception):
    """A try that failed in a way that another one may not. wait: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def require_certificates() -> None:
    """Raises ConfigError where SSL_CERT_FILE names what is no file of certificates: no connection would say so."""
    path = os.environ.get("SSL_CERT_FILE")
    if not path:
        return
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        problem = "holds no certificates"
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    else:
        return
    raise ConfigError(
        f"SSL_CERT_FILE names {path}, which {problem}.",
        hint="Let it name a file of certificates in PEM format, or unset it.",
        param="SSL_CERT_FILE",
    )


@asynccontextmanager
async def answer(
    client: AsyncClient, url: str, headers: Mapping[str, str], own: Mapping[str, str]
) -> AsyncIterator[Response]:
    """The answer behind all redirects. own: headers, with the token, that go to the first host only.

    Raises Interrupted, GatedRepo, HubError, and what the HTTP library raises.
    """
    from httpx2 import URL

    origin = target = URL(url)
    for _ in range(_REDIRECTS + 1):
        same = (target.scheme, target.host, target.port) == (origin.scheme, origin.host, origin.port)
        request = client.build_request("GET", target, headers={**headers, **(own if same else {})})
        response = await client.send(request, stream=True)
        try:
            if not response.is_redirect:
                _check_status(response, at_origin=same)
                yield response
                return
            target = response.url.join(response.headers.get("location", ""))
        finally:
            await response.aclose()
        if target.scheme not in ("http", "https") or (origin.scheme == "https" and target.scheme != "https"):
            raise HubError("The server redirects a secure download to an address that is not secure.")
    raise HubError("The server redirects without end.")


def _check_status(response: Response, *, at_origin: bool) -> None:
    """Let 200, 206 and 416 pass.

    A signed address of another host that is refused has expired: the next try gets a new one.
    """
    status = response.status_code
    if status in (200, 206, 416):
        return
    if status in _AGAIN or (status in (401, 403) and not at_origin):
        raise Interrupted(f"the server answered {status}", _retry_after(response.headers.get("retry-after")))
    if status in (401, 403):
        raise GatedRepo(f"The server refuses the download ({status}).", hint="Set HF_TOKEN to a token with access.")
    raise HubError(f"The server answered {status} for {response.url.path}.")


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
