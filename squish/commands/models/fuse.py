"""`squish fuse`: a model with an adapter becomes a model of its own."""

from __future__ import annotations

import click

from squish import console, figures
from squish.commands.completion import complete_model
from squish.config.settings import Settings
from squish.download import resolver


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.option("--name", help="Install it under this name.  [default: the adapter's, with - for +]")
def fuse(model: str, name: str | None) -> None:
    """Merge an adapter into a model.

    The adapter's changes become part of the weights, quantized as the model is. Both stay as they are.

    \b
    squish fuse llama3.1:8b+poet --name poet:8b
    """
    from squish.models.store import Store
    from squish.pull import adapter

    settings = Settings.from_environment()
    with console.Status().waiting(f"fusing {model}…"):
        made = resolver.run(adapter.fuse(settings, Store(settings.cache_dir), model, name)).manifest
    console.note(f"{made.id} installed: {made.quantization}, {figures.size(made.size)}. Try: squish run {made.id}")
