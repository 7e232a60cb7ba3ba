"""`squish config`: show where settings come from, and write a sample once. It never touches a file that is there."""

from __future__ import annotations

import click

from squish import console
from squish.config.keys import sample
from squish.config.settings import resolve
from squish.errors import ConfigError, StoreError
from squish.files import write_new


@click.group("config")
def config() -> None:
    """Show the settings and where each comes from.

    Flags override environment variables, and those override ~/.squish/config.toml. Squish never changes that file.

    \b
    squish config show
    squish config init
    $EDITOR "$(squish config path)"
    """


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def show(as_json: bool) -> None:
    """Show every setting, its value and its source. Secrets stay hidden.

    \b
    squish config show
    squish config show --json | jq -r '.[] | select(.source != "default").name'
    """
    resolved = resolve()
    if as_json:
        console.out_json([{"name": each.name, "value": each.shown, "source": each.source} for each in resolved.origins])
    else:
        rows = [(each.name, each.shown, each.source) for each in resolved.origins]
        console.table(("SETTING", "VALUE", "FROM"), rows)
    if resolved.errors:
        raise resolved.errors[0]


@config.command()
def init() -> None:
    """Write a starter config.toml.

    Every setting is explained in it and commented out. An existing file is not touched.

    \b
    squish config init
    """
    path = resolve().settings.config_path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, sample())
    except FileExistsError:
        hint = "Edit it, or move it away first."
        raise ConfigError(f"{path} already exists; it was not touched.", hint=hint) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from error
    console.note("Written. Every setting is in it, commented out:")
    console.out(str(path))


@config.command()
def path() -> None:
    """Print where config.toml is, or would be.

    \b
    $EDITOR "$(squish config path)"
    """
    console.out(str(resolve().settings.config_path))
