"""Which servers there are: those of config.toml, and those that other programs on this machine are set up with.

The files of other programs are read and never written. Nothing of them runs because it is listed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squish.config import mcp_server
from squish.config.mcp_server import McpServer
from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.files import read_regular
from squish.system.host import HOST
from squish.system.working_directory import working_directory

_LARGEST = 4 << 20  # bytes
_KEYS = ("mcpServers", "servers")  # of Claude, Cursor and LM Studio; of VS Code


@dataclass(frozen=True, slots=True)
class Known:
    """A server by the name that people call it. source: the file, for people. problem: why it cannot be used.

    shadowed: another file before this one has a server of this name, which is the one that is meant.
    """

    name: str
    server: McpServer
    source: str
    problem: str = ""
    shadowed: bool = False


def known(settings: Settings, directory: Path | None = None) -> list[Known]:
    """All servers, those of config.toml first. directory: where files of a project are looked for."""
    found = [Known(name, server, _short(settings.config_path)) for name, server in settings.mcp]
    project = directory or working_directory()
    # The same file twice where the directory is the user's home: its servers would be in each other's way.
    for path in {each.resolve(): each for each in _files(settings.home.parent, project)}.values():
        found += _in_file(path, project)
    names = set[str]()
    listed = []
    for each in found:
        listed.append(Known(each.name, each.server, each.source, each.problem, each.name in names))
        names.add(each.name)
    return listed


def find(servers: list[Known], name: str) -> Known:
    """The one of that name. Raises InvalidInput where there is none, or it cannot be used."""
    for each in servers:
        if each.name == name and not each.shadowed:
            if each.problem:
                raise InvalidInput(f"{name} in {each.source} cannot be used: {each.problem}.", param="mcp")
            return each
    names = ", ".join(each.name for each in servers if not each.shadowed)
    hint = f"Available: {names}." if names else "Add [mcp.NAME] to config.toml; see docs/mcp.md."
    raise InvalidInput(f"No MCP server is named {name}.", hint=hint, param="mcp")


def _files(user: Path, directory: Path) -> Iterator[Path]:
    """Where other programs keep their servers: those of the project in front."""
    yield directory / ".mcp.json"  # Claude Code
    yield directory / ".vscode" / "mcp.json"
    yield directory / ".cursor" / "mcp.json"
    yield user / ".claude.json"
    applications = HOST.application_settings(user)
    yield applications / "Claude" / "claude_desktop_config.json"
    yield applications / "Code" / "User" / "mcp.json"
    yield user / ".cursor" / "mcp.json"
    yield user / ".lmstudio" / "mcp.json"


def _in_file(path: Path, project: Path) -> list[Known]:
    """The servers of one file; one that cannot be read has none, for it is not ours to complain about."""
    try:
        document = json.loads(_without_comments(read_regular(path, _LARGEST, follow=True).decode("utf-8-sig")))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    tables = {**_tables(document), **_of_project(document, project)}
    return [_foreign(str(name), table, path) for name, table in tables.items() if isinstance(table, dict)]


def _tables(document: Mapping[str, Any]) -> dict[str, Any]:
    return next((document[key] for key in _KEYS if isinstance(document.get(key), dict)), {})


def _of_project(document: Mapping[str, Any], project: Path) -> dict[str, Any]:
    """What Claude Code was told of one project alone, which it does by default: of the directory, or one around it."""
    projects = document.get("projects")
    if not isinstance(projects, dict):
        return {}
    for directory in (project, *project.parents):
        if isinstance(found := projects.get(str(directory)), dict) and (tables := _tables(found)):
            return tables
    return {}


def _foreign(name: str, table: Mapping[str, Any], path: Path) -> Known:
    """A server as another program writes it; what only that program understands is left out."""
    source = _short(path)
    taken = {key: table[key] for key in ("command", "args", "env", "cwd", "url", "headers") if table.get(key)}
    problem = ""
    if table.get("disabled") is True or table.get("enabled") is False:
        problem = "it is switched off there"
    elif table.get("type") == "sse" or table.get("transport") == "sse":
        problem = "it speaks the transport of 2024 (HTTP with SSE), which newer servers have replaced"
    elif table.get("envFile"):
        problem = "it takes its environment from an envFile, which Squish does not read"
    if isinstance(environment := taken.get("env"), dict):
        taken["env"] = {key: str(value) for key, value in environment.items() if isinstance(value, str | int | float)}
    try:
        server = mcp_server.read(taken)
    except ValueError as error:
        return Known(name, McpServer(), source, problem or str(error))
    return Known(name, server, source, problem)


_STRING_OR_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)


def _without_comments(text: str) -> str:
    """JSON as VS Code writes it, with comments and commas at the end of lists, as plain JSON."""
    plain = _STRING_OR_COMMENT.sub(lambda found: found[1] or "", text)
    return _STRING_OR_COMMA.sub(lambda found: found[1] or "", plain)


def _short(path: Path) -> str:
    """A path as people write it."""
    home = os.path.expanduser("~")  # noqa: PTH111  a text is wanted
    return f"~{str(path)[len(home) :]}" if str(path).startswith(f"{home}{os.sep}") else str(path)
