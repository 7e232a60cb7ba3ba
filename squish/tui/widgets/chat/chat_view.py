"""One conversation in view: its turns, what is written below them, and how much of the context that takes.

State changes only in handlers; what runs in the background posts messages. It posts ChatChanged for the screen around
it. How a question becomes an answer is in dialogue.py; what is sent and counted lies in tui/chat, without a widget.
"""

from __future__ import annotations

from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from squish.attachments.gathering import Gatherer
from squish.chats.messages import Attachment, Hit
from squish.errors import SquishError
from squish.sessions.backend import Backend
from squish.text import clean
from squish.tui import actions
from squish.tui.advice import reporting_errors
from squish.tui.chat import context_meter
from squish.tui.chat.context_meter import ContextMeter, ContextUse, Subject
from squish.tui.chat.conversation import Conversation, Question, Turn
from squish.tui.chat.conversations import Conversations
from squish.tui.chat.model_choice import ModelChoice
from squish.tui.chat.parameters import usable
from squish.tui.key_hints import key
from squish.tui.messages import (
    AnswerEnded,
    AnswerEvent,
    CallDecided,
    ChatChanged,
    DraftChanged,
    FollowingChanged,
    QuestionSent,
    TitleWritten,
    Typed,
)
from squish.tui.widgets.chat.calls import CallQuestion
from squish.tui.widgets.chat.dialogue import Dialogue
from squish.tui.widgets.chat.hints import Hints
from squish.tui.widgets.chat.prompt import PromptInput
from squish.tui.widgets.chat.transcript import Transcript

REMEMBERED = 200


class ChatView(Vertical):
    """The chat that `chats` shows, asked with the model of `model`."""

    def __init__(self, runtime: Backend, chats: Conversations, model: ModelChoice) -> None:
        super().__init__(id="main")
        self._runtime, self._chats, self._model = runtime, chats, model
        files = Gatherer(offline=runtime.settings.offline)
        self._meter = ContextMeter(runtime.sessions, files, self._subject, self._refresh_hints)
        self.prompt, self._hints, self._question = PromptInput(), Hints(), CallQuestion()
        self.dialogue = Dialogue(self, runtime, chats, self.prompt, files, self._measure)
        self.files, self.measure = files, self._measure
        self.typed_argument = ""  # of the latest command, without what was pasted in bulk

    def compose(self) -> ComposeResult:
        yield self.dialogue.welcome
        yield self.dialogue.transcript
        yield self._hints
        yield self._question
        yield self.prompt

    def on_mount(self) -> None:
        self.dialogue.show_welcome(True)
        with reporting_errors(self.app):
            self.prompt.remember(self._runtime.chats.recent_questions(REMEMBERED))
        self.run_worker(self._meter.run(), group="count", exit_on_error=False)

    @property
    def transcript(self) -> Transcript:
        return self.dialogue.transcript

    @property
    def _shown(self) -> Conversation:
        return self._chats.shown

    async def show(self, found: Turn | None = None, hit: Hit | None = None) -> None:
        """Show the chat that is in view now, at what was found in it if asked for."""
        # Before anything is waited for: a tick meanwhile keeps what stands in the prompt as the draft of this chat.
        self.prompt.put(self._shown.draft)
        self._meter.forget()
        self.offer(None)
        if error := self.show_model():
            self.app.notify(self._advice(error), severity="warning", markup=False)
        await self.dialogue.show(found, hit)
        self.recount()
        self._changed()

    def offer(self, latest: tuple[str, str] | None) -> None:
        """Let an empty prompt's ↑ continue the chat used last: its title and day, or None where none is left."""
        self.prompt.offers = latest is not None
        self.dialogue.welcome.offer(latest)

    def show_model(self) -> SquishError | None:
        """Look up the model of the shown chat, and show what it is; why it cannot answer, or None where it can."""
        try:
            if manifest := self._model.look_up(self._shown.model):
                self.dialogue.welcome.show_model(manifest)
        except SquishError as error:
            self.dialogue.welcome.show_missing(clean(self._shown.model), self._advice(error))
            return error
        return None

    def _advice(self, error: SquishError) -> str:
        """Why the shown chat's model cannot answer, and what to do."""
        chooses = f"{key(self.app, 'chat.model')} chooses another model."
        if self._model.missing and not self._model.where:
            chooses = f"{key(self.app, 'app.hub')} downloads models, {chooses.replace(' model', '')}"
        return clean(f"{error.message} {chooses}")

    def _changed(self) -> None:
        self.post_message(ChatChanged())

    # ---- a question and its answer

    @on(QuestionSent)
    async def _question_sent(self, event: QuestionSent) -> None:
        question = Question(event.text, event.typed)
        if command := actions.parse_slash(event.text):
            await self._run_command(command, event)
        elif not self._shown.model:
            self.app.notify(
                f"Choose a model with {key(self.app, 'chat.model')}, or install one first.",
                severity="warning",
                markup=False,
            )
            self.prompt.give_back(event.text)
        elif not self.dialogue.queue(question):
            if self._meter.use.too_long:
                advice = context_meter.advice(self._meter.use, self._shown.settings, partial(key, self.app))
                self.app.notify(advice, severity="warning", markup=False)
                self.prompt.give_back(event.text)
            else:
                self.offer(None)
                await self.dialogue.ask(self._shown, question)
        self._changed()

    async def _run_command(self, command: actions.SlashCommand, event: QuestionSent) -> None:
        if command.action is None:
            name = f"/{command.name}"
            self.app.notify(f"{name} is not a command. /help lists all; put a space in front to send it.", markup=False)
            self.prompt.give_back(event.text)
            return
        argument = f"({command.argument!r})" if command.action.argument else ""
        typed = actions.parse_slash(event.typed)
        self.typed_argument = typed.argument if typed else ""
        await self.app.run_action(actions.qualified(command.action) + argument)

    @on(AnswerEvent)
    def _answer_event(self, event: AnswerEvent) -> None:
        self.dialogue.take(event)

    @on(AnswerEnded)
    async def _answer_ended(self, event: AnswerEnded) -> None:
        if await self.dialogue.end(event):
            self.recount()
            self._changed()

    @on(TitleWritten)
    def _title_written(self, event: TitleWritten) -> None:
        with reporting_errors(self.app):
            self._chats.give_title(event.conversation, event.title)
        self._changed()

    @on(CallDecided)
    def _decided(self, event: CallDecided) -> None:
        self.dialogue.decide(event.decision)

    def answer_question(self) -> None:
        """Go to the question whether a call may be made, if there is one."""
        if self._question.call is not None:
            self._question.focus_list()

    def page(self, step: int) -> None:
        """Scroll the question that has the keys, else the transcript."""
        if self._question.has_focus_within:
            self._question.page(step)
        elif step > 0:
            self.transcript.scroll_page_down(animate=False)
        else:
            self.transcript.scroll_page_up(animate=False)

    def _show_question(self) -> None:
        """Ask about a call of the shown chat. The keys go to the question unless something is being written."""
        before, call = self._question.call, self.dialogue.question
        had_focus = self._question.has_focus_within
        self._question.show(call)
        if call is not None and call is not before and not self.prompt.text and self.prompt.has_focus:
            self._question.focus_list()
        elif call is None and had_focus:
            self.screen.set_focus(self.prompt)

    def edit(self) -> None:
        """Rewrite a question, into a branch of its own."""
        if turn := self.dialogue.answered_turn():
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
        if await self.dialogue.show_version(step):
            self.recount()
            self._changed()

    # ---- what is shown while it goes on

    def tick(self) -> None:
        """Save what was written, and say how far it is."""
        with reporting_errors(self.app):
            self._chats.save_growing()
        self.dialogue.titles.look()
        if self.dialogue.update_note() or self.dialogue.outgoing.is_reading_for(self._shown):
            self._refresh_hints()

    @on(DraftChanged)
    def _draft_changed(self) -> None:
        self._meter.ask()
        self._refresh_hints()

    @on(FollowingChanged)
    @on(ChatChanged)
    def _refresh_hints(self) -> None:
        self._show_question()
        editing = self._chats.editing is not None
        outgoing = self.dialogue.outgoing
        reading = (outgoing.names, outgoing.waited) if outgoing.is_reading_for(self._shown) else None
        self._hints.show(self.prompt.text, editing=editing, queued=self._shown.queued.text, reading=reading)
        tools = Content(f"⚙ {clean(', '.join(self._shown.tools.servers))}" if self._shown.tools.servers else "")
        self.prompt.border_title = (
            tools if self.transcript.shows_end else Content(f"↓ more below · {key(self.app, 'chat.latest')}")
        )
        running = self._shown.running
        use = self._meter.use.while_written(running.answer.context_used if running else 0)
        self.prompt.border_subtitle = use.label(max(self.prompt.size.width - 6, 20))

    @on(Typed)
    def _typed(self, event: Typed) -> None:
        event.stop()
        self.write(event.text)

    def write(self, text: str) -> None:
        """Go to the prompt with what was typed elsewhere."""
        self.transcript.unmark()
        self.screen.set_focus(self.prompt)
        self.prompt.take(text)

    async def go_on(self) -> None:
        """Let an answer that was stopped or cut go on, where there is room for more of it."""
        limit, turns = self._limit(self._shown), self._shown.turns
        full = turns and turns[-1].answer.reason == "context" and 0 < limit <= self._shown.context_used
        if full and self.dialogue.idle_turn() is turns[-1]:
            advice = context_meter.no_room(limit, self._shown.settings, partial(key, self.app))
            self.app.notify(advice, severity="warning", markup=False)
        else:
            await self.dialogue.go_on()

    def recount(self) -> None:
        """Count the chat and the draft again."""
        self._meter.recount(self._limit(self._shown))

    def _limit(self, conversation: Conversation) -> int:
        settings = usable(conversation.settings, self._runtime.offers.fixed)
        return context_meter.limit(self._model.context_length, settings)

    def _subject(self) -> Subject:
        """What the context meter counts."""
        draft = "" if actions.parse_slash(self.prompt.text) else self.prompt.draft
        return Subject(self._shown, draft, self._chats.editing, self._limit(self._shown))

    async def _measure(
        self, conversation: Conversation, text: str, files: tuple[Attachment, ...], editing: Turn | None
    ) -> ContextUse | None:
        """How full the context is with a message and its files."""
        subject = Subject(conversation, text, editing, self._limit(conversation))
        return await context_meter.count(self._runtime.sessions, subject, files)
