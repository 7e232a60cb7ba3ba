"""`squish search`: models that could be installed, in a table or as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from squish import console, figures
from squish.commands.flags import Whole
from squish.config.settings import Settings
from squish.download import resolver
from squish.memory.fit import USUAL_CONTEXT

if TYPE_CHECKING:
    from squish.hub.search import Found


@click.command()
@click.argument("query", required=False, default="")
@click.option(
    "--context",
    type=Whole(1),
    default=USUAL_CONTEXT,
    show_default=True,
    help="Context length, in tokens, for which to check the fit.",
)
@click.option("--fits", is_flag=True, help="Only what fits this machine.")
@click.option(
    "--sort",
    type=click.Choice(("downloads", "likes", "updated", "size", "parameters", "name")),
    help="Order of the rows.  [default: the catalog, then MLX, safetensors, GGUF, each by downloads]",
)
@click.option("--limit", type=Whole(1, 100), default=20, show_default=True, help="Maximum number of rows.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def search(query: str, context: int, fits: bool, sort: str | None, limit: int, as_json: bool) -> None:
    """Search the catalog and the Hub for models that MLX can run.

    Without a query: what is popular and fits this machine.

    \b
    squish search "qwen coder" --fits
    squish search --sort updated --limit 5
    """
    from squish.errors import HubError
    from squish.hub import search as searching

    settings = Settings.from_environment()
    wanted = searching.SearchQuery(query, context, fits or not query, sort, limit)
    try:
        with console.Status().on_terminal("searching…"):
            found = resolver.run(searching.everywhere(wanted, settings))
    except HubError as error:
        console.error(error)
        console.note("Only the catalog and the installed models were searched.")
        found = searching.offline(wanted, settings)
    if as_json:
        console.out_json([_found_json(model) for model in found])
    elif not found:
        console.note(f"Nothing matches {query!r}." if query else "Nothing fits this machine.")
    else:
        _show_found(found, context)


def _show_found(found: list[Found], context: int) -> None:
    headers = (
        "NAME",
        "KIND",
        "PARAMS",
        "BITS",
        "DISK",
        "MEMORY",
        "FITS",
        "DOWNLOADS",
        "LIKES",
        "UPDATED",
        "REPOSITORY",
    )
    console.table(headers, [_search_row(model) for model in found], right=frozenset({2, 3, 4, 5, 7, 8}))
    from squish.memory import machine

    here = machine.read()
    console.note(
        f"MEMORY is for a context of {context:,} tokens. This machine has {figures.size(here.total)} of {here.kind} "
        f"for models, {figures.size(here.free)} of it free. tight: fits once other programs make room. ~: a guess."
    )
    if here.float32 and here.packed:
        console.note(
            "Without a GPU weights that are not quantized are float32, and so are caches whose bits cannot be chosen: "
            "MEMORY counts that."
        )
    elif here.float32:
        console.note(
            "Without a GPU and a C compiler everything is float32 if that fits: MEMORY counts 4 bytes per parameter."
        )


def _found_json(model: Found) -> dict[str, Any]:
    values = asdict(model)
    del values["shape"], values["kv_bits"]
    values |= {key: values[key] or None for key in ("parameters", "size", "memory")}
    return values | {"exact": model.shape is not None and model.shape.exact}


def _search_row(model: Found) -> tuple[str, ...]:
    return (
        model.name,
        model.kind,
        _parameters(model.parameters),
        f"{model.bits:g}" if model.bits else "?",
        figures.size(model.size) if model.size else "?",
        ("" if model.shape and model.shape.exact else "~") + figures.size(model.memory) if model.memory else "?",
        model.fits or "?",
        "" if model.downloads is None else f"{model.downloads:,}",
        "" if model.likes is None else f"{model.likes:,}",
        model.updated or "",
        model.repo + (" (license to accept)" if model.gated else ""),
    )


def _parameters(count: int) -> str:
    return figures.parameters(count) if count else "?"
