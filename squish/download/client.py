"""The HTTP client of every connection that Squish makes: the environment's proxies and certificates.

A proxy that cannot be used is an error only for an address that would go through it. The module is to be imported where
a connection is made: the HTTP library takes its time to load.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

from httpx2 import (
    URL,
    AsyncBaseTransport,
    AsyncClient,
    AsyncHTTPTransport,
    DecodingError,
    InvalidURL,
    Limits,
    ProxyError,
    Request,
    Response,
    Timeout,
    create_ssl_context,
)

from squish.errors import ConfigError

_LIMITS = Limits(keepalive_expiry=2.0)
"""Servers close idle connections after five seconds at the earliest: a request must not meet that moment."""
_HINT = "Name an http://, https:// or socks5:// proxy, unset it, or put the host that is asked into NO_PROXY."


@dataclass(frozen=True, slots=True)
class Proxy:
    """variable: the setting that names the proxy, for people; address: as httpx2 takes it."""

    variable: str
    address: str


def open_client(timeout: Timeout, *, proxies: bool = True) -> AsyncClient:
    """A client that follows no redirect. Raises ConfigError where SSL_CERT_FILE names no certificates.

    proxies: False goes directly, whatever the environment says.
    """
    return AsyncClient(transport=_Routes(certificates(), proxies), timeout=timeout, follow_redirects=False)


class _Routes(AsyncBaseTransport):
    """Sends each request directly, or through the proxy for its address."""

    def __init__(self, trusted: ssl.SSLContext, proxies: bool) -> None:
        self._trusted, self._proxies = trusted, proxies
        self._transports: dict[str | None, AsyncBaseTransport] = {}

    async def handle_async_request(self, request: Request) -> Response:
        response = await self._sent(request)
        if "," in response.headers.get("content-encoding", ""):
            # Each layer may unpack to a thousand times its size, and a piece is unpacked before anybody counts it.
            await response.aclose()
            raise DecodingError("the answer is packed several times", request=request)
        return response

    async def _sent(self, request: Request) -> Response:
        proxy = proxy_for(request.url) if self._proxies else None
        address = None if proxy is None else proxy.address
        if address not in self._transports:
            self._transports[address] = _transport(proxy, self._trusted)
        transport = self._transports[address]
        if address is not None and address.startswith("socks5"):
            return await _through_socks(transport, request)
        return await transport.handle_async_request(request)

    async def aclose(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()


def proxy_for(url: URL, settings: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy that the environment, or on macOS the system, names for an address.

    settings: proxies by scheme, with the exceptions under "no"; by default those of this process.
    """
    found = getproxies() if settings is None else settings
    scheme = next((each for each in (url.scheme, "all") if found.get(each)), None)
    if scheme is None or _is_exempt(url, found.get("no", "")) or (settings is None and proxy_bypass(url.host)):
        return None
    address = found[scheme].strip()
    address = address if "://" in address else f"http://{address}"
    kind, _, rest = address.partition("://")
    # GNOME writes socks:// for SOCKS 5.
    return Proxy(_variable(scheme), f"socks5://{rest}" if kind.lower() == "socks" else address)


def _is_exempt(url: URL, exceptions: str) -> bool:
    """Whether NO_PROXY covers an address: *, a host, its domain, an address or a network, each with or without port."""
    host = url.host.lower()
    for item in (each.strip().lower() for each in exceptions.split(",")):
        name = item.partition("://")[2] or item
        if name == "*" or name in (f"{host}:{url.port}", f"[{host}]"):
            return True
        name = name.removeprefix("*").removeprefix(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False):
                return True
        except ValueError:  # a name, not an address
            continue
    return False


def _variable(scheme: str) -> str:
    name = f"{scheme}_proxy"
    return next((each for each in (name, name.upper()) if os.environ.get(each)), "The system's proxy setting")


def _transport(proxy: Proxy | None, trusted: ssl.SSLContext) -> AsyncBaseTransport:
    if proxy is None:
        return AsyncHTTPTransport(verify=trusted, limits=_LIMITS)
    try:
        return AsyncHTTPTransport(verify=trusted, proxy=proxy.address, limits=_LIMITS)
    except ImportError as error:
        problem = f"{proxy.variable} names a SOCKS proxy, for which the Python package socksio is missing."
        raise ConfigError(problem, hint="Run: pip install 'httpx2[socks]'", param=proxy.variable) from error
    except (ValueError, InvalidURL) as error:
        problem = f"{proxy.variable} names a proxy that cannot be used: {proxy.address}."
        raise ConfigError(problem, hint=_HINT, param=proxy.variable) from error


async def _through_socks(transport: AsyncBaseTransport, request: Request) -> Response:
    """Send a request through a SOCKS proxy.

    The library leaves the connection open where the handshake fails, and stumbles over a server that does not speak
    SOCKS: it is closed here, and the stumbling is a ProxyError.
    """
    from socksio.exceptions import SOCKSError

    connected = []

    async def trace(event: str, details: dict[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            connected.append(details["return_value"])

    request.extensions = {**request.extensions, "trace": trace}
    try:
        return await transport.handle_async_request(request)
    except BaseException as error:
        for stream in connected:
            await stream.aclose()
        if isinstance(error, SOCKSError | AssertionError | ValueError | IndexError):
            raise ProxyError("the proxy does not answer as a SOCKS 5 proxy does") from error
        raise


def certificates() -> ssl.SSLContext:
    """What connections trust, read again only where it has changed: that takes longer than most requests.

    Raises ConfigError where SSL_CERT_FILE does not name a file of certificates: no connection would say so.
    """
    path = os.environ.get("SSL_CERT_FILE")
    try:
        file = os.stat(path or ssl.get_default_verify_paths().openssl_cafile)  # noqa: PTH116
        written = file.st_mtime_ns, file.st_size
    except OSError:
        written = None  # that a file is not there is said where it is read
    try:
        return _read(path, os.environ.get("SSL_CERT_DIR"), written)
    except ssl.SSLError:
        if not path:
            raise
        problem = "holds no certificates"
    except OSError as error:
        if not path:
            raise
        problem = f"cannot be read: {error.strerror or error}"
    raise ConfigError(
        f"SSL_CERT_FILE names {path}, which {problem}.",
        hint="Let it name a file of certificates in PEM format, or unset it.",
        param="SSL_CERT_FILE",
    )


@lru_cache(maxsize=4)
def _read(file: str | None, folder: str | None, written: tuple[int, int] | None) -> ssl.SSLContext:
    """What the HTTP library trusts in this environment, which the arguments stand for."""
    return create_ssl_context()
