"""How a question becomes an answer, and an answer another version of itself, in the transcript of the shown chat.

State changes only in the handlers of the view around it, which call this. What is sent and saved lies in tui/chat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.notifications import SeverityLevel
from textual.widget import Widget

from squish.attachments.mentions import mentions
from squish.chats.messages import CalledTool, Hit
from squish.errors import SquishError
from squish.mcp.events import Offered
from squish.sessions.backend import Backend
from squish.system.working_directory import working_directory
from squish.text import clean
from squish.tui.advice import hint, reporting_errors
from squish.tui.chat.answer_tasks import AnswerTasks, Decision
from squish.tui.chat.conversation import Conversation, Question, Turn
from squish.tui.chat.conversations import Conversations
from squish.tui.chat.outgoing import Draft, Files, Measure, Outgoing
from squish.tui.chat.titles import Titles
from squish.tui.key_hints import key
from squish.tui.messages import AnswerEnded, AnswerEvent, ChatChanged
from squish.tui.widgets.chat.prompt import PromptInput
from squish.tui.widgets.chat.transcript import Transcript
from squish.tui.widgets.chat.welcome import Welcome

if TYPE_CHECKING:
    from squish.attachments.gathering import Gatherer
    from squish.tui.widgets.chat.turns import Part


class Dialogue:
    """Its listener, the view around it, gets AnswerEvent, AnswerEnded and ChatChanged.

    files: reads what a message names; measure: how full the context is with a message and its files.
    """

    def __init__(
        self, listener: Widget, runtime: Backend, chats: Conversations, prompt: PromptInput,
        files: Gatherer, measure: Measure,
    ) -> None:  # fmt: skip
        self._listener, self._chats, self._prompt = listener, chats, prompt
        self._answers = AnswerTasks(runtime, listener)
        self.titles = Titles(runtime, listener, lambda: self._answers.busy)
        self.outgoing = Outgoing(listener, files, measure, self._ask, self._not_sent)
        self.welcome, self.transcript = Welcome(), Transcript()

    @property
    def _shown(self) -> Conversation:
        return self._chats.shown

    def _changed(self) -> None:
        self._listener.post_message(ChatChanged())

    def _advise(self, text: str, severity: SeverityLevel = "information") -> None:
        self._listener.app.notify(text, severity=severity, markup=False)

    # ---- what is shown

    def show_welcome(self, shown: bool) -> None:
        """Show how to begin, or the turns."""
        self.welcome.display, self.transcript.display = shown, not shown

    async def show(self, found: Turn | None = None, hit: Hit | None = None) -> None:
        """Show the turns of the chat that is in view now, at what was found in it if asked for."""
        self.show_welcome(not self._shown.turns)
        part: Part = "question" if hit and hit.role == "user" else "answer"
        await self.transcript.show(self._shown.turns, found, part)
        if hit and found:
            from squish.tui.widgets.markdown.searchable import place

            text = found.question if part == "question" else found.answer.text
            if where := place(hit.snippet, text):
                self.transcript.show_place(where)

    async def notice(self, content: Content, kind: str = "plain") -> None:
        """Say something that is not part of the chat. kind: plain, error or parameters."""
        self.show_welcome(False)
        await self.transcript.add_notice(content, kind)

    def update_note(self) -> bool:
        """Say how far the answer is that is being written here; whether there is one."""
        turn = self._shown.running
        view = self.transcript.view_of(turn) if turn else None
        if view:
            self._answers.look()
            view.update_note()
        return view is not None

    # ---- a question and its answer

    def queue(self, question: Question) -> bool:
        """Keep a question until the answer before it has ended; whether there is such an answer."""
        waits = self._shown.live is not None and self._answers.is_live(self._shown.live)
        if waits:
            self._shown.queue(question)
        return waits

    async def ask(self, conversation: Conversation, question: Question) -> None:
        """Ask in a chat, with the files that the question names; what cannot be asked becomes the draft again."""
        editing = self._chats.editing if conversation is self._shown else None
        await self.outgoing.send(Draft(conversation, question, editing, mentions(question.typed, working_directory())))
        self._changed()

    async def _ask(self, draft: Draft, files: Files) -> None:
        conversation, shown = draft.conversation, draft.conversation is self._shown
        edited = self._chats.editing if shown else None
        if edited is not draft.editing:
            self._not_sent(draft, "Not sent: the message that it should replace is not being edited any more.")
            return
        try:
            turn = self._chats.ask(conversation, draft.question.text, files)
        except SquishError as error:
            self._not_sent(draft, f"{error.message} {hint(error, self._listener.app)}".strip())
            return
        if shown:
            self.show_welcome(False)
            if edited:
                self._prompt.put(self._chats.take_set_aside())
                await self.transcript.show(conversation.turns)
            else:
                await self.transcript.add_turn(turn)
        self._start(turn)
        self._changed()

    def _not_sent(self, draft: Draft, reason: str) -> None:
        if reason:
            self._advise(clean(reason), "warning")
        self._give_back(draft.conversation, draft.question.text)
        self._changed()

    def _start(self, turn: Turn) -> None:
        self.titles.stop()
        self._answers.start(turn)

    def _give_back(self, conversation: Conversation, text: str) -> None:
        if conversation is self._shown:
            self._prompt.give_back(text)
        else:
            conversation.give_back(text)

    def take(self, event: AnswerEvent) -> None:
        """Show and save what the engine said about a turn."""
        turn, answer = event.turn, event.turn.answer
        if not answer.running:
            return
        before = answer.phase
        if isinstance(event.event, Offered):
            turn.conversation.offered = event.event.tools
        added = answer.apply(event.event)
        if answer.running:
            with reporting_errors(self._listener.app):
                self._chats.save(turn)
        if answer.phase == "asking" and before != "asking":
            self._tell_of_question(turn)
        if turn.conversation is not self._shown:
            return
        news = answer.phase not in ("writing", "thinking") or before != answer.phase
        if view := self.transcript.view_of(turn):
            view.show_steps()
            view.write(added)
            if news:
                view.update_note()
        if news:
            self._changed()

    def _tell_of_question(self, turn: Turn) -> None:
        """Say that an answer waits for the user, where he cannot see that."""
        seen = turn.conversation is self._shown and self._listener.screen.is_current
        if self._answers.question(turn) and not seen:
            self._advise(f"“{clean(turn.conversation.title)[:60]}” asks whether a tool may be called.", "warning")

    async def end(self, event: AnswerEnded) -> bool:
        """An answer has ended: show its last words, and ask what waited for it. False: that was known already."""
        turn, conversation = event.turn, event.turn.conversation
        if not self._answers.ended(turn):
            return False
        queued = self._chats.ended(turn, event.error)
        with reporting_errors(self._listener.app):
            self._chats.save(turn)
        if conversation is self._shown and (view := self.transcript.view_of(turn)):
            view.show_steps()
            await view.finish()
        if queued.text and turn.answer.phase == "done":
            await self.ask(conversation, queued)
        elif queued.text:
            self._give_back(conversation, queued.text)
        if turn.answer.phase == "done":
            self.titles.want(conversation)
        return True

    @property
    def question(self) -> CalledTool | None:
        """The call that somebody has to allow or refuse in the shown chat."""
        turn = self._shown.running
        return self._answers.question(turn) if turn else None

    def decide(self, decision: Decision) -> None:
        """Allow or refuse that call."""
        if turn := self._shown.running:
            with reporting_errors(self._listener.app):
                self._answers.decide(turn, decision)
            self._changed()

    def stop(self) -> None:
        """End the answer, or the reading of what is to go along with a message."""
        if self.outgoing.is_reading_for(self._shown):
            self.outgoing.stop()
        elif turn := self._shown.running:
            self._answers.stop(turn)
            self.update_note()

    def leave(self, turn: Turn | None) -> None:
        """End an answer that nobody wants to see any more."""
        if turn:
            self._answers.leave(turn)

    # ---- another question, another answer

    def idle_turn(self) -> Turn | None:
        """The turn that is marked, or the last, when nothing is being written in this chat."""
        if self._shown.running:
            self._advise(f"Stop the answer first ({key(self._listener.app, 'chat.stop')}).")
            return None
        return self.transcript.current[0] if self.transcript.current else None

    def answered_turn(self) -> Turn | None:
        """The same, for what is nothing without one: that there is none yet is said."""
        if not self._shown.turns:
            self._advise("No question has been asked in this chat yet.")
        return self.idle_turn()

    async def _rewrite(self, turn: Turn) -> None:
        """Show the branch as it is now, and let the turn be answered."""
        self.transcript.unmark()
        await self.transcript.show(self._shown.turns)
        self._start(turn)
        self._listener.screen.set_focus(self._prompt)
        self._changed()

    async def regenerate(self) -> None:
        """Ask for another version of an answer."""
        if turn := self.answered_turn():
            with reporting_errors(self._listener.app):
                await self._rewrite(self._shown.answer_again(turn))

    async def go_on(self) -> None:
        """Let an answer that was stopped or cut go on."""
        turn = self.answered_turn()
        if turn is None:
            return
        answer = turn.answer
        if not (answer.text or answer.steps) or (answer.reason == "stop" and answer.phase == "done"):
            self._advise("This answer is complete; /again retries it.")
        elif turn is not self._shown.turns[-1]:
            self._advise("Only the last answer can be continued.")
        else:
            self._shown.go_on(turn)
            await self._rewrite(turn)

    async def show_version(self, step: int) -> bool:
        """Show another version of the marked message, and the messages below it. False: it has only this one."""
        marked, versions = self.transcript.current, self.transcript.versions
        if marked is None or len(versions.ids) < 2:
            return False
        wanted = versions.ids[(versions.at + step) % len(versions.ids)]
        with reporting_errors(self._listener.app):
            self._shown.show_version(wanted)
            shown = self._shown.turn_with(wanted)
            await self.transcript.show(self._shown.turns, shown)
            if shown:
                self.transcript.mark(shown, marked[1])
        return True
