"""An MCP server as `[mcp.NAME]` in config.toml says how to reach it, and what is wrong with such a table. Pure.

Values of `env` and `headers` may name where they come from: `${env:NAME}` and `${file:PATH}`. They are read when the
server is used, so that no key lies in the file, or in Settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from squish.config import durations
from squish.errors import without_credentials

DEFAULT_TIMEOUT = 60.0
_SECRET_FLAG = re.compile(r"-\S*(?:key|token|secret|password)", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(\S*(?:key|token|secret|password)[^=\s]*)=.+", re.IGNORECASE | re.DOTALL)
NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


class McpServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """command with its args, or url. Its text never shows env and headers.

    timeout: seconds until an answer of it counts as missing. tools: names of those that may be used; None is all.
    """

    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    timeout: float = DEFAULT_TIMEOUT
    tools: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"McpServer({self.address!r})"

    @property
    def address(self) -> str:
        """What runs, or where it is, for people. What looks like a key is left out."""
        if self.url:
            return without_credentials(self.url).partition("?")[0]
        before = (self.command, *self.args)
        shown = [
            "…" if _SECRET_FLAG.fullmatch(flag) else _SECRET_VALUE.sub(r"\1=…", each)
            for flag, each in zip(before, self.args, strict=False)
        ]
        return " ".join((self.command, *shown))


def read(table: Mapping[str, Any]) -> McpServer:
    """A server from its table. Raises ValueError, which says what must be otherwise: `args must be …`."""
    values = dict(table)
    if isinstance(time := values.get("timeout"), str):
        try:
            values["timeout"] = durations.seconds(time)
        except ValueError:
            raise ValueError('timeout must be a time: seconds, or a text like "30s"') from None
    try:
        server = msgspec.convert(values, McpServer)
    except msgspec.ValidationError as error:
        raise ValueError(_explained(str(error))) from None
    if bool(server.command.strip()) == bool(server.url.strip()):
        raise ValueError("it must have either a command or a url")
    if server.url and not server.url.startswith(("http://", "https://")):
        raise ValueError("url must be an address that begins with https:// or http://")
    if server.timeout <= 0:
        raise ValueError("timeout must be above 0")
    return server


def read_all(tables: Mapping[str, object]) -> dict[str, McpServer]:
    """The servers of tables that are not wrong, by their names."""
    return {name: read(table) for name, table in tables.items() if isinstance(table, dict)}


def wrong(name: str, table: object) -> str | None:
    """What the table of a server must be, where it is not."""
    if not NAME.fullmatch(name):
        return "must have a name of letters, digits, - and _"
    if not isinstance(table, dict):
        return f"must be a table: [mcp.{name}] and its keys below"
    try:
        read(table)
    except ValueError as error:
        return f"is not a server: {error}"
    return None


_EXPECTED = re.compile(r"Expected `([^`]*)`.*?(?: - at `\$\.?(.*?)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_PLAIN = {"str": "a text", "array": "a list of texts", "object": "a table of texts", "float": "a number of seconds"}


def _explained(message: str) -> str:
    """msgspec's words as a sentence about a key of the file."""
    if unknown := _UNKNOWN.search(message):
        keys = ", ".join(field.name for field in msgspec.structs.fields(McpServer))
        return f"{unknown[1]} is not a key of a server; there are: {keys}"
    found = _EXPECTED.fullmatch(message)
    if found is None:
        return message
    wanted = next((plain for kind, plain in _PLAIN.items() if kind in found[1].split(" | ")), found[1])
    return f"{found[2] or 'it'} must be {wanted}"
