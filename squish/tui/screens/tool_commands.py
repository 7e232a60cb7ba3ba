"""`/tools`: which MCP servers and tools the shown chat may use. Off until the user switches them on."""

from __future__ import annotations

from textual.screen import Screen

from squish.chats.messages import ChatTools
from squish.errors import SquishError
from squish.sessions.backend import Backend
from squish.text import clean
from squish.tui.chat.conversations import Conversations
from squish.tui.messages import ChatChanged
from squish.tui.widgets.chat.chat_view import ChatView


class ToolCommands:
    """chats: those of this run, one of which is shown, in `view`."""

    def __init__(self, screen: Screen[None], runtime: Backend, chats: Conversations, view: ChatView) -> None:
        self._screen, self._runtime, self._chats, self._view = screen, runtime, chats, view

    async def choose(self) -> None:
        """Show all servers. Raises ConfigError."""
        from squish.tui.windows.tool_picker import ToolPicker

        runtime, shown = self._runtime, self._chats.shown
        picker = ToolPicker(runtime.toolbox, runtime.settings.home, shown.tools, self._use)
        await self._screen.app.push_screen(picker)

    def switch(self, server: str) -> None:
        """Switch one server by its name, and reach it if it is on now. Raises InvalidInput, StoreError."""
        from squish.mcp.permissions import switched

        found = self._runtime.toolbox.find(server)
        self._use(switched(self._chats.shown.tools, found))
        if server in self._chats.shown.tools.servers:
            self._screen.app.run_worker(self._reach(server), group="tools", exit_on_error=False)
        else:
            self._say(f"{server} is off in this chat.")

    def _use(self, tools: ChatTools) -> None:
        self._chats.shown.use_tools(tools)
        self._view.post_message(ChatChanged())  # it names the servers that are on

    async def _reach(self, server: str) -> None:
        try:
            tools = await self._runtime.toolbox.tools(server, again=True)
        except SquishError as error:
            self._say(error.message, failed=True)
            return
        names = ", ".join(tool.name for tool in tools[:6])
        more = f" and {len(tools) - 6} more" if len(tools) > 6 else ""
        self._say(f"{server} is on in this chat: {names}{more}.")

    def _say(self, text: str, *, failed: bool = False) -> None:
        self._screen.app.notify(clean(text), severity="warning" if failed else "information", markup=False)
