"""`squish ps` and `stop`: the servers that run on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from squish import console, figures
from squish.config.settings import Settings
from squish.errors import SquishError

if TYPE_CHECKING:
    from squish.system.servers import Server


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def ps(as_json: bool) -> None:
    """Show running servers and the models they have loaded.

    \b
    squish ps
    squish ps --json | jq '.[].models[].name'
    """
    import msgspec

    from squish.system.servers import servers

    found = servers(Settings.from_environment().home)
    if as_json:
        console.out_json(msgspec.to_builtins(found))
    elif not found:
        console.note("No server is running. Try: squish serve")
    else:
        headers = ("PROCESS", "ADDRESS", "UP", "MODEL", "STATE", "SIZE", "RUNNING", "WAITING")
        console.table(headers, [row for server in found for row in _rows(server)], right=frozenset({0, 5, 6, 7}))


def _rows(server: Server) -> list[tuple[str, ...]]:
    head = (str(server.pid), server.url or "starting", figures.seconds(time.time() - server.started))
    if not server.models:
        return [(*head, "none loaded", "", "", "", "")]
    return [
        (
            *(head if number == 0 else ("", "", "")),
            model.name,
            model.state,
            figures.size(model.weights_bytes) if model.weights_bytes else "",
            str(model.running),
            str(model.waiting),
        )
        for number, model in enumerate(server.models)
    ]


@click.command()
@click.argument("process", type=int, required=False)
@click.option("--all", "every", is_flag=True, help="Stop all your servers.")
def stop(process: int | None, every: bool) -> None:
    """Stop a running server.

    If several are running, name the PROCESS that `squish ps` shows. Requests in flight have half a minute to end.
    A server that a full-screen chat has is stopped there: the chat would end with it.

    \b
    squish stop
    squish stop 4711
    squish stop --all
    """
    from squish.system import servers

    running = servers.servers(Settings.from_environment().home)
    chosen = [server for server in running if process in (None, server.pid)]
    if not chosen:
        said = "None of your servers is running." if not running else f"None of your servers is process {process}."
        raise SquishError(said, hint="`squish ps` lists running servers; `squish serve` starts one.")
    own, chosen = chosen, [server for server in chosen if not server.beside]
    if not chosen:
        said = f"{own[0].url} is served by a full-screen chat (process {own[0].pid}), which would end with it."
        raise SquishError(said, hint="Stop it there: F5, then s.")
    if len(chosen) > 1 and not every:
        numbers = ", ".join(str(server.pid) for server in chosen)
        raise SquishError(f"{len(chosen)} servers are running: {numbers}.", hint="Name one, or run: squish stop --all")
    for server in chosen:
        console.note(f"Stopping {server.url or f'process {server.pid}'}…")
        servers.stop(server)
        console.note("Stopped.")
