"""The commands by their names. A module is imported when its command is looked up: to run, or for its help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

import click

PLACES = {
    "pull": "models.pull:pull",
    "import": "models.importing:import_models",
    "fuse": "models.fuse:fuse",
    "list": "models.installed:list_models",
    "show": "models.installed:show",
    "cp": "models.installed:copy",
    "rm": "models.installed:remove",
    "move": "models.installed:move",
    "verify": "models.installed:verify",
    "prune": "models.installed:prune",
    "catalog": "models.catalog:catalog",
    "search": "models.search:search",
    "run": "answers.run:run",
    "embed": "answers.embed:embed",
    "batch": "answers.batch:batch",
    "demo": "answers.demo:demo",
    "serve": "serving.serve:serve",
    "launch": "launch:launch",
    "web": "serving.web:web",
    "ps": "serving.servers:ps",
    "stop": "serving.servers:stop",
    "service": "serving.service:service",
    "keys": "serving.keys:keys",
    "usage": "serving.keys:usage",
    "worker": "serving.worker:worker",
    "chats": "chats:chats",
    "mcp": "mcp:mcp",
    "bench": "bench:bench",
    "doctor": "doctor:doctor",
    "config": "config:config",
    "completion": "completion:completion",
}


class Commands(Mapping[str, click.Command]):
    """Every command of `squish`."""

    def __getitem__(self, name: str) -> click.Command:
        module, _, function = PLACES[name].partition(":")
        command: click.Command = getattr(import_module(f"squish.commands.{module}"), function)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)
