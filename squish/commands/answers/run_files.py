"""`squish run --file … --url …`: what goes along with a prompt. Whoever names something on the command line wants it
sent; only a private address that an address leads to is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squish import console, figures
from squish.attachments.folders import Folder
from squish.attachments.gathering import Gatherer
from squish.attachments.mentions import Mention, look
from squish.chats.messages import Attachment
from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.system.working_directory import working_directory
from squish.text import clean

if TYPE_CHECKING:
    from squish.attachments.web import PageAddress

Files = tuple[Attachment, ...]


async def read(settings: Settings, paths: Sequence[str], urls: Sequence[str]) -> Files:
    """The text of files, documents, folders and pages. Raises InvalidInput naming the one that cannot go along."""
    gatherer, agreed = Gatherer(offline=settings.offline), _Agreed()
    found = [*(_file(each) for each in paths), *(_page(each) for each in urls)]
    return await gatherer.gather(found, agreed)


def _file(name: str) -> Mention:
    path = Path(name).expanduser()
    if path.is_dir():
        return Mention(name, path.resolve(), "folder")
    found = look(name, working_directory())
    if found is None or found.missing or found.kind == "url":
        hint = "A web page is given with --url." if found and found.kind == "url" else None
        raise InvalidInput(f"There is no file {name}.", hint=hint, param="--file")
    return found


def _page(address: str) -> Mention:
    return Mention(address, Path(address), "url")


class _Agreed:
    """What was named on the command line is sent."""

    async def folder(self, folder: Folder) -> bool:
        said = f"{clean(folder.name)}: {len(folder.files)} files, {figures.size(folder.size)}"
        console.dim(f"{said}; left out: {clean(folder.without)}" if folder.without else said)
        return True

    async def page(self, address: PageAddress) -> bool:
        if not address.private:
            return True
        from squish.commands.answers.run_tools import asker

        where = ", ".join(address.numbers) or "behind your proxy"
        ask = asker()
        if ask is None:
            message = f"{address.host} is a private address ({where}), and nobody is here to be asked."
            raise InvalidInput(message, hint=f"Fetch it yourself: curl -s {address.url} | squish run …", param="--url")
        console.note(f"{clean(address.host)} is a private address ({where}): on this machine or in your network.")
        if (await ask("Fetch it? y yes, anything else not: ")).lower() in ("y", "yes"):
            return True
        raise InvalidInput(f"{address.url} was not fetched.", param="--url")
