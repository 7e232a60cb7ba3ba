"""What one can do with chats: open, rename, delete, find, export; and with the panels and the draft.

What one can do with single messages is in chat_messages.py, how a chat is shown and answered in chat_core.py.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
from pathlib import Path

from textual import on
from textual.app import SuspendNotSupported
from textual.widgets import Markdown

from squish.chats.chats import Hit
from squish.chats.export import export, file_name, format_of
from squish.errors import SquishError
from squish.text import clean
from squish.tui import actions
from squish.tui.chat.context_meter import Context
from squish.tui.chat.conversation import Conversation
from squish.tui.messages import OpenChat
from squish.tui.screens.chat_messages import ChatMessages, turn_with
from squish.tui.screens.chat_search import ChatSearchScreen
from squish.tui.screens.confirm import ConfirmScreen
from squish.tui.screens.line_input import LineScreen
from squish.tui.widgets.params import ParamsPanel
from squish.tui.widgets.searchable import place
from squish.tui.widgets.turns import Part
from squish.tui.widgets.welcome import Welcome

NARROW = 80
ROOMY = 100
SPACIOUS = 160


class ChatScreen(ChatMessages):
    """The chat and everything that can be done in it."""

    CSS_PATH = "chat.tcss"
    BINDINGS = actions.bindings("chat")

    _list_wanted: bool | None = None  # None: as the width allows
    _unsent = ""  # the draft of a new chat that was left before its first message

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "stop":
                return self._conversation.running is not None
            case "leave_edit":
                return self._editing is not None and self._conversation.running is None
            case "version":
                return self._has_versions
        return True

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        """Panels beside the chat where there is room; below 80 columns one pane at a time."""
        width = self.size.width
        roomy = width >= ROOMY and bool(self._conversation.id or self._list.marked)
        self.set_class(width < NARROW, "-narrow")
        self.set_class(width >= SPACIOUS, "-spacious")
        self.set_class(roomy if self._list_wanted is None else self._list_wanted, "-chats")
        self.call_after_refresh(self._refresh_list)

    def _refresh(self) -> None:
        super()._refresh()
        if self._list_wanted is None and self._conversation.id and not self.has_class("-chats"):
            self._lay_out()

    # ---- stopping, focus, panels

    # Focus moves at once, not with a message of its own: the letter that comes behind the key is for the new place.

    def action_stop(self) -> None:
        """End the answer."""
        turn = self._conversation.running
        if turn is None:
            return
        self._answering.stop(turn)
        if view := self._transcript.view_of(turn):
            view.update_note()

    def action_leave_edit(self) -> None:
        self._editing = None
        self._prompt.put(self._take_set_aside())
        self._refresh()

    def action_focus_prompt(self) -> None:
        """Back to writing."""
        if self.has_class("-narrow"):
            self._list_wanted = False
            self.remove_class("-params")
            self._lay_out()
        self._transcript.unmark()
        self.set_focus(self._prompt)

    def action_toggle_chats(self) -> None:
        self._list_wanted = not self.has_class("-chats") or not self._list.has_focus
        if self._list_wanted and self.has_class("-narrow"):
            self.remove_class("-params")
        self._lay_out()
        self._refresh_list()
        self.set_focus(self._list if self._list_wanted else self._prompt)

    def action_toggle_params(self) -> None:
        panel = self.query_one(ParamsPanel)
        if self.has_class("-params") and panel.has_focus_within:
            self.remove_class("-params")
            self.set_focus(self._prompt)
            return
        if self.has_class("-narrow"):
            self._list_wanted = False
            self._lay_out()
        self.add_class("-params")
        with self.telling():
            panel.show(self._conversation.settings, self._runtime.chats.presets())
        panel.focus_first()

    # ---- chats

    async def action_new_chat(self) -> None:
        settings = self._conversation.settings
        fresh = Conversation(self._runtime.chats, self._conversation.model, self._clock, settings=settings)
        await self._show(fresh)
        self.set_focus(self._prompt)

    @on(OpenChat)
    async def _open_chat(self, event: OpenChat) -> None:
        await self.open_chat(event.id)
        self.action_focus_prompt()

    async def action_open_marked(self) -> None:
        if self._list.marked is not None:
            await self.open_chat(self._list.marked)
        self.action_focus_prompt()

    async def open_chat(self, id: int, hit: Hit | None = None) -> None:
        """Show a chat, at what was found in it if asked for, on whatever branch that is."""
        message = hit.message if hit else None
        with self.telling():
            conversation = self._known.get(id) or Conversation.open(self._runtime.chats, id, self._clock)
            if message is not None and not turn_with(conversation, message):
                conversation.show_version(message)
            elif id in self._known and not conversation.running:
                conversation.reload()
            self._known[id] = conversation
            await self._show(conversation, hit)

    async def _show(self, conversation: Conversation, hit: Hit | None = None) -> None:
        self._keep_draft()
        if conversation.id is None:
            conversation.draft, self._unsent = self._unsent, ""
        self._conversation, self._editing, self._fullness = conversation, None, Context()
        conversation.unread = False
        self._find_manifest()
        self._show_welcome(not conversation.turns)
        found = turn_with(conversation, hit.message) if hit else None
        part: Part = "question" if hit and hit.role == "user" else "answer"
        await self._transcript.show(conversation.turns, found, part)
        if hit and found:
            said = found.question if part == "question" else found.answer.text
            if where := place(hit.snippet, said):
                self._transcript.show_place(where)
        self._prompt.put(conversation.draft)
        with self.telling():
            self.query_one(ParamsPanel).show(conversation.settings, self._runtime.chats.presets())
        self._recount()
        self._refresh()

    def _keep_draft(self) -> None:
        """Put what is written away with the chat that is left; that of a chat without a message waits for the next."""
        left = self._conversation
        left.draft = self._take_set_aside() if self._editing else self._prompt.text
        if left.id is None:
            self._unsent = left.draft
            return
        with self.telling():
            self._runtime.chats.keep_draft(left.id, left.draft)

    def on_unmount(self) -> None:
        self._keep_draft()

    def _find_manifest(self) -> None:
        """What is known of the model that this chat asks; it is loaded when it is asked."""
        self._manifest = None
        if not self._conversation.model:
            return
        try:
            self._manifest = self._runtime.store.find(self._conversation.model).manifest
            self.query_one(Welcome).show_model(self._manifest)
        except SquishError as error:
            self.app.notify(clean(f"{error.message} ctrl+l chooses another."), severity="warning", markup=False)

    async def action_step_chat(self, step: int) -> None:
        """The next chat of the list, or the one before it."""
        with self.telling():
            ids = [chat.id for chat in self._runtime.chats.recent()]
            if ids:
                at = ids.index(self._conversation.id) + step if self._conversation.id in ids else 0
                await self.open_chat(ids[at % len(ids)])

    async def action_rename_chat(self, title: str = "") -> None:
        id = self._list.marked if self._list.has_focus else self._conversation.id
        if id is None:
            self.app.notify("This chat has no name before its first message.", markup=False)
            return

        def take(line: str | None) -> None:
            if line:
                with self.telling():
                    self._runtime.chats.rename(id, line)
                self._refresh()

        if title:
            take(title)
            return
        with self.telling():
            await self.app.push_screen(LineScreen("Rename chat", clean(self._runtime.chats.get(id).title)), take)

    def action_delete_chat(self) -> None:
        id = self._list.marked if self._list.has_focus else self._conversation.id
        if id is None:
            return

        async def take(yes: bool | None) -> None:
            if yes:
                await self._delete(id)

        with self.telling():
            title = clean(self._runtime.chats.get(id).title)
            question = f"Delete “{title}” with all its messages? This cannot be undone."
            self.app.push_screen(ConfirmScreen("Delete chat", question, "Delete"), take)

    async def _delete(self, id: int) -> None:
        known = self._known.pop(id, None)
        if known and known.running:
            self._answering.leave(known.running)
        with self.telling():
            self._runtime.chats.remove(id)
        if id == self._conversation.id:
            self._conversation.id = None
            self._prompt.put(self._unsent)
            await self.action_new_chat()
        self._refresh()

    async def action_find(self, words: str = "") -> None:
        await self.app.push_screen(ChatSearchScreen(self._runtime.chats, words), self._found)

    async def _found(self, hit: Hit | None) -> None:
        if hit:
            await self.open_chat(hit.chat, hit)

    async def action_export(self, name: str = "") -> None:
        """Write the branch that is shown to a file that is not there yet."""
        id = self._conversation.id
        if id is None:
            self.app.notify("There is nothing to export yet.", markup=False)
            return
        with self.telling():
            chats = self._runtime.chats
            chat = chats.get(id)
            path = Path(name or file_name(chat)).expanduser()
            text = export(chat, chats.branch(id), format_of(path))
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
            except OSError as error:
                self.app.notify(clean(f"{path}: {error.strerror}."), severity="error", markup=False)
            else:
                self.app.notify(clean(f"Written to {path.absolute()}"), markup=False)

    # ---- the draft, scrolling, links

    async def action_editor(self) -> None:
        """Write the draft in the user's editor; answers go on meanwhile."""
        editor = os.environ.get("VISUAL", "").strip() or os.environ.get("EDITOR", "").strip() or "vi"
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "message.md"
                path.write_text(self._prompt.text, encoding="utf-8")
                with self.app.suspend(), self.app.batch_update():
                    process = await asyncio.create_subprocess_exec(*shlex.split(editor), str(path))
                    code = await process.wait()
                if code == 0:
                    self._prompt.put(path.read_text(encoding="utf-8", errors="replace").rstrip("\n"))
        except (SuspendNotSupported, OSError, ValueError) as error:  # ValueError: a quote that is not closed
            self.app.notify(clean(f"{editor} could not be used: {error}"), severity="error", markup=False)

    def action_transcript_page_up(self) -> None:
        self._transcript.scroll_page_up(animate=False)

    def action_transcript_page_down(self) -> None:
        self._transcript.scroll_page_down(animate=False)

    def action_latest(self) -> None:
        self._transcript.follow()

    @on(Markdown.LinkClicked)
    def _link_clicked(self, event: Markdown.LinkClicked) -> None:
        """Open web pages only: a model may write a link to anything."""
        if event.href.startswith(("https://", "http://")):
            self.app.open_url(event.href)
        else:
            self.app.notify(f"Not opened: {event.href}", severity="warning", markup=False)
