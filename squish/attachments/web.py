"""A page of the web as text: where its address leads is looked up first, so that the user can be asked; then it is
fetched from there and nowhere else, within limits of size and time.

It sends no cookie and no password. To be imported where a page is fetched: the HTTP library takes its time to load.
"""

from __future__ import annotations

import asyncio
import ipaddress
import tempfile
from dataclasses import dataclass
from string import digits
from typing import BinaryIO

from httpx2 import URL, AsyncClient, HTTPError, InvalidURL, Response, Timeout

from squish.attachments import documents, html
from squish.attachments.documents import DocumentKind
from squish.attachments.limits import MAX_DOCUMENT, MAX_SECONDS, MAX_TEXT
from squish.download.client import open_client, proxy_for
from squish.errors import InvalidInput
from squish.text import clean

_REDIRECTS = 5
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # the last four bytes are an IPv4 address
_HEADERS = {"User-Agent": "squish", "Accept": "text/html,text/*,application/pdf,application/json;q=0.9,*/*;q=0.5"}
_DOCUMENTS: dict[str, DocumentKind] = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
}
_TEXT = ("application/json", "application/xml", "application/javascript", "application/x-yaml", "application/toml")


@dataclass(frozen=True, slots=True)
class PageAddress:
    """Where a page is. numbers: the host's own addresses, empty where a proxy looks them up.

    private: it is on this machine or in a network that the rest of the world does not see.
    """

    url: URL
    numbers: tuple[str, ...]
    private: bool

    @property
    def host(self) -> str:
        return self.url.host


async def look_up(address: str) -> PageAddress:
    """Where an address leads. Nothing is sent there. Raises InvalidInput."""
    try:
        url = URL(address).copy_with(fragment=None)
    except (InvalidURL, UnicodeError, ValueError):
        raise InvalidInput(f"{address} is not an address that can be fetched.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidInput(f"{address} is not an http or https address.")
    if url.userinfo:
        raise InvalidInput("An address with a user name or password in it is not fetched.")
    literal = _literal(url.host)
    if proxy_for(url) is not None and not (literal and literal.is_loopback):
        return PageAddress(url, (), is_private(literal) if literal else _sounds_private(url.host))
    if literal:
        return PageAddress(url, (str(literal),), is_private(literal))
    try:
        async with asyncio.timeout(MAX_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port or 443, type=1)
    except (OSError, UnicodeError, TimeoutError):
        raise InvalidInput(f"{url.host} cannot be reached: its name cannot be looked up.") from None
    numbers = tuple(dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found))
    return PageAddress(url, numbers, any(is_private(ipaddress.ip_address(each)) for each in numbers))


async def fetch(address: PageAddress, *, may_be_private: bool) -> str:
    """The text of the page there, clean. may_be_private: whether the user agreed to a private address.

    A redirect is followed, but not to a private address that the user has not seen. Raises InvalidInput.
    """
    asked = str(address.url)
    try:
        async with asyncio.timeout(MAX_SECONDS):
            for _ in range(_REDIRECTS + 1):
                if address.private and not may_be_private:
                    raise InvalidInput(f"{asked} leads to the private address {address.host}.")
                # An address that was looked up here is asked itself; only a proxy looks up a name on its own.
                async with open_client(Timeout(MAX_SECONDS), proxies=not address.numbers) as client:
                    further = await _get(client, address)
                if isinstance(further, tuple):
                    break
                before, address = address, await look_up(further)
                may_be_private = may_be_private and address.url.netloc == before.url.netloc
            else:
                raise InvalidInput(f"{asked} redirects too often.")
    except TimeoutError:
        raise InvalidInput(f"{asked} did not arrive within {MAX_SECONDS} s.") from None
    except HTTPError as error:
        raise InvalidInput(f"{asked} cannot be fetched: {str(error) or type(error).__name__}.") from None
    file, kind, charset = further
    with file:
        return await _text(file, kind, charset, asked)


async def _get(client: AsyncClient, address: PageAddress) -> str | tuple[BinaryIO, str, str]:
    """Where it leads on, or the content with its kind and charset."""
    url, extensions = address.url, dict[str, str]()
    if address.numbers:  # the address that was looked up, not one that the name has got meanwhile
        url = url.copy_with(host=address.numbers[0])
        extensions = {"sni_hostname": address.host}
    headers = _HEADERS | {"Host": address.url.netloc.decode("ascii")}
    async with client.stream("GET", url, headers=headers, extensions=extensions) as response:
        if response.is_redirect and "location" in response.headers:
            return _further(address.url, response.headers["location"])
        if response.status_code >= 400:
            raise InvalidInput(f"{address.url} answered {response.status_code}.")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return await _body(response, address), kind, response.charset_encoding or ""


def _further(url: URL, location: str) -> str:
    try:
        return str(url.join(location))
    except (InvalidURL, UnicodeError, ValueError):
        raise InvalidInput(f"{url} leads to something that is not an address.") from None


async def _body(response: Response, address: PageAddress) -> BinaryIO:
    file, size = tempfile.TemporaryFile(), 0  # noqa: SIM115  it is handed on open
    try:
        async for piece in response.aiter_bytes():
            size += len(piece)
            if size > MAX_DOCUMENT:
                raise InvalidInput(f"{address.url} has more than {MAX_DOCUMENT >> 20} MiB.")
            file.write(piece)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


async def _text(file: BinaryIO, kind: str, charset: str, asked: str) -> str:
    if document := _DOCUMENTS.get(kind):
        try:
            return await documents.text_of(file, document, charset)
        except InvalidInput as error:
            raise InvalidInput(f"{asked}: {error.message}.") from error
    if kind.startswith("image/"):
        raise InvalidInput(f"{asked} is an image, and no model here can see.")
    if not (kind.startswith("text/") or kind in _TEXT or kind.endswith(("+json", "+xml")) or not kind):
        raise InvalidInput(f"{asked} is not text but {clean(kind)[:60]}.")
    data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise InvalidInput(f"{asked} has more than {MAX_TEXT >> 10} KiB of text.")
    if b"\x00" in data[:MAX_TEXT] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidInput(f"{asked} is not text.")
    return clean(html.decoded(data, charset))


def is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is on this machine or in a network that is not the whole world's."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_private(inner)
    return not address.is_global or address.is_multicast


def _sounds_private(host: str) -> bool:
    """Of a name that only a proxy looks up: one of a local network, or a number in a spelling of its own (`127.1`)."""
    name = host.lower().rstrip(".")
    last = name.rpartition(".")[2]
    return (
        "." not in name or last in ("local", "internal", "localhost") or last.startswith("0x") or not last.strip(digits)
    )


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
