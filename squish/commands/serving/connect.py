"""`--connect URL`: the server whose models are used, and the key that it gets."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.remote.address import parse

KEY_VARIABLE = "SQUISH_API_KEY"

Command = TypeVar("Command", bound=Callable[..., Any])


def connect_options(command: Command) -> Command:
    """The options of a command that asks models, as `connect` and `key_env`."""
    where = "Ask a model on a server: another Squish, or any server with the OpenAI API."
    key = f"The variable that has the server's key.  [default: {KEY_VARIABLE}]"
    command = click.option("--key-env", metavar="VAR", help=key)(command)
    return click.option("--connect", metavar="URL", help=where)(command)


def require_sensible(connect: str | None, key_env: str | None, draft: str | None, ranks: int) -> None:
    """Raises UsageError for options about how a model is loaded beside an address, where the server has loaded it, and
    for the variable of a key that nobody gets."""
    if connect is None and key_env is not None:
        raise click.UsageError("--key-env needs --connect URL.")
    for option, given in (("--draft", draft is not None), ("--ranks", ranks > 1)):
        if connect is not None and given:
            raise click.UsageError(f"{option} is set where the model runs, not with --connect.")


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
    if not key and settings.api_key and _is_of_this_home(base, settings):
        key = settings.api_key
    return base, key


def _is_of_this_home(base: str, settings: Settings) -> bool:
    from squish.system.servers import servers

    return any(each.url == base for each in servers(settings.home))
