"""Which servers a chat has switched on, and which tools are always allowed, kept in state.toml. It asks nobody.

Both are for a server as it was set up then: one of the same name that runs another command, or comes from the files of
another project, is neither switched on nor allowed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from squish.chats.messages import ChatTools
from squish.config import state
from squish.errors import InvalidInput
from squish.mcp.sources import Known

_TABLE = "tools"


def is_allowed(home: Path, tool: str, server: Known) -> bool:
    """tool: as in CalledTool.tool."""
    return state.table(home, _TABLE).get(tool) == _mark(server)


def allow(home: Path, tool: str, server: Known) -> None:
    """Allow it from now on. Raises StoreError."""
    state.keep(home, _TABLE, {tool: _mark(server)})


def allowed(home: Path) -> list[str]:
    """The tools that have a permission, also those whose server is another one by now, so that they are asked for."""
    return sorted(state.table(home, _TABLE))


def forget(home: Path, tools: Iterable[str]) -> None:
    """Ask for these again. Raises StoreError."""
    state.forget(home, _TABLE, tools)


def is_on(tools: ChatTools, server: Known) -> bool:
    """Whether a chat has switched on this very server."""
    return server.name in tools.servers and tools.marks.get(server.name) == _mark(server)


def switched(tools: ChatTools, server: Known) -> ChatTools:
    """With a server that was off, or without one that was on. What was set for another of its name is forgotten."""
    name, mark = server.name, _mark(server)
    others = tuple(each for each in tools.servers if each != name)
    if is_on(tools, server):
        return msgspec.structs.replace(tools, servers=others)
    if tools.marks.get(name) != mark:
        kept = [
            tuple(each for each in named if not each.startswith(f"{name}/")) for named in (tools.off, tools.allowed)
        ]
        tools = msgspec.structs.replace(tools, off=kept[0], allowed=kept[1])
    servers = tools.servers if name in tools.servers else (*others, name)
    return msgspec.structs.replace(tools, servers=servers, marks=tools.marks | {name: mark})


def changed(tools: ChatTools, known: Iterable[Known]) -> dict[str, InvalidInput]:
    """Servers of a chat that are others by now than those it has switched on, each with how to say so."""
    return {
        each.name: InvalidInput(
            f"{each.name} is set up differently than when this chat switched it on, or by another file, {each.source}: "
            "it is left out.",
            hint=f"/tools {each.name} switches it on.",
        )
        for each in known
        if not each.shadowed and not each.problem and each.name in tools.servers and not is_on(tools, each)
    }


def _mark(known: Known) -> str:
    server = known.server
    environment = sorted(server.env.items())
    what = [server.command, server.args, server.cwd, server.url, environment, known.source]
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:32]
