"""What one can do with the messages of a chat: mark, edit into a branch, ask again, go on, compare versions, copy; and
with the parameters they are asked with.
"""

from __future__ import annotations

import os

from textual import on
from textual.content import Content

from squish.text import clean
from squish.tui import clipboard
from squish.tui.chat import parameters
from squish.tui.chat.conversation import Conversation, Turn
from squish.tui.messages import SettingsChanged
from squish.tui.screens.chat_core import ChatCore
from squish.tui.widgets.markdown import code_blocks
from squish.tui.widgets.params import ParamsPanel


class ChatMessages(ChatCore):
    """Keys act on the marked message, or the last one."""

    # ---- messages

    def action_mark(self, step: int) -> None:
        self._transcript.move_mark(step)

    def _idle_turn(self) -> Turn | None:
        """The turn that is marked, when nothing is being written in this chat."""
        if self._conversation.running:
            self.app.notify("Stop the answer first (esc).", markup=False)
            return None
        marked = self._transcript.marked
        return marked[0] if marked else None

    async def _rewrite(self, turn: Turn) -> None:
        """Show the branch as it is now, and let the turn be answered."""
        self._transcript.unmark()
        await self._transcript.show(self._conversation.turns)
        self._answering.start(turn)
        self.set_focus(self._prompt)
        self._refresh()

    async def action_regenerate(self) -> None:
        if turn := self._idle_turn():
            with self.telling():
                await self._rewrite(self._conversation.answer_again(turn))

    async def action_continue(self) -> None:
        turn = self._idle_turn()
        if turn is None:
            return
        if not turn.answer.text or (turn.answer.reason == "stop" and turn.answer.phase == "done"):
            self.app.notify("This answer is complete; r asks for another one.", markup=False)
            return
        if turn is not self._conversation.turns[-1]:
            self.app.notify("Only the last answer can go on.", markup=False)
            return
        self._conversation.go_on(turn)
        await self._rewrite(turn)

    def action_edit(self) -> None:
        if turn := self._idle_turn():
            if self._editing is None:
                self._set_aside = self._prompt.text
            self._editing = turn
            self._transcript.unmark()
            self._prompt.put(turn.question)
            self.set_focus(self._prompt)
            self._refresh()

    @property
    def _has_versions(self) -> bool:
        """Whether the message that keys act on has more than one version."""
        marked = self._transcript.marked if self.is_mounted else None
        if marked is None:
            return False
        turn, part = marked
        return len((turn.questions if part == "question" else turn.answers).ids) > 1

    async def action_version(self, step: int) -> None:
        """Show another version of the marked message, with what was said below it."""
        marked = self._transcript.marked
        if marked is None:
            return
        turn, part = marked
        versions = turn.questions if part == "question" else turn.answers
        wanted = versions.ids[(versions.at + step) % len(versions.ids)]
        with self.telling():
            self._conversation.show_version(wanted)
            shown = turn_with(self._conversation, wanted)
            await self._transcript.show(self._conversation.turns, shown)
            if shown:
                self._transcript.mark(shown, part)
        self._recount()
        self._refresh()

    def action_fold(self) -> None:
        marked = self._transcript.marked
        if marked and (view := self._transcript.view_of(marked[0])):
            view.fold()

    async def action_copy_answer(self) -> None:
        """The marked message; the last answer that has text when none is marked."""
        marked = self._transcript.marked
        turn, part = marked if marked else (None, "answer")
        text = (turn.question if part == "question" else turn.answer.text) if turn else ""
        await self._copy(text or self._conversation.last_answer, "There is no answer to copy yet.")

    async def action_copy_code(self, number: str = "") -> None:
        """A block of code by its number; without one the last."""
        marked = self._transcript.marked
        blocks = code_blocks(marked[0].answer.text) if marked else []
        if not number.isdigit():
            await self._copy(blocks[-1] if blocks else "", "This answer has no block of code.")
        else:
            at = int(number) - 1
            await self._copy(blocks[at] if 0 <= at < len(blocks) else "", f"This answer has no block [{number}].")

    async def _copy(self, text: str, otherwise: str) -> None:
        if not text:
            self.app.notify(otherwise, markup=False)
            return
        program = clipboard.local_program(os.environ)
        if program is None or not await clipboard.fill(program, text):
            self.app.copy_to_clipboard(text)
        self.app.notify(f"Copied {len(text)} characters.", markup=False)

    # ---- parameters

    @on(SettingsChanged)
    def _settings_changed(self, event: SettingsChanged) -> None:
        with self.telling():
            self._conversation.configure(settings=event.settings)
        self._recount()

    def _configure(self, name: str, text: str) -> None:
        self._conversation.configure(settings=parameters.with_value(self._conversation.settings, name, text))
        self.query_one(ParamsPanel).show(self._conversation.settings, self._runtime.chats.presets())
        self._recount()

    async def action_set(self, text: str = "") -> None:
        """`/set temperature 0.2`; without a value back to the default; alone what is changed."""
        name, _, value = text.partition(" ")
        with self.telling():
            if name:
                self._configure(name, value)
            shown = {
                each.name: parameters.written(self._conversation.settings, each.name) for each in parameters.PARAMETERS
            }
            changed = " · ".join(f"{key} {value}" for key, value in shown.items() if value)
            await self._notice(Content(clean(changed) or "All parameters are at their defaults."))

    async def action_system(self, text: str = "") -> None:
        had = self._conversation.settings.system
        with self.telling():
            self._configure("system", text)
        if text:
            await self._notice(Content.assemble(("System prompt  ", "bold"), clean(text)))
        else:
            gone = f"System prompt taken away: {clean(had)}" if had else "No system prompt is set."
            await self._notice(Content(gone))

    def action_preset(self, text: str = "") -> None:
        """`/preset NAME` uses it; `/preset save NAME` keeps the settings under it; `/preset rm NAME` forgets it."""
        verb, _, name = text.partition(" ")
        chats, settings = self._runtime.chats, self._conversation.settings
        with self.telling():
            if verb in ("save", "rm") and name:
                chats.keep_preset(name, settings) if verb == "save" else chats.remove_preset(name)
                self.app.notify(clean(f"{name} is {'kept' if verb == 'save' else 'forgotten'}."), markup=False)
            presets = parameters.PRESETS | chats.presets()
            if text in presets:
                self._conversation.configure(settings=parameters.with_preset(settings, presets[text]))
            elif not name:
                self.app.notify(clean(f"Presets: {', '.join(presets)}."), markup=False)
            self.query_one(ParamsPanel).show(self._conversation.settings, chats.presets())


def turn_with(conversation: Conversation, message: int) -> Turn | None:
    """The turn on the branch that is shown to which a message belongs."""
    return next((each for each in conversation.turns if message in (each.question_id, each.answer_id)), None)
