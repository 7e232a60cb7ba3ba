"""Errors of the HTTP library in words, and what of them is a proxy's fault. It knows the environment's proxies."""

from __future__ import annotations

import ssl

from httpx2 import URL, ConnectError, ConnectTimeout, HTTPError, InvalidURL, ProxyError, RemoteProtocolError

from squish.download.client import Proxy, proxy_for
from squish.errors import RemoteError, without_credentials
from squish.remote.address import short
from squish.system.loopback import is_loopback
from squish.text import clean

_NO_PROXY = "If that server is reached without it, put its host into NO_PROXY."


def is_here(base: str) -> bool:
    """Whether an address is one of this machine alone, for which no proxy is ever meant."""
    return is_loopback(URL(base).host)


def failure(error: HTTPError | InvalidURL, base: str, seconds: float, *, streaming: bool) -> RemoteError:
    """What to say for an error that a request met. base: of the server. seconds: waited for a connection.

    streaming: an answer had begun.
    """
    name = short(base)
    if isinstance(error, InvalidURL):
        return RemoteError(f"{name} cannot be asked: its address is not valid.")
    proxy = None if is_here(base) else proxy_for(URL(base))
    if isinstance(error, ProxyError) and proxy is not None:
        return _of_proxy(proxy, name, str(error))
    if isinstance(error, ConnectError | ConnectTimeout) and proxy is not None and not _cause(error):
        problem = f"The proxy {_shown(proxy)}, which {proxy.variable} names, cannot be reached."
        return RemoteError(problem, hint=_NO_PROXY)
    if isinstance(error, ConnectTimeout):
        hint = f"If it does not speak HTTPS, connect to http://{name}." if base.startswith("https:") else None
        return RemoteError(f"{name} did not answer within {seconds:.0f} s.", hint=hint)
    if isinstance(error, ConnectError):
        return _unreachable(error, name)
    why = str(error) or type(error).__name__
    foreign = isinstance(error, RemoteProtocolError) and ("without sending" in why or "illegal" in why)
    if foreign and not streaming and base.startswith("http://"):
        problem = f"{name} does not answer as an HTTP server does."
        return RemoteError(problem, hint=f"If it speaks HTTPS, connect to https://{name}.")
    if streaming:
        return RemoteError(f"{name} broke off its answer.", hint="Has the server ended? Try again.")
    https = f" If it speaks HTTPS, connect to https://{name}." if base.startswith("http://") else ""
    return RemoteError(f"{name} closed the connection.", hint=f"Has the server ended?{https}")


def wants_password(base: str) -> RemoteError:
    """For status 407, which only a proxy answers."""
    proxy = proxy_for(URL(base))
    which = f"The proxy {_shown(proxy)}, which {proxy.variable} names," if proxy else "A proxy on the way"
    return RemoteError(f"{which} wants a user name and a password (407).", hint=_NO_PROXY)


def _of_proxy(proxy: Proxy, name: str, said: str) -> RemoteError:
    why = " ".join(clean(said).split())[:120]
    problem = f"The proxy {_shown(proxy)}, which {proxy.variable} names, does not connect to {name}: {why}."
    return RemoteError(problem, hint=_NO_PROXY)


def _shown(proxy: Proxy) -> str:
    return clean(without_credentials(proxy.address))[:120]


def _cause(error: BaseException) -> ssl.SSLError | None:
    """The fault of TLS behind an error, if it is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _unreachable(error: ConnectError, name: str) -> RemoteError:
    cause = _cause(error)
    why = str(cause or error)
    if "CERTIFICATE_VERIFY_FAILED" in why:
        problem = f"The certificate of {name} cannot be verified."
        return RemoteError(problem, hint="Let SSL_CERT_FILE name the certificate of who issued it.")
    if cause is not None or "SSL" in why:
        return RemoteError(f"{name} does not speak HTTPS.", hint=f"Connect to http://{name}.")
    if "Name or service" in why or "nodename" in why or "resolution" in why or "getaddrinfo" in why:
        return RemoteError(f"{name} cannot be reached: its name cannot be looked up.", hint="Check the address.")
    return RemoteError(f"Nothing answers at {name}.", hint="Is the server running, and the port right?")
