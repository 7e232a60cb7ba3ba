"""One conversation in view: its transcript, what is written below it, and how a question becomes an answer.

State changes only in handlers; what runs in the background posts messages. It posts ChatChanged for the screen around
it. What a chat is, what is sent and what is counted lies in tui/chat, without a widget.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from squish.chats.messages import Attachment, Hit
from squish.errors import SquishError
from squish.runtime import Runtime
from squish.text import clean
from squish.tui import actions
from squish.tui.advice import hint
from squish.tui.chat import attachments, context_meter
from squish.tui.chat.answer_tasks import AnswerTasks
from squish.tui.chat.context_meter import ContextMeter, Subject
from squish.tui.chat.conversation import Conversation, Question, Turn
from squish.tui.chat.conversations import Conversations
from squish.tui.chat.model_choice import ModelChoice
from squish.tui.messages import (
    AnswerEnded,
    AnswerEvent,
    ChatChanged,
    DraftChanged,
    FollowingChanged,
    QuestionSent,
    Typed,
)
from squish.tui.widgets.hints import Hints
from squish.tui.widgets.prompt import PromptInput
from squish.tui.widgets.searchable import place
from squish.tui.widgets.transcript import Transcript
from squish.tui.widgets.turns import Part
from squish.tui.widgets.welcome import Welcome

REMEMBERED = 200


class ChatView(Vertical):
    """The chat that `chats` shows, asked with the model of `model`."""

    def __init__(self, runtime: Runtime, chats: Conversations, model: ModelChoice) -> None:
        super().__init__(id="main")
        self._runtime, self._chats, self._model = runtime, chats, model
        self._meter = ContextMeter(runtime.sessions, self._subject, self._refresh_hints)
        self.transcript, self.prompt = Transcript(), PromptInput()
        self._welcome, self._hints = Welcome(), Hints()

    def compose(self) -> ComposeResult:
        yield self._welcome
        yield self.transcript
        yield self._hints
        yield self.prompt

    def on_mount(self) -> None:
        self._answers = AnswerTasks(self.app, self._runtime, self)
        self._show_welcome(True)
        with self.reporting_errors():
            self.prompt.remember(self._runtime.chats.recent_questions(REMEMBERED))
        self.run_worker(self._meter.run(), group="count", exit_on_error=False)

    @property
    def _shown(self) -> Conversation:
        return self._chats.shown

    @contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """What goes wrong is shown in a corner of the screen, and the chat goes on."""
        try:
            yield
        except SquishError as error:
            self.app.notify(f"{clean(error.message)} {hint(error)}".strip(), severity="error", markup=False)

    # ---- which chat

    async def show(self, found: Turn | None = None, hit: Hit | None = None) -> None:
        """Show the chat that is in view now, at what was found in it if asked for."""
        self._meter.forget()
        self._show_model()
        self._show_welcome(not self._shown.turns)
        part: Part = "question" if hit and hit.role == "user" else "answer"
        await self.transcript.show(self._shown.turns, found, part)
        if hit and found:
            text = found.question if part == "question" else found.answer.text
            if where := place(hit.snippet, text):
                self.transcript.show_place(where)
        self.prompt.put(self._shown.draft)
        self.recount()
        self._changed()

    def _show_model(self) -> None:
        try:
            if manifest := self._model.look_up(self._shown.model):
                self._welcome.show_model(manifest)
        except SquishError as error:
            self.app.notify(clean(f"{error.message} ctrl+l chooses another."), severity="warning", markup=False)

    def offer(self, title: str, day: str) -> None:
        """Let an empty chat name the one that was used last."""
        self._welcome.offer(title, day)

    async def notice(self, content: Content, kind: str = "plain") -> None:
        """Say something that is not part of the chat. kind: plain or error."""
        self._show_welcome(False)
        await self.transcript.add_notice(content, kind)

    def _show_welcome(self, shown: bool) -> None:
        self._welcome.display = shown
        self.transcript.display = not shown

    def _changed(self) -> None:
        self._refresh_hints()
        self.post_message(ChatChanged())

    # ---- a question and its answer

    @on(QuestionSent)
    async def _question_sent(self, event: QuestionSent) -> None:
        if command := actions.parse_slash(event.text):
            await self._run_command(command, event.text)
        elif not self._shown.model:
            self.app.notify("Choose a model with ctrl+l, or install one first.", severity="warning", markup=False)
            self.prompt.give_back(event.text)
        elif self._shown.live and self._answers.is_live(self._shown.live):
            self._shown.queue(Question(event.text, event.typed))
        elif self._meter.use.too_long:
            self.app.notify(context_meter.advice(self._meter.use), severity="warning", markup=False)
            self.prompt.give_back(event.text)
        else:
            await self._ask(self._shown, Question(event.text, event.typed))
        self._changed()

    async def _run_command(self, command: actions.SlashCommand, text: str) -> None:
        if command.action is None:
            name = f"/{command.name}"
            self.app.notify(f"{name} is not a command. /help lists all; put a space in front to send it.", markup=False)
            self.prompt.give_back(text)
            return
        argument = f"({command.argument!r})" if command.action.argument else ""
        await self.app.run_action(actions.qualified(command.action) + argument)

    async def _ask(self, conversation: Conversation, question: Question) -> None:
        """Ask in a chat, with the files that the question names; what cannot be asked becomes the draft again."""
        shown = conversation is self._shown
        edited = self._chats.editing if shown else None
        try:
            kept = edited.attachments if edited else ()
            files: tuple[Attachment, ...] = attachments.gather(question.typed, Path.cwd(), kept) if shown else ()
            turn = self._chats.ask(conversation, question.text, files)
        except SquishError as error:
            self.app.notify(clean(error.message), severity="warning", markup=False)
            self._give_back(conversation, question.text)
            return
        if shown:
            self._show_welcome(False)
            if edited:
                self.prompt.put(self._chats.take_set_aside())
                await self.transcript.show(conversation.turns)
            else:
                await self.transcript.add_turn(turn)
        self._answers.start(turn)

    def _give_back(self, conversation: Conversation, text: str) -> None:
        if conversation is self._shown:
            self.prompt.give_back(text)
        else:
            conversation.give_back(text)

    @on(AnswerEvent)
    def _answer_event(self, event: AnswerEvent) -> None:
        turn, answer = event.turn, event.turn.answer
        if not answer.running:
            return
        before = answer.phase
        added = answer.apply(event.event)
        if answer.running:
            with self.reporting_errors():
                self._chats.save(turn)
        if turn.conversation is not self._shown:
            return
        news = answer.phase not in ("writing", "thinking") or before != answer.phase
        if view := self.transcript.view_of(turn):
            view.write(added)
            if news:
                view.update_note()
        if news:
            self._changed()

    @on(AnswerEnded)
    async def _answer_ended(self, event: AnswerEnded) -> None:
        turn, conversation = event.turn, event.turn.conversation
        if not self._answers.ended(turn):
            return
        queued = self._chats.ended(turn, event.error)
        with self.reporting_errors():
            self._chats.save(turn)
        if conversation is self._shown and (view := self.transcript.view_of(turn)):
            await view.finish()
        if queued.text and turn.answer.phase == "done":
            await self._ask(conversation, queued)
        elif queued.text:
            self._give_back(conversation, queued.text)
        self.recount()
        self._changed()

    def stop(self) -> None:
        """End the answer."""
        if turn := self._shown.running:
            self._answers.stop(turn)
            if view := self.transcript.view_of(turn):
                view.update_note()

    def leave(self, turn: Turn | None) -> None:
        """End an answer that nobody wants to see any more."""
        if turn:
            self._answers.leave(turn)

    # ---- another question, another answer

    def _idle_turn(self) -> Turn | None:
        """The turn that is marked, or the last, when nothing is being written in this chat."""
        if self._shown.running:
            self.app.notify("Stop the answer first (esc).", markup=False)
            return None
        return self.transcript.current[0] if self.transcript.current else None

    async def _rewrite(self, turn: Turn) -> None:
        """Show the branch as it is now, and let the turn be answered."""
        self.transcript.unmark()
        await self.transcript.show(self._shown.turns)
        self._answers.start(turn)
        self.screen.set_focus(self.prompt)
        self._changed()

    async def regenerate(self) -> None:
        """Ask for another version of an answer."""
        if turn := self._idle_turn():
            with self.reporting_errors():
                await self._rewrite(self._shown.answer_again(turn))

    async def go_on(self) -> None:
        """Let an answer that was stopped or cut go on."""
        turn = self._idle_turn()
        if turn is None:
            return
        if not turn.answer.text or (turn.answer.reason == "stop" and turn.answer.phase == "done"):
            self.app.notify("This answer is complete; r retries it.", markup=False)
        elif turn is not self._shown.turns[-1]:
            self.app.notify("Only the last answer can be continued.", markup=False)
        else:
            self._shown.go_on(turn)
            await self._rewrite(turn)

    def edit(self) -> None:
        """Rewrite a question, into a branch of its own."""
        if turn := self._idle_turn():
            self._chats.edit(turn, self.prompt.draft)
            self.transcript.unmark()
            self.prompt.put(turn.question)
            self.screen.set_focus(self.prompt)
            self._changed()

    def leave_edit(self) -> None:
        """Give up an edit; the draft is there again."""
        self.prompt.put(self._chats.leave_edit())
        self._changed()

    async def show_version(self, step: int) -> None:
        """Show another version of the marked message, and the messages below it."""
        marked, versions = self.transcript.current, self.transcript.versions
        if marked is None or len(versions.ids) < 2:
            return
        wanted = versions.ids[(versions.at + step) % len(versions.ids)]
        with self.reporting_errors():
            self._shown.show_version(wanted)
            shown = self._shown.turn_with(wanted)
            await self.transcript.show(self._shown.turns, shown)
            if shown:
                self.transcript.mark(shown, marked[1])
        self.recount()
        self._changed()

    # ---- what is shown while it goes on

    def tick(self) -> None:
        """Save what was written, and say how far it is."""
        with self.reporting_errors():
            self._chats.save_growing()
        turn = self._shown.running
        if turn and (view := self.transcript.view_of(turn)):
            view.update_note()
            self._refresh_hints()

    @on(DraftChanged)
    def _draft_changed(self) -> None:
        self._meter.ask()
        self._refresh_hints()

    @on(FollowingChanged)
    def _following_changed(self) -> None:
        self._refresh_hints()

    @on(Typed)
    def _typed(self, event: Typed) -> None:
        self.transcript.unmark()
        self.screen.set_focus(self.prompt)
        self.prompt.take(event.text)

    def recount(self) -> None:
        """Count the chat and the draft again."""
        self._meter.recount(self._model.context_length)

    def _subject(self) -> Subject:
        """What the context meter counts."""
        draft = "" if actions.parse_slash(self.prompt.text) else self.prompt.draft
        return Subject(self._shown, draft, self._chats.editing, self._model.context_length)

    def _refresh_hints(self) -> None:
        editing = self._chats.editing is not None
        self._hints.show(self.prompt.text, editing=editing, queued=self._shown.queued.text)
        self.prompt.border_title = "" if self.transcript.following else "↓ more below · ctrl+end"
        running = self._shown.running
        use = self._meter.use.while_written(running.answer.context_used if running else 0)
        self.prompt.border_subtitle = use.label(max(self.prompt.size.width - 6, 20))
