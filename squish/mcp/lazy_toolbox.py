"""The MCP servers of a program that may never need them: what reaches them is imported when it is first asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from squish.config.settings import Settings

if TYPE_CHECKING:
    from squish.mcp.toolbox import Toolbox


class LazyToolbox:
    """One toolbox, made on first use. No server runs before its tools are wanted. directory: as that of Toolbox."""

    def __init__(self, settings: Settings, directory: Path | None = None) -> None:
        self._settings, self._directory = settings, directory
        self._made: Toolbox | None = None

    def get(self) -> Toolbox:
        if self._made is None:
            from squish.mcp.toolbox import Toolbox

            self._made = Toolbox(self._settings, self._directory)
        return self._made

    async def close(self) -> None:
        """End the servers that run."""
        if self._made is not None:
            await self._made.close()
