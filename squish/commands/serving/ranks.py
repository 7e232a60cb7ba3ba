"""`--ranks N`: several processes of this machine hold each model between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from squish.commands.flags import Whole

if TYPE_CHECKING:
    from squish.ipc.group import Ranks

_MOST = 16

Command = TypeVar("Command", bound=Callable[..., Any])


def ranks_option(command: Command) -> Command:
    """The option, as `ranks`."""
    text = "Split each model across this many processes on this machine."
    return click.option("--ranks", type=Whole(1, _MOST), default=1, help=f"{text}  [default: 1]")(command)


def here(ranks: int) -> Ranks | None:
    """Where they run; None for a single process."""
    if ranks == 1:
        return None
    from squish.ipc.local_ranks import LocalRanks

    return LocalRanks(ranks)
