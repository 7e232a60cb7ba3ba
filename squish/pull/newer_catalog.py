"""Fetching the newer catalog that a setting names by its address: checked before it takes the place of the last one."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from squish.config.settings import Settings
from squish.errors import ConfigError, HubError, InvalidInput
from squish.files import write_whole
from squish.hub.ask import HubRequest, ask, require_online
from squish.models import user_catalog
from squish.models.catalog import CatalogKind, is_address, newer_at


async def update(settings: Settings) -> int:
    """Fetch the catalog; how many models it names. What is there stays where the new one is wrong.

    Raises InvalidInput where no address is set, Offline, HubUnreachable, HubError, ConfigError.
    """
    address = settings.catalog
    if not address or not is_address(address):
        problem = "No address of a catalog is set." if not address else f"{address} is a file, and is read as it is."
        hint = 'Write catalog = "https://…" into config.toml, or set SQUISH_CATALOG.'
        raise InvalidInput(problem, hint=hint, param="catalog")
    require_online(settings)
    request = HubRequest("the catalog", most=user_catalog.LARGEST + 1)
    answer = await ask(replace(settings, hub_endpoint=address), request, address, {})
    if answer.status != 200:
        raise HubError(f"{address} answered {answer.status}.", hint="Check the address.")
    if len(answer.body) > user_catalog.LARGEST:
        raise ConfigError(f"The catalog {address} has more than {user_catalog.LARGEST:,} bytes.", param="catalog")
    found = user_catalog.decoded(answer.body, address, get_args(CatalogKind))
    place = newer_at(settings)
    assert place is not None
    settings.home.mkdir(parents=True, exist_ok=True)
    write_whole(place, answer.body)
    for other in settings.home.glob(f"catalog-{'[0-9a-f]' * 16}.toml"):  # of an address that was set before
        if other != place:
            other.unlink(missing_ok=True)
    return len(found)
