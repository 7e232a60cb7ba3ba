"""What the chat's keys and commands do with whole chats: begin, open, rename, pin, tag, archive, delete, find and
export one.

Knows nothing of the model that answers. Errors are shown in a corner of the screen.
"""

from __future__ import annotations

from functools import partial

from textual.screen import Screen

from squish.chats import tags
from squish.chats.chats import Chats
from squish.chats.messages import Hit
from squish.chats.tags import TagChange
from squish.text import clean
from squish.tui.advice import reporting_errors
from squish.tui.chat.conversations import Conversations
from squish.tui.chat.exports import Exports
from squish.tui.key_hints import key
from squish.tui.messages import ChatChanged
from squish.tui.screens import chat_windows
from squish.tui.screens.model_and_parameters import ModelAndParameters
from squish.tui.widgets.chat.chat_panels import ChatPanels


class ChatCommands:
    """chats: what is saved; open_chats: those of this run, one of which is shown in the panels."""

    def __init__(
        self,
        screen: Screen[None],
        chats: Chats,
        open_chats: Conversations,
        panels: ChatPanels,
        asked_with: ModelAndParameters,
        exports: Exports,
    ) -> None:
        self._screen, self._chats, self._open = screen, chats, open_chats
        self._panels, self._view, self._asked_with = panels, panels.view, asked_with
        self._exports = exports

    def _changed(self) -> None:
        self._view.post_message(ChatChanged())

    @property
    def _meant(self) -> int | None:
        """The chat that is marked in the list, or the one that is shown."""
        chats = self._panels.chats
        return chats.marked if chats.has_focus else self._open.shown.id

    # ---- which one is shown

    async def begin(self) -> None:
        """Show a new chat."""
        with reporting_errors(self._screen.app):
            self._open.begin(self._view.prompt.draft)
        await self._view.show()
        self._asked_with.begin()
        self._screen.set_focus(self._view.prompt)

    async def open(self, id: int, hit: Hit | None = None) -> None:
        """Show a chat, at what was found in it if asked for, on whatever branch that is."""
        before, found, opened = self._open.shown, None, False
        with reporting_errors(self._screen.app):
            found = self._open.open(id, self._view.prompt.draft, hit.message if hit else None)
            opened = True
        if opened or self._open.shown is not before:  # also when the draft that is left could not be kept
            await self._view.show(found, hit)
        self._asked_with.show_parameters()

    async def step(self, step: int) -> None:
        """The next chat of the list, or the one before it."""
        with reporting_errors(self._screen.app):
            if (id := self._open.neighbor(step)) is not None:
                await self.open(id)

    async def continue_last(self) -> None:
        """The chat that was used last."""
        with reporting_errors(self._screen.app):
            for latest in self._chats.recent(1):
                await self.open(latest.id)

    async def find(self, words: str = "") -> None:
        """Search all chats, and show what was chosen."""
        await chat_windows.find(self._screen.app, self._chats, words, self._open_hit)

    async def _open_hit(self, hit: Hit) -> None:
        await self.open(hit.chat, hit)

    # ---- what becomes of one

    async def rename(self, title: str = "") -> None:
        """Give the meant chat another title; without one it is asked for."""
        app, id = self._screen.app, self._meant
        if id is None:
            app.notify("A chat can be renamed after its first message.", markup=False)
        elif title:
            self._rename(id, title)
        else:
            with reporting_errors(app):
                await chat_windows.rename(app, self._chats.get(id).title, partial(self._rename, id))

    def _rename(self, id: int, title: str) -> None:
        with reporting_errors(self._screen.app):
            self._chats.rename(id, title)
        self._changed()

    def pin(self) -> None:
        """Let the meant chat stay at the top of the list, or no longer."""
        app, id = self._screen.app, self._meant
        if id is None:
            app.notify("A chat can be pinned after its first message.", markup=False)
            return
        with reporting_errors(app):
            pinned = not self._chats.get(id).pinned
            self._chats.pin(id, pinned)
            app.notify("Pinned to the top of the list." if pinned else "No longer pinned.", markup=False)
        self._changed()

    async def tag(self, line: str = "") -> None:
        """Change the meant chat's tags as a line says; without one all of them are written anew."""
        app, id = self._screen.app, self._meant
        if id is None:
            app.notify("A chat can be tagged after its first message.", markup=False)
            return
        with reporting_errors(app):
            if line:
                self._tag(id, tags.change(line))
            else:
                await chat_windows.write_tags(app, self._chats.get(id).tags, partial(self._tag, id))

    def _tag(self, id: int, change: TagChange) -> None:
        with reporting_errors(self._screen.app):
            self._chats.tag(id, change)
            now = tags.written(self._chats.get(id).tags)
            self._screen.app.notify(f"Tagged {now}." if now else "This chat has no tags any more.", markup=False)
        self._changed()

    async def filter(self, tag: str = "") -> None:
        """List only the chats with a tag, or all of them."""
        app = self._screen.app
        with reporting_errors(app):
            known = self._chats.tags()
            if tag:
                wanted = tags.tag(tag)
                if wanted not in known:
                    app.notify(f"No chat is tagged #{wanted}.", markup=False)
                else:
                    self._list_only(wanted)
            elif known or self._open.tag:
                await chat_windows.pick_tag(app, known, self._open.tag, self._list_only)
            else:
                app.notify("No chat has a tag yet. /tag NAME gives this one its first.", markup=False)

    def _list_only(self, tag: str) -> None:
        self._open.tag = tag
        self._panels.show_chats()
        self._changed()

    async def archive(self) -> None:
        """Take the meant chat out of the list, or bring it back."""
        app, id = self._screen.app, self._meant
        if id is None:
            app.notify("A chat can be archived after its first message.", markup=False)
            return
        with reporting_errors(app):
            archived = not self._chats.get(id).archived
            self._chats.archive(id, archived)
            if archived:
                app.notify(
                    f"Archived. {key(app, 'chat.find')} still finds it; /archive there unarchives it.", markup=False
                )
                if id == self._open.shown.id:
                    await self.begin()
            else:
                app.notify("Unarchived.", markup=False)
        self._changed()

    def delete(self) -> None:
        """Delete the meant chat, after a yes."""
        if (id := self._meant) is not None:
            with reporting_errors(self._screen.app):
                title = self._chats.get(id).title
                chat_windows.confirm_deletion(self._screen.app, title, partial(self._delete, id))

    async def _delete(self, id: int) -> None:
        shown = id == self._open.shown.id
        with reporting_errors(self._screen.app):
            self._view.dialogue.leave(self._open.delete(id))
        if shown:
            self._view.prompt.put(self._open.unsent)
            await self.begin()
        self._changed()

    def export(self, name: str = "") -> None:
        """Write the branch that is shown to a file that is not there yet."""
        app, id = self._screen.app, self._open.shown.id
        if id is None:
            app.notify("Nothing to export yet.", markup=False)
            return
        app.run_worker(self._export(id, name), exit_on_error=False)

    async def _export(self, id: int, name: str) -> None:
        app = self._screen.app
        with reporting_errors(app):
            path = await self._exports.write(self._chats, id, name)
            app.notify(clean(f"Written to {path}"), markup=False)
