"""`squish catalog`: the models that have a short name; whether the Hub still has them so; a newer catalog."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from squish import console, figures
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import SquishError

if TYPE_CHECKING:
    from squish.models.catalog import CatalogEntry

_AT_ONCE = 8  # entries that are checked at the same time


class _Listing(click.Group):
    """A group whose first word need not be a command: then it is `list`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        known = {*self.commands, *context.help_option_names}
        return super().parse_args(context, args if args and args[0] in known else ["list", *args])


@click.group(cls=_Listing)
def catalog() -> None:
    """List the models that have a short name, or check them.

    `squish catalog qwen` lists those with a word.

    \b
    squish catalog
    squish catalog check
    """


@catalog.command("list")
@click.argument("query", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_catalog(query: str, as_json: bool) -> None:
    """List the models that have a short name.

    \b
    squish catalog list qwen
    """
    from squish.models import catalog

    if missing := catalog.unfetched(Settings.from_environment()):
        console.note(missing)
    found = _matching(query)
    if as_json:
        console.out_json([asdict(entry) | {"size": entry.size} for entry in found])
    elif not found:
        near = ", ".join(catalog.nearest(query))
        console.note(f"Nothing in the catalog matches {query!r}." + (f" Names like it: {near}." if near else ""))
    else:
        headers = ("NAME", "KIND", "TOOLS", "PARAMETERS", "BITS", "SIZE", "CONTEXT", "LICENSE", "REPOSITORY")
        console.table(headers, [_row(entry) for entry in found], right=frozenset({3, 4, 5, 6}))


@catalog.command()
@click.argument("query", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def check(query: str, as_json: bool) -> int:
    """Compare the catalog with the Hub: repositories, sizes, shapes, bits, context, license, tools.

    No weights are downloaded. The exit code is 1 where something differs.

    \b
    squish catalog check
    squish catalog check qwen3
    """
    settings = Settings.from_environment()
    entries = _matching(query)
    found = resolver.run(_check(entries, settings))
    wrong = {id: problems for id, problems in found.items() if problems}
    if as_json:
        console.out_json([{"id": id, "problems": list(problems)} for id, problems in found.items()])
        return 1 if wrong else 0
    for id, problems in found.items():
        for problem in problems or ("ok",):
            console.out(f"{id}  {problem}")
    console.note(f"{len(found)} checked, {len(wrong)} {'differs' if len(wrong) == 1 else 'differ'} from the Hub.")
    return 1 if wrong else 0


@catalog.command()
def update() -> None:
    """Fetch the newer catalog whose address is set as `catalog`.

    It is checked first. A catalog only says which repositories names mean, and describes them.

    \b
    squish catalog update
    """
    from squish.pull import newer_catalog

    count = resolver.run(newer_catalog.update(Settings.from_environment()))
    console.note(f"The catalog names {count:,} {'model' if count == 1 else 'models'}.")


async def _check(entries: list[CatalogEntry], settings: Settings) -> dict[str, tuple[str, ...]]:
    from squish.pull.check import problems

    gate, status, found = asyncio.Semaphore(_AT_ONCE), console.Status(), dict[str, tuple[str, ...]]()

    began = time.monotonic()

    async def one(entry: CatalogEntry) -> None:
        async with gate:
            found[entry.id] = await problems(entry, settings)
            status.wait(f"{len(found)} of {len(entries)}", began)

    try:
        async with asyncio.TaskGroup() as group:
            for entry in entries:
                group.create_task(one(entry))
    except* SquishError as errors:
        raise errors.exceptions[0] from None
    finally:
        status.clear()
    return {entry.id: found[entry.id] for entry in entries}


def _matching(query: str) -> list[CatalogEntry]:
    from squish.models import catalog

    return catalog.matching(query)


def _row(entry: CatalogEntry) -> tuple[str, ...]:
    return (
        entry.id,
        entry.kind,
        "yes" if entry.tools else "",
        figures.parameters(entry.parameters),
        f"{entry.bits:g}",
        figures.size(entry.size),
        f"{entry.context:,}",
        entry.license,
        entry.repo,
    )
