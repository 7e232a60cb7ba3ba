"""The download drawer: what is on its way, over whatever screen is on."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Static

from squish.tui.downloads import Downloads
from squish.tui.key_hints import key
from squish.tui.messages import UseModel
from squish.tui.widgets.keys import Keys
from squish.tui.widgets.transfer_list import TransferList
from squish.tui.windows.window import Window


class DownloadDrawer(Window[None]):
    """Closes with escape or with the key that opened it."""

    CSS_PATH: ClassVar = ["../screens/panels.tcss", "download_drawer.tcss"]
    AUTO_FOCUS = "TransferList"
    BINDINGS: ClassVar = [Binding("escape,ctrl+t", "dismiss", "close", id="drawer.close", priority=True)]

    def __init__(self, downloads: Downloads) -> None:
        super().__init__()
        self._downloads = downloads

    def compose(self) -> ComposeResult:
        with Vertical(id="drawer") as box:
            box.border_title = "Downloads"
            yield TransferList(self._downloads)
            yield Static(f"No downloads. {key(self.app, 'app.hub')} finds models.", id="nothing")
            yield Keys()

    def on_mount(self) -> None:
        self._show()

    def show_downloads(self) -> None:
        if self.query("#nothing"):
            self._show()

    def _show(self) -> None:
        some = bool(self._downloads.transfers)
        self.query_one(TransferList).display = some
        self.query_one("#nothing").display = not some
        self.query_one(TransferList).refill()

    def on_use_model(self, event: UseModel) -> None:
        """The app acts on it; the drawer is done."""
        event.stop()
        self.app.post_message(UseModel(event.id))
        self.dismiss()
