"""`squish run --connect URL`: which of a server's models is asked."""

from __future__ import annotations

import click

from squish import console
from squish.commands.serving.connect import address_and_key
from squish.config.settings import Settings
from squish.errors import ModelNotFound
from squish.models.manifest import Manifest
from squish.remote.address import short
from squish.remote.connected import Connected, connect


async def open_there(settings: Settings, url: str, variable: str | None, model: str) -> tuple[Connected, str]:
    """The server, and the id of the model there: the one that is meant, or where model is empty the only one.

    Raises InvalidInput for an address or a model that cannot be used, RemoteError, ModelNotFound.
    """
    address, key = address_and_key(url, variable, settings)
    with console.Status().on_terminal(f"connecting to {short(address)}…"):
        backend = await connect(settings, address, key)
    try:
        found = backend.store.find(model) if model else _only(backend)
        found.require_chat()
    except BaseException:
        await backend.close()
        raise
    if not model:
        console.note(f"{found.id} at {backend.name}")
    return backend, found.id


def _only(backend: Connected) -> Manifest:
    found = [each for each in backend.store.list() if each.kind == "chat"]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelNotFound(f"{backend.name} has no model that chats.", hint="Install one where it runs.")
    names = ", ".join(each.id for each in found[:8])
    raise click.UsageError(f"Missing argument 'MODEL'. {backend.name} has {names}{', …' if len(found) > 8 else ''}.")
