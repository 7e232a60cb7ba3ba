"""The chat between the list of chats and the parameters: which of the three is shown and has the focus.

Beside the chat where there is room; below 100 columns one of the two, and below 80 one pane at a time. Until a chat is
read or begun the list is shown from 80 columns on.
"""

from __future__ import annotations

from collections.abc import Mapping

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal

from squish.tui.messages import Typed
from squish.tui.widgets.chat.chat_list import ChatList
from squish.tui.widgets.chat.chat_view import ChatView
from squish.tui.widgets.chat.params import ParamsPanel

NARROW = 80
ROOMY = 100


class ChatPanels(Horizontal):
    """The panes; the screen's classes -chats, -params and -narrow say how they are laid out.

    without: as of ParamsPanel.

    Focus moves at once, not with a message of its own: the letter that comes behind the key is for the new place.
    """

    def __init__(self, view: ChatView, without: Mapping[str, str]) -> None:
        super().__init__(id="body")
        self.chats, self.view, self.params = ChatList(), view, ParamsPanel(without)
        self._wanted: bool | None = None  # whether the list is; None: as the width allows

    def compose(self) -> ComposeResult:
        yield self.chats
        yield self.view
        yield self.params

    @property
    def list_shown(self) -> bool:
        return self.screen.has_class("-chats")

    def lay_out(self, some_chats: bool, at_start: bool) -> None:
        """some_chats: whether there is anything to list. at_start: as long as no chat is read or begun, the list needs
        less room beside it.
        """
        width = self.app.size.width
        roomy = width >= (NARROW if at_start else ROOMY) or self.chats.has_focus
        list_shown = some_chats and roomy if self._wanted is None else self._wanted
        if list_shown and self.screen.has_class("-params") and self._cramped:
            list_shown = self.chats.has_focus
            self._set(params=not list_shown)
        self._set(narrow=width < NARROW, chats=list_shown)
        self._uncover()

    @property
    def _cramped(self) -> bool:
        """Whether the list and the parameters would leave the chat between them no room."""
        return self.app.size.width < ROOMY

    def _set(self, **classes: bool) -> None:
        """Set classes of the screen, and style the panes alone: what is in them looks the same beside any other."""
        before = self.screen.classes
        for name, wanted in classes.items():
            self.screen.set_class(wanted, f"-{name}", update=False)
        if self.screen.classes != before:
            self.app.stylesheet.update_nodes((self.chats, self.view, self.params))

    def on_descendant_focus(self) -> None:
        self._uncover()

    def _uncover(self) -> None:
        """Where only one pane has room, it is the chat once that has the focus: keys never go to what is hidden."""
        if self.screen.has_class("-narrow") and self.view.has_focus_within:
            if self._wanted:
                self._wanted = False
            self._set(params=False, chats=False)

    @on(Typed)
    def _typed_in_list(self, event: Typed) -> None:
        event.stop()
        self.view.write(event.text)

    def focus_prompt(self) -> None:
        """Back to writing."""
        self.view.transcript.unmark()
        self.screen.set_focus(self.view.prompt)
        self._uncover()

    def toggle_chats(self) -> None:
        """Show the list of chats and go there; hide it when one is there already."""
        self._wanted = not self.list_shown or not self.chats.has_focus
        if self._wanted and self._cramped:
            self._set(params=False)
        self._set(chats=self._wanted)
        self.screen.set_focus(self.chats if self._wanted else self.view.prompt)

    def show_chats(self) -> None:
        """Show the list of chats where it is hidden; the keys go to it."""
        if not self.chats.has_focus:
            self.toggle_chats()

    def toggle_params(self) -> bool:
        """Show the parameters, or hide them when one is there already; whether they are shown."""
        if self.screen.has_class("-params") and self.params.has_focus_within:
            self._set(params=False)
            self.screen.set_focus(self.view.prompt)
            return False
        if self._cramped:
            self._wanted = False
            self._set(chats=False)
        self._set(params=True)
        return True
