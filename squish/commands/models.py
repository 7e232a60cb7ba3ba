"""The commands about models: pull, list, show, cp, rm, verify, prune, catalog, search.

Bodies are short, and imports stand inside them, so that a command pays for its own.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from squish import console, figures
from squish.commands.completion import complete_model, complete_source
from squish.commands.flags import Whole
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import CorruptModel, SquishError

if TYPE_CHECKING:
    from squish.hub.search import Found
    from squish.models.catalog import CatalogEntry
    from squish.models.manifest import Installed, Manifest
    from squish.models.speeds import Speed
    from squish.models.store import Store

_BITS_HELP = "What full precision is compressed to: 3, 4, 5, 6, 8, mxfp4, mixed_4_6, …, or none.  [default: 4]"


@click.command()
@click.argument("model", shell_complete=complete_source)
@click.option("--name", help="Install it under this name.")
@click.option("--force", is_flag=True, help="Install it again, even if it is installed.")
@click.option("--bits", help=_BITS_HELP)
@click.option("--group-size", type=int, help="Weights that share a scale: 32, 64 or 128.  [default: 64]")
@click.option("--keep-source", is_flag=True, help="Install the full-precision original too.")
@click.option("--measure", is_flag=True, help="Measure perplexity before and after compressing.")
@click.option("--json", "as_json", is_flag=True, help="Print events, one JSON object per line.")
def pull(model: str, bits: str | None, group_size: int | None, **options: Any) -> None:
    """Download a model, or import a .gguf file or a directory.

    \b
    squish pull llama3.1:8b
    squish pull mlx-community/Qwen3-8B-4bit
    squish pull HuggingFaceTB/SmolLM2-360M-Instruct --bits 8
    squish pull bartowski/Qwen2.5-0.5B-Instruct-GGUF:Q8_0
    squish pull ./model.gguf --name mine:7b
    """
    from squish.models import recipes

    explicit = bits is not None or group_size is not None
    recipe = recipes.recipe("4" if bits is None else bits, group_size) if explicit else recipes.DEFAULT
    compression = recipes.CompressionOptions(recipe, explicit, options.pop("keep_source"), options.pop("measure"))
    resolver.run(install(Settings.from_environment(), model, compression=compression, **options))


async def install(settings: Settings, model: str, *, as_json: bool = False, **options: Any) -> None:
    """Pull a model and show how it goes. Options are those of squish.pull.pull; name is its as_name."""
    from squish.commands.pull_output import as_lines, as_talk, stopped
    from squish.models.store import Store
    from squish.pull.events import Progress
    from squish.pull.pull import pull as pull_events

    show = as_lines() if as_json else as_talk()
    options["as_name"] = options.pop("name", None)
    last: Progress | None = None
    try:
        async with pull_events(model, settings=settings, store=Store(settings.cache_dir), **options) as events:
            async for event in events:
                show(event)
                last = event if isinstance(event, Progress) else last
    except asyncio.CancelledError:  # Ctrl-C
        stopped(last)
        raise
    except SquishError:
        console.wipe_status()
        raise


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_models(as_json: bool) -> None:
    """List installed models.

    TOK/S is the speed that `squish bench` measured last.

    \b
    squish list
    squish list --json | jq -r '.[].id'
    """
    from squish.models.speeds import speeds

    store = _store()
    models = store.installed()
    measured = speeds(Settings.from_environment().home)
    for problem in store.problems():
        console.note(f"squish: {problem.reason}")
    for each in models:
        if each.damaged:
            model = each.manifest
            console.note(f"squish: {each.damaged} of {model.id} is missing or damaged. Run: {model.pull_command}")
    if as_json:
        console.out_json([_listed_json(each) | _speed(measured.get(each.manifest.id)) for each in models])
        return
    if not models:
        console.note("No models are installed. Try: squish pull smollm2:135m")
        return
    rows = [
        (
            model.id,
            figures.size(model.size),
            "damaged" if each.damaged else model.quantization,
            f"{model.context_length:,}",
            f"{measured[model.id].decode_tps:.1f}" if model.id in measured else "",
            f"{model.installed_at:%Y-%m-%d}",
        )
        for each in models
        for model in [each.manifest]
    ]
    headers = ("NAME", "SIZE", "QUANTIZATION", "CONTEXT", "TOK/S", "INSTALLED")
    console.table(headers, rows, right=frozenset({1, 3, 4}))


def _speed(measured: Speed | None) -> dict[str, float | None]:
    return {"decode_tokens_per_s": measured.decode_tps if measured else None}


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.option(
    "--context",
    type=Whole(1),
    help="Context length, in tokens, for which to check the fit.  [default: 8192, or the model's]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(model: str, context: int | None, as_json: bool) -> None:
    """Show what is known about an installed model.

    Also whether it fits this machine, and with how long a context.

    \b
    squish show smollm2:135m
    squish show smollm2:135m --context 8192
    """
    from squish.commands import describe
    from squish.models.speeds import speeds

    installed = _store().find(model)
    speed = speeds(Settings.from_environment().home).get(installed.manifest.id)
    found = describe.describe(installed, context, speed)
    if as_json:
        console.out_json(_as_json(found.manifest) | _speed(speed) | describe.as_json(found))
        return
    for name, value in describe.lines(found):
        console.out(f"{name:<14}{value}")


@click.command("cp")
@click.argument("model", shell_complete=complete_model)
@click.argument("name")
def copy(model: str, name: str) -> None:
    """Install a model under a second name. The files are shared.

    \b
    squish cp smollm2:135m mine:latest
    """
    installed = _store().copy(model, name)
    console.note(f"{installed.manifest.id} is {model} under another name.")


@click.command("rm")
@click.argument("models", nargs=-1, required=True, shell_complete=complete_model)
@click.option("--force", is_flag=True, help="Also while a running Squish has it loaded.")
def remove(models: tuple[str, ...], force: bool) -> None:
    """Delete installed models.

    \b
    squish rm smollm2:135m
    """
    store = _store()
    for model in models:
        target = store.link_target(model)
        freed = store.remove(model, force=force)
        if target is None:
            console.note(f"{model} is deleted: {figures.size(freed)} freed.")
        else:
            console.note(f"{model} was a link, and the link is deleted. Its files stay in {target}.")


@click.command()
@click.argument("models", nargs=-1, shell_complete=complete_model)
def verify(models: tuple[str, ...]) -> int:
    """Compare every file of the models with its hash.

    Without a name, all models are checked.

    \b
    squish verify
    squish verify smollm2:135m
    """
    store = _store()
    failed: list[SquishError] = []
    for id in models or [manifest.id for manifest in store.list()]:
        try:
            store.verify(id)
            console.out(f"{id}  ok")
        except CorruptModel as error:
            failed.append(error)
            console.out(f"{id}  damaged")
            console.error(error)
    for problem in () if models else store.problems():
        failed.append(CorruptModel(problem.reason))
        console.error(failed[-1])
    return 1 if failed else 0


@click.command()
def prune() -> None:
    """Delete unfinished downloads.

    \b
    squish prune
    """
    from squish.models import unfinished

    freed = unfinished.prune(_store())
    for name, size in freed:
        console.note(f"{name}: {figures.size(size)} of an unfinished download deleted.")
    if not freed:
        console.note("Nothing to delete.")


@click.command("catalog")
@click.argument("query", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_catalog(query: str, as_json: bool) -> None:
    """List the models that have a short name.

    \b
    squish catalog qwen
    """
    from squish.models import catalog

    words = query.lower().split()
    found = [each for each in catalog.entries() if all(word in f"{each.id} {each.repo}".lower() for word in words)]
    if as_json:
        console.out_json([asdict(entry) for entry in found])
    elif not found:
        near = ", ".join(catalog.nearest(query))
        console.note(f"Nothing in the catalog matches {query!r}." + (f" Names like it: {near}." if near else ""))
    else:
        headers = ("NAME", "PARAMETERS", "BITS", "SIZE", "CONTEXT", "LICENSE", "REPOSITORY")
        console.table(headers, [_catalog_row(entry) for entry in found], right=frozenset({1, 2, 3, 4}))


@click.command()
@click.argument("query", required=False, default="")
@click.option(
    "--context",
    type=Whole(1),
    default=8192,
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
        console.note("Without a GPU caches are float32, and so are weights that are not quantized: MEMORY counts that.")
    elif here.float32:
        console.note(
            "Without a GPU and a C compiler all is float32 where that fits: MEMORY counts 4 bytes a parameter."
        )


def _found_json(model: Found) -> dict[str, Any]:
    values = asdict(model)
    del values["shape"]
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


def _catalog_row(entry: CatalogEntry) -> tuple[str, ...]:
    return (
        entry.id,
        _parameters(entry.parameters),
        f"{entry.bits:g}",
        figures.size(entry.parameters * entry.bits / 8),
        f"{entry.context:,}",
        entry.license,
        entry.repo,
    )


def _parameters(count: int) -> str:
    return figures.parameters(count) if count else "?"


def _as_json(model: Manifest) -> dict[str, Any]:
    return {
        "id": model.id,
        "size": model.size,
        "quantization": model.quantization,
        "architecture": model.architecture,
        "parameters": model.parameters,
        "context_length": model.context_length,
        "source": model.source,
        "revision": model.revision,
        "license": model.license,
        "installed_at": model.installed_at.isoformat(),
    }


def _listed_json(installed: Installed) -> dict[str, Any]:
    return _as_json(installed.manifest) | {"damaged": installed.damaged is not None}


def _store() -> Store:
    from squish.models.store import Store

    return Store(Settings.from_environment().cache_dir)


COMMANDS = (pull, list_models, show, copy, remove, verify, prune, list_catalog, search)
