"""`squish pull`: its options, and how one pull is shown. Other commands that install a model use `install`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import click

from squish.commands.completion import complete_source
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import InvalidInput, InvalidName, SquishError
from squish.memory.fit import USUAL_CONTEXT
from squish.text import clean

_BITS_HELP = "How to compress full precision: 3, 4, 6, 8, mxfp4, …, none; bits per weight, as 4.5; fit.  [default: 4]"
_CONTEXT_HELP = f"Context length, in tokens, for --bits fit.  [default: {USUAL_CONTEXT}, or the model's]"


@click.command()
@click.argument("model", shell_complete=complete_source)
@click.option("--name", help="Install it under this name.")
@click.option("--force", is_flag=True, help="Install it again, even if it is installed.")
@click.option("--bits", help=_BITS_HELP)
@click.option("--context", type=click.IntRange(1), help=_CONTEXT_HELP)
@click.option("--group-size", type=int, help="Weights that share a scale: 32, 64 or 128.  [default: 64]")
@click.option(
    "--search",
    is_flag=True,
    help="Search for the scales that lose the least on random tokens: half the loss, but slower.",
)
@click.option(
    "--calibrate",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Calibrate the rounding on a text: usually loses the least, and takes the longest.",
)
@click.option("--base", help="It is an adapter (LoRA, DoRA) of this installed model.")
@click.option("--keep-source", is_flag=True, help="Install the full-precision original too.")
@click.option("--measure", is_flag=True, help="Measure perplexity before and after compressing.")
@click.option("--json", "as_json", is_flag=True, help="Print events, one JSON object per line.")
def pull(
    model: str,
    bits: str | None,
    context: int | None,
    group_size: int | None,
    search: bool,
    calibrate: str | None,
    **options: Any,
) -> None:
    """Download a model, or import a .gguf file or a directory.

    \b
    squish pull llama3.1:8b
    squish pull mlx-community/Qwen3-8B-4bit
    squish pull HuggingFaceTB/SmolLM2-360M-Instruct --bits 8
    squish pull HuggingFaceTB/SmolLM2-360M-Instruct --bits 4.5 --calibrate
    squish pull bartowski/Qwen2.5-0.5B-Instruct-GGUF:Q8_0
    squish pull ./model.gguf --name mine:7b
    squish pull ./adapter --base llama3.1:8b --name poet
    """
    from squish.models import recipes

    calibrated = calibrate is not None
    explicit = bits is not None or group_size is not None or search or calibrated
    chosen = recipes.recipe("4" if bits is None else bits, group_size, search, calibrated) if explicit else None
    compression = recipes.CompressionOptions(
        chosen if explicit else recipes.DEFAULT,
        explicit,
        options.pop("keep_source"),
        options.pop("measure"),
        _text(calibrate) if calibrate else "",
        context,
    )
    resolver.run(install(Settings.from_environment(), model, compression=compression, **options))


def _text(path: str) -> str:
    """A file to calibrate with, its first megabyte. Raises InvalidInput."""
    from pathlib import Path

    try:
        with Path(path).open("rb") as file:
            text = file.read(1 << 20).decode("utf-8", errors="ignore")
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror or error}."
        raise InvalidInput(problem, param="--calibrate") from error
    if len(text.split()) < 32 and len(text) < 512:
        problem = f"{path} is too short to calibrate with: it has fewer than 32 words."
        raise InvalidInput(problem, hint="Take some pages of what the model is to read and write.", param="--calibrate")
    return text


async def install(settings: Settings, model: str, *, as_json: bool = False, **options: Any) -> None:
    """Pull a model and show how it goes. Options are those of squish.pull.pull; name is its as_name."""
    from squish.commands.models.pull_output import as_lines, as_talk, stopped
    from squish.models.store import Store
    from squish.pull.events import Progress
    from squish.pull.pull import pull as pull_events

    options["as_name"] = options.pop("name", None)
    last: Progress | None = None
    try:
        pulled = pull_events(model, settings=settings, store=Store(settings.cache_dir), **options)
        with as_lines() if as_json else as_talk() as show:
            async with pulled as events:
                async for event in events:
                    show(event)
                    last = event if isinstance(event, Progress) else last
    except asyncio.CancelledError:  # Ctrl-C
        stopped(last)
        raise
    except SquishError as error:
        error.hint = " ".join(filter(None, (error.hint, _beside(model)))) or None
        raise


def _beside(model: str) -> str:
    """How to import what has a name in the working directory that means something else; empty where nothing has it."""
    import shlex
    from pathlib import Path

    from squish.names import LocalPath, parse

    with suppress(InvalidName):
        if isinstance(parse(model), LocalPath):
            return ""
    with suppress(OSError, ValueError):
        if model and Path(model).exists():
            return f"To import {clean(model)} from this directory: squish pull {shlex.quote(f'./{model}')}"
    return ""
