"""`--connect URL`: the server whose models are used, and the key that it gets."""

from __future__ import annotations

import os

from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.remote.address import parse
from squish.system import servers

KEY_VARIABLE = "SQUISH_API_KEY"


def address_and_key(url: str, variable: str | None, settings: Settings) -> tuple[str, str]:
    """Where to ask, and with which key: that of the variable, or for a server of this home the one that it was given.

    Raises InvalidInput for what is not an address, and for a named variable that is not set.
    """
    base = parse(url)
    key = os.environ.get(variable or KEY_VARIABLE, "").strip()
    if variable is not None and not key:
        raise InvalidInput(
            f"The variable {variable[:80]} is not set.", hint=f"export {variable[:80]}=…", param="--key-env"
        )
    if not (key.isascii() and key.isprintable()):
        problem = f"{variable or KEY_VARIABLE} has characters that no key can have."
        raise InvalidInput(problem, hint="Was it copied whole?", param="--key-env")
    if not key and settings.api_key and any(each.url == base for each in servers.servers(settings.home)):
        key = settings.api_key
    return base, key
