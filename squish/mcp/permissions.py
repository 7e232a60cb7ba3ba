"""Which tools are always allowed, kept in state.toml. It asks nobody.

A permission is for one tool of one server as it is set up now: one that runs another command, or is at another address,
has none, whatever its name.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from squish.config import state
from squish.config.mcp_server import McpServer

_TABLE = "tools"


def is_allowed(home: Path, tool: str, server: McpServer) -> bool:
    """tool: as in CalledTool.tool."""
    return state.table(home, _TABLE).get(tool) == _mark(server)


def allow(home: Path, tool: str, server: McpServer) -> None:
    """Allow it from now on. Raises StoreError."""
    state.keep(home, _TABLE, {tool: _mark(server)})


def _mark(server: McpServer) -> str:
    what = msgspec.json.encode([server.command, server.args, server.cwd, server.url])
    return hashlib.sha256(what).hexdigest()[:32]
