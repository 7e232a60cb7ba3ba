"""`squish keys` and `squish usage`: who may use a server with a key of their own, and what they have used."""

from __future__ import annotations

from datetime import date, timedelta

import click

from squish import console
from squish.commands.completion import complete_model
from squish.commands.flags import Whole
from squish.config.settings import Settings


@click.group()
def keys() -> None:
    """Give clients of `squish serve` keys, each with its own limits.

    As soon as there is one, every request needs a key. A running server sees a change at once.

    \b
    squish keys add alice
    squish keys list
    """


@keys.command()
@click.argument("name")
@click.option("--model", "models", multiple=True, shell_complete=complete_model, help="A model it may use; repeatable.")
@click.option("--per-minute", type=Whole(1), help="Requests that it may send per minute.")
@click.option("--concurrent", type=Whole(1), help="Requests that it may have at the same time.")
@click.option("--background", is_flag=True, help="Its requests yield to those of other keys.")
def add(name: str, models: tuple[str, ...], per_minute: int | None, concurrent: int | None, background: bool) -> None:
    """Make a key and print it once: only its hash is kept.

    \b
    squish keys add alice
    squish keys add ci --model smollm2:135m --per-minute 30 --background
    """
    from squish.api.clients.keys import ApiKey, KeyFile

    file = KeyFile(Settings.from_environment().home)
    made = ApiKey(
        name=name,
        hash="",
        created=date.today(),
        models=models,
        requests_per_minute=per_minute,
        concurrent_requests=concurrent,
        background=background,
    )
    console.out(file.add(made))
    console.note(f"The key of {name}. It is shown only now; {file.path} keeps its hash.")


@keys.command("list")
def list_keys() -> None:
    """List the keys and their limits.

    \b
    squish keys list
    """
    from squish.api.clients.keys import KeyFile

    found = KeyFile(Settings.from_environment().home).keys().values()
    if not found:
        console.note("There are no keys. squish keys add NAME makes one.")
        return
    rows = [
        [
            key.name,
            str(key.created or ""),
            ", ".join(key.models) or "all",
            str(key.requests_per_minute or ""),
            str(key.concurrent_requests or ""),
            "yes" if key.background else "",
        ]
        for key in sorted(found, key=lambda key: key.name)
    ]
    console.table(["NAME", "MADE", "MODELS", "A MINUTE", "AT A TIME", "BACKGROUND"], rows, frozenset({3, 4}))


@keys.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete a key: a running server refuses it at once.

    \b
    squish keys remove alice
    """
    from squish.api.clients.keys import KeyFile

    others = KeyFile(Settings.from_environment().home).remove(name)
    console.note(f"The key of {name} is deleted.")
    if not others:
        console.note("It was the last one. A running server still wants a key.")
        console.note("One that starts without SQUISH_API_KEY lets everybody in.")


@click.command()
@click.option("--days", type=Whole(1, 3660), default=30, show_default=True, help="How far back, today included.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object for each day, key and model.")
def usage(days: int, as_json: bool) -> None:
    """Show how many requests and tokens each key has used here.

    \b
    squish usage
    squish usage --days 1 --json
    """
    from squish.api.clients.usage import UsageFile

    since = date.today() - timedelta(days=days - 1)
    found = UsageFile(Settings.from_environment().home).since(since.isoformat())
    if as_json:
        console.out_json([{name: getattr(each, name) for name in each.__slots__} for each in found])
        return
    if not found:
        console.note(f"No key was used since {since}.")
        return
    sums: dict[tuple[str, str], list[int]] = {}
    for each in found:
        row = sums.setdefault((each.key, each.model), [0, 0, 0, 0])
        for place, amount in enumerate((each.requests, each.prompt, each.cached, each.completion)):
            row[place] += amount
    rows = [[*names, *(f"{amount:,}" for amount in amounts)] for names, amounts in sorted(sums.items())]
    headers = ["KEY", "MODEL", "REQUESTS", "PROMPT TOKENS", "CACHED", "ANSWER TOKENS"]
    console.table(headers, rows, frozenset({2, 3, 4, 5}))
