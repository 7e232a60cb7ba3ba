"""Choosing what a chat may use of the MCP servers there are: a server that is switched on is reached at once, and its
tools can be switched one by one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.widgets import Input, OptionList

from squish import figures
from squish.chats.messages import ChatTools
from squish.errors import SquishError
from squish.mcp import permissions
from squish.mcp.sources import Known
from squish.mcp.toolbox import Toolbox
from squish.mcp.tools import ServerTool
from squish.text import clean
from squish.tui import advice
from squish.tui.advice import reporting_errors
from squish.tui.scheduling import after_message
from squish.tui.windows.chooser import Chooser

_NOTHING = "No MCP server is set up. Add [mcp.NAME] to config.toml; see docs/mcp.md."

_TICK = 0.5


@dataclass(slots=True)
class _Row:
    """A server, one of its tools, or what is said about it (neither can be switched)."""

    server: Known | None
    content: Content
    tool: ServerTool | None = None


@dataclass(slots=True)
class _Found:
    """What reaching a server brought."""

    tools: list[ServerTool] = field(default_factory=list)
    said: str = ""  # empty while it is being reached
    began: float = field(default_factory=time.monotonic)


class ToolPicker(Chooser[None]):
    """home: of permissions. tools: as the chat has them; changed: gets them as they are after every switch."""

    BINDINGS: ClassVar = [Binding("ctrl+r", "ask_again", "Ask again", id="tools.ask_again", show=False, priority=True)]

    def __init__(self, toolbox: Toolbox, home: Path, tools: ChatTools, changed: Callable[[ChatTools], None]) -> None:
        super().__init__()
        self._home = home
        self._toolbox, self._tools, self._changed = toolbox, tools, changed
        self._known = [each for each in toolbox.known() if not each.shadowed]
        self._found: dict[str, _Found] = {}
        self._rows: list[_Row] = []

    def compose(self) -> ComposeResult:
        yield from self.window("tools", "Tools in this chat", "switch", "", "Filter", more="ctrl+r ask again")

    def on_mount(self) -> None:
        for each in self._known:
            if permissions.is_on(self._tools, each):
                self._reach(each.name)
        self.set_interval(_TICK, self._tick)

    def on_resize(self) -> None:
        after_message(self, self._fill)

    def taken(self, at: int) -> None:
        row = self._rows[at]
        if row.tool is not None:
            off = set(self._tools.off) ^ {row.tool.id}
            self._set(replace(self._tools, off=tuple(sorted(off))))
        elif row.server is not None and not row.server.problem:
            self._set(permissions.switched(self._tools, row.server))
            if row.server.name in self._tools.servers:
                self._reach(row.server.name)

    def action_ask_again(self) -> None:
        """Take back that the marked tool may be called without asking."""
        at = self.query_one(OptionList).highlighted
        tool = self._rows[at].tool if at is not None and at < len(self._rows) else None
        if tool is None:
            return
        with reporting_errors(self.app):
            permissions.forget(self._home, [tool.id])
        self._set(replace(self._tools, allowed=tuple(each for each in self._tools.allowed if each != tool.id)))

    def _set(self, tools: ChatTools) -> None:
        self._tools = tools
        with reporting_errors(self.app):
            self._changed(tools)
        self._fill()

    def _reach(self, name: str) -> None:
        self._found[name] = _Found()
        read: Any = partial(self._read, name)  # a coroutine that is replaced before it starts is never awaited
        self.run_worker(read, group=f"tools {name}", exclusive=True, exit_on_error=False)

    async def _read(self, name: str) -> None:
        try:
            tools = await self._toolbox.tools(name, again=True)
        except SquishError as error:
            self._found[name] = _Found(said=f"✕ {error.message} {advice.hint(error, self.app)}".strip())
        else:
            size = sum(len(tool.description) + len(tool.schema) for tool in tools) // 4
            amount = f"{len(tools)} tool{'s' if len(tools) != 1 else ''}"
            self._found[name] = _Found(tools, f"{amount}, about {figures.count(size)} tokens of every prompt")
        self._fill()

    def _tick(self) -> None:
        if any(not each.said for each in self._found.values()):
            self._fill()

    @on(Input.Changed)
    def _fill(self) -> None:
        if not self.is_mounted:
            return
        wanted = self.query_one(Input).value.strip().lower()
        self._rows = [row for each in self._known for row in self._matching(each, wanted)]
        marked = self.query_one(OptionList).highlighted or 0
        nothing = f"No server or tool has “{clean(wanted)}” in its name." if self._known else _NOTHING
        self.fill([row.content for row in self._rows], min(marked, max(len(self._rows) - 1, 0)), nothing)

    def _matching(self, known: Known, wanted: str) -> list[_Row]:
        """A server with all that belongs to it where it matches, or with those of its tools that do."""
        head, *rest = self._of(known)
        if wanted in head.content.plain.lower():
            return [head, *rest]
        tools = [row for row in rest if row.tool is not None and wanted in row.content.plain.lower()]
        return [head, *tools] if tools else []

    def _of(self, known: Known) -> list[_Row]:
        """The rows of a server."""
        name, is_on = known.name, permissions.is_on(self._tools, known)
        sign = "[–]" if known.problem else "[x]" if is_on else "[ ]"
        about = known.problem or f"{known.server.address} · {known.source}"
        head = Content.assemble((f"{sign} {clean(name)}", "bold"), (f"  {clean(about)}", "$foreground-muted"))
        rows = [_Row(known, head)]
        found = self._found.get(name)
        if not is_on or found is None:
            return rows
        said = found.said or f"connecting … {figures.waited(time.monotonic() - found.began)}"
        rows.append(_Row(None, Content.styled(f"    {clean(said)}", "$foreground-muted")))
        for tool in found.tools:
            sign = "[ ]" if tool.id in self._tools.off else "[x]"
            about = " ".join(tool.description.split())[:100]
            written = f"    {sign} {tool.name}{self._permission(known, tool)}"
            rows.append(_Row(known, Content.assemble(written, (f"  {about}", "$foreground-muted")), tool))
        return rows

    def _permission(self, known: Known, tool: ServerTool) -> str:
        """Whether it is called without asking."""
        if permissions.is_allowed(self._home, tool.id, known):
            return "  · always allowed"
        return "  · allowed in this chat" if tool.id in self._tools.allowed else ""
