"""Reads what a message names, and asks first where it is a folder or an address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import msgspec

from squish.attachments.limits import MAX_ALL, MAX_FILES, MAX_TEXT
from squish.attachments.mentions import Mention, mentions
from squish.attachments.text_files import NotText, decode
from squish.chats.messages import Attachment
from squish.errors import InvalidInput, Offline
from squish.files import read_regular
from squish.system.loopback import is_loopback

if TYPE_CHECKING:
    from squish.attachments.folders import Folder
    from squish.attachments.web import PageAddress


class Consent(Protocol):
    """Who is asked before a folder is sent, and before something is fetched. False: it stays a word of the message.

    What it raises ends the gathering.
    """

    async def folder(self, folder: Folder) -> bool: ...

    async def page(self, address: PageAddress) -> bool: ...


class _Key(msgspec.Struct, frozen=True):
    path: Path
    changed: int
    size: int


class Gatherer:
    """Documents that were read are kept while they do not change, the latest few of them."""

    kept = 8

    def __init__(self, *, offline: bool = False) -> None:
        self._offline = offline
        self._read: dict[_Key, str] = {}

    async def gather(
        self, found: Iterable[Mention], consent: Consent, kept: Iterable[Attachment] = ()
    ) -> tuple[Attachment, ...]:
        """The text of what was found. kept: of the message that this is another version of.

        Raises InvalidInput for what cannot go along.
        """
        before = {each.name: each for each in kept}
        attached = list[Attachment]()
        for mention in found:
            if mention.missing or (mention.kind == "url" and mention.name in before):
                attached += _kept(mention.name, before)
            elif mention.problem:
                raise InvalidInput(f"{mention.name}: {mention.problem}.")
            elif mention.kind == "folder":
                folder = await self._folder(mention)
                attached += folder.files if await consent.folder(folder) else []
            elif mention.kind == "url":
                text = await self._page(mention.name, consent)
                attached += [Attachment(mention.name, text)] if text is not None else []
            else:
                attached.append(Attachment(mention.name, await self.text_of(mention)))
        if sum(len(each.text.encode()) for each in attached) > MAX_ALL:
            raise InvalidInput(f"All attachments together may have {MAX_ALL >> 10} KiB of text.")
        return tuple(attached)

    async def of_draft(self, text: str, directory: Path) -> tuple[Attachment, ...]:
        """The files and documents that a draft names, for counting: without what cannot be read or is asked for."""
        found = list[Attachment]()
        for mention in mentions(text, directory):
            if mention.kind in ("text", "pdf", "docx", "html") and not mention.problem:
                with suppress(InvalidInput):
                    found.append(Attachment(mention.name, await self.text_of(mention)))
        return tuple(found)

    async def text_of(self, mention: Mention) -> str:
        """The text of a file or a document. Raises InvalidInput."""
        if mention.kind == "text":
            return read_text(mention)
        assert mention.kind in ("pdf", "docx", "html")
        from squish.attachments import documents

        try:
            with mention.path.open("rb") as file:
                status = mention.path.stat()
                key = _Key(mention.path, status.st_mtime_ns, status.st_size)
                if key not in self._read:
                    text = await documents.text_of(file, mention.kind)
                    while len(self._read) >= self.kept:
                        del self._read[next(iter(self._read))]
                    self._read[key] = text
        except InvalidInput as error:
            raise InvalidInput(f"{mention.name}: {error.message}.") from error
        except OSError as error:
            raise InvalidInput(f"{mention.name}: {error.strerror}.") from error
        return self._read[key]

    async def _folder(self, mention: Mention) -> Folder:
        """A folder with the text of its documents; those that cannot be read, or have no room, are named."""
        from squish.attachments import folders

        folder = await asyncio.to_thread(folders.read, mention.path, mention.name)
        for each in folder.documents:
            try:
                text = await self.text_of(each)
            except InvalidInput as error:
                folder.not_read[each.name] = error.message.removeprefix(f"{each.name}: ").rstrip(".")
                continue
            if folder.size + len(text.encode()) > MAX_ALL or len(folder.files) == MAX_FILES:
                folder.not_read[each.name] = "no room left in the message"
            else:
                folder.add(each.name, text)
        folder.files.sort(key=lambda each: each.name)
        folder.require_files()
        return folder

    async def _page(self, address: str, consent: Consent) -> str | None:
        if self._offline and not is_loopback(urlsplit(address).hostname or ""):
            raise Offline(f"{address} is not fetched: SQUISH_OFFLINE is set.", hint="Unset SQUISH_OFFLINE.")
        from squish.attachments import web

        found = await web.look_up(address)
        if not await consent.page(found):
            return None
        return await web.fetch(found, may_be_private=found.private)


def read_text(mention: Mention) -> str:
    """The text of a text file. Raises InvalidInput."""
    try:
        return decode(read_regular(mention.path, MAX_TEXT, follow=True))
    except NotText as error:
        raise InvalidInput(f"{mention.name} is {error}.") from error
    except OSError as error:
        raise InvalidInput(f"{mention.name}: {error.strerror}.") from error


def _kept(name: str, before: dict[str, Attachment]) -> list[Attachment]:
    """What went along under a name that is not there any more: a file, a page, or the files of a folder."""
    return [each for key, each in before.items() if key == name or key.startswith(f"{name.rstrip('/')}/")]
