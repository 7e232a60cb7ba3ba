"""`/compare`: what is asked of several models at once, and what the chat shows afterwards.

Errors are shown in a corner of the screen.
"""

from __future__ import annotations

import random
from typing import Any

from textual.app import App
from textual.content import Content
from textual.screen import Screen

from squish.attachments.mentions import mentions
from squish.chats.presets import all_of
from squish.sessions.backend import Backend
from squish.system.working_directory import working_directory
from squish.text import clean
from squish.tui import actions
from squish.tui.advice import reporting_errors
from squish.tui.chat import comparison
from squish.tui.chat.comparison import Comparison, Lineup
from squish.tui.chat.conversation import Question, Turn
from squish.tui.chat.conversations import Conversations
from squish.tui.chat.model_choice import ModelChoice
from squish.tui.chat.outgoing import Draft, Files, Outgoing
from squish.tui.key_hints import key
from squish.tui.memory_readings import MemoryReadings
from squish.tui.screens.model_and_parameters import ModelAndParameters
from squish.tui.widgets.chat.chat_view import ChatView

_HOW = "Type the question after /compare, then press enter."


class CompareCommands:
    """chats: those of this run, one of which is shown in the view. What was marked last is marked again."""

    def __init__(
        self, screen: Screen[None], runtime: Backend, chats: Conversations, model: ModelChoice, view: ChatView,
        asked_with: ModelAndParameters, memory: MemoryReadings,
    ) -> None:  # fmt: skip
        self._screen, self._runtime, self._chats, self._model = screen, runtime, chats, model
        self._view, self._asked_with, self._memory = view, asked_with, memory
        self._entry = Lineup(())
        self._shuffle = random.shuffle
        self._outgoing = Outgoing(view, view.files, view.measure, self._ask, self._not_sent)

    async def compare(self, text: str = "") -> None:
        """Compare answers to a text, to the draft, or to the question of the marked turn, else of the last."""
        app, shown, prompt = self._screen.app, self._chats.shown, self._view.prompt
        question = Question(text, self._view.typed_argument) if text else self._drafted()
        if shown.running or self._chats.editing:
            app.notify(
                f"Stop the answer first ({key(app, 'chat.stop')})." if shown.running else "Send the edit first.",
                markup=False,
            )
            return
        again = None if question.text.strip() else self._view.dialogue.idle_turn()
        if not question.text.strip() and again is None:
            prompt.put("/compare ")
            app.notify(_HOW, markup=False)
            return
        with reporting_errors(app):
            await self._choose(question, again)

    def _drafted(self) -> Question:
        """The draft; of one that begins with the command itself, what stands behind it."""
        sent, typed = (actions.parse_slash(each) for each in (self._view.prompt.draft, self._view.prompt.text))
        if sent and typed and sent.action and sent.action.id == "chat.compare":
            return Question(sent.argument, typed.argument)
        return Question(self._view.prompt.draft, self._view.prompt.text)

    async def _choose(self, question: Question, again: Turn | None) -> None:
        from squish.tui.windows.compare_picker import ComparePicker

        shown = self._chats.shown
        presets = all_of(self._runtime.chats)
        settings = self._asked_with.settings_for([each.id for each in self._model.installed()])
        offered = comparison.candidates(settings, shown.model, presets)
        if not offered:
            self._screen.app.notify(
                f"No model is installed yet. {key(self._screen.app, 'app.hub')} finds one.",
                severity="warning",
                markup=False,
            )
            return
        known = self._entry.candidates and all(each in offered for each in self._entry.candidates)
        entry = self._entry if known else Lineup(comparison.suggested(offered), self._entry.blind, self._entry.in_turn)

        async def chosen(entry: Lineup | None) -> None:
            if entry:
                self._entry = entry
                await self._send(question, again)

        asked = again.question if again else question.text
        await self._screen.app.push_screen(ComparePicker(offered, entry, asked), chosen)

    async def _send(self, question: Question, again: Turn | None) -> None:
        if again:
            with reporting_errors(self._screen.app):
                await self._begin(again.question, (), again)
            return
        self._view.prompt.remember([question.text])
        self._view.prompt.put("")
        mentioned = mentions(question.typed, working_directory())
        await self._outgoing.send(Draft(self._chats.shown, question, None, mentioned))

    async def _ask(self, draft: Draft, files: Files) -> None:
        if draft.conversation is self._chats.shown:
            with reporting_errors(self._screen.app):
                await self._begin(draft.question.text, files, None)
        else:
            self._not_sent(draft, "Not compared: another chat is shown now.")

    def _not_sent(self, draft: Draft, reason: str) -> None:
        if reason:
            self._screen.app.notify(clean(reason), severity="warning", markup=False)
        if draft.conversation is self._chats.shown:
            self._view.prompt.give_back(draft.question.text)
        else:
            draft.conversation.give_back(draft.question.text)

    async def _begin(self, question: str, files: Files, again: Turn | None) -> None:
        from squish.tui.screens.compare import CompareScreen

        shown = self._chats.shown
        begun = Comparison.begin(shown, self._entry, question, files, again, self._shuffle)
        self._chats.know(shown)
        self._view.dialogue.titles.stop()

        async def ended(_: None) -> None:
            await self._ended(begun)

        await self._screen.app.push_screen(CompareScreen(self._runtime, begun, self._memory), ended)

    async def _ended(self, ended: Comparison) -> None:
        """Show the chat with what was kept, and whose it is."""
        await self._view.show()
        self._asked_with.show_parameters()
        await self._view.dialogue.notice(Content(clean(_said(ended, self._screen.app))))
        self._view.dialogue.titles.want(ended.conversation)


def _said(ended: Comparison, app: App[Any]) -> str:
    mark, older, newer = (key(app, id) for id in ("chat.mark_up", "transcript.older", "transcript.newer"))
    if ended.kept is None:
        return f"Nothing was kept; all answers are versions of this one: {mark}, then {older} and {newer}."
    others = [each.candidate.name for each in ended.contenders if each is not ended.kept]
    kept = "answer of {} is kept as another version" if len(others) == 1 else "answers of {} are kept as other versions"
    versions = f"The {kept.format(' and '.join(others))}: {mark}, then {older} and {newer}."
    return f"{ended.kept.candidate.name} answers from here on. {versions}"
