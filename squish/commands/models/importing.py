"""`squish import`: models of other programs, listed, or installed without copying where that is possible."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click

from squish import console, figures
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import InvalidInput, ModelNotFound, SquishError
from squish.pull import neighbors
from squish.pull.neighbors import Neighbor, Program

_PROGRAMS: tuple[Program, ...] = get_args(Program)


@click.command("import")
@click.argument("names", nargs=-1)
@click.option("--from", "program", type=click.Choice(_PROGRAMS), help="The program whose models to import.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--force", is_flag=True, help="Import again what is installed already.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array; with --dry-run.")
def import_models(names: tuple[str, ...], program: Program | None, dry_run: bool, force: bool, as_json: bool) -> int:
    """Use models of LM Studio, Hugging Face and Ollama.

    Safetensors models are linked and nothing is copied; GGUF files are imported. The other program's files are never
    changed. Without NAMES, all models of the program are imported; without --from either, they are only listed.

    \b
    squish import
    squish import --from ollama --dry-run
    squish import --from lmstudio
    squish import llama3.2:3b
    """
    listed = dry_run or not (names or program)
    if as_json and not listed:
        raise InvalidInput(
            "--json is for --dry-run.", hint="`squish list --json` shows what is installed.", param="--json"
        )
    settings = Settings.from_environment()
    programs = (program,) if program else _PROGRAMS
    found = [each for one in programs for each in neighbors.find(one, os.environ, Path.home())]
    chosen = _chosen(found, names)
    if listed:
        _show(settings, chosen, programs, as_json=as_json)
        return 0
    wanted = [each for each in chosen if names or not each.beside]
    if not wanted:
        console.note(_nothing(programs))
    return resolver.run(_take(settings, wanted, force=force))


def _chosen(found: Sequence[Neighbor], names: tuple[str, ...]) -> list[Neighbor]:
    """What is named, or everything. Raises ModelNotFound."""
    if not names:
        return list(found)
    chosen: list[Neighbor] = []
    for name in names:
        wanted = name.lower()
        these = [each for each in found if wanted in (each.id.lower(), each.id.lower().partition(":")[0])]
        if not these:
            near = ", ".join(each.id for each in found if wanted.rpartition("/")[2] in each.id.lower())
            hint = f"Available: {near}." if near else "`squish import` lists what other programs have."
            if Path(name).exists():
                hint = f"To install a file or a directory, run: squish pull {name}"
            raise ModelNotFound(f"No other program here has {name}.", hint=hint, param="model")
        chosen += [each for each in these if each not in chosen]
    return chosen


def _show(settings: Settings, found: Sequence[Neighbor], programs: Sequence[Program], *, as_json: bool) -> None:
    from squish.models.store import Store
    from squish.pull import verdicts

    installed = {manifest.id for manifest in Store(settings.cache_dir).list()}
    found = resolver.run(verdicts.judged(found, settings.worker_cache))
    if as_json:
        console.out_json([_as_json(each, installed) for each in found])
        return
    if not found:
        console.note(_nothing(programs))
        return
    rows = [
        (each.id, each.program, figures.size(each.size) if each.size else "", _how(each, installed)) for each in found
    ]
    console.table(("NAME", "FROM", "SIZE", "WHAT IS DONE"), rows, right=frozenset({2}))


def _how(model: Neighbor, installed: set[str]) -> str:
    if model.problem is not None:
        return f"nothing: {model.problem}"
    if model.id in installed:
        return "nothing: it is installed"
    if model.linked:
        return "linked: nothing is copied"
    return "imported: its weights are written anew" + (", once its hash is checked" if model.sha256 else "")


def _as_json(model: Neighbor, installed: set[str]) -> dict[str, Any]:
    return {
        "id": model.id,
        "from": model.program,
        "path": str(model.path),
        "size": model.size,
        "linked": model.linked,
        "installed": model.id in installed,
        "problem": model.problem,
    }


def _nothing(programs: Sequence[Program]) -> str:
    titles = [neighbors.TITLES[each] for each in programs]
    return f"No models of {' or '.join([', '.join(titles[:-1]), titles[-1]] if titles[1:] else titles)} are here."


async def _take(settings: Settings, models: Sequence[Neighbor], *, force: bool) -> int:
    from squish.commands.models.pull_output import as_talk
    from squish.models.store import Store
    from squish.pull.pull import take

    failed = 0
    for model in models:
        try:
            if model.problem:
                raise InvalidInput(f"{model.id} cannot be taken: {model.problem.removesuffix('.')}.")
            with as_talk() as show:
                async with take(model, settings=settings, store=Store(settings.cache_dir), force=force) as events:
                    async for event in events:
                        show(event)
        except SquishError as error:  # the others are taken all the same
            console.error(error)
            failed += 1
    return 1 if failed else 0
