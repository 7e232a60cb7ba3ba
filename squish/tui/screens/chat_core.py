"""What the chat screen shows and how a question becomes an answer: one conversation in view, others answered behind it.

State changes only in its handlers; what runs in the background posts messages. What one can do with chats and with
single messages is in chat.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen

from squish.chats.chats import Attachment
from squish.errors import SquishError
from squish.models.store import Manifest
from squish.runtime import Runtime
from squish.text import clean
from squish.tui import actions, counting, loading, status_facts
from squish.tui.chat import attachments, context_meter
from squish.tui.chat.answer_tasks import AnswerTasks
from squish.tui.chat.context_meter import Context
from squish.tui.chat.conversation import Conversation, Turn
from squish.tui.memory_readings import MemoryReadings
from squish.tui.messages import AnswerEnded, AnswerEvent, DraftChanged, FollowingChanged, ModelLoaded, QuestionSent
from squish.tui.screens.model_picker import ModelPicker
from squish.tui.widgets.chat_list import ChatList, ChatRow
from squish.tui.widgets.hints import Hints
from squish.tui.widgets.keys import Keys
from squish.tui.widgets.params import ParamsPanel
from squish.tui.widgets.prompt import PromptInput
from squish.tui.widgets.status import StatusStrip
from squish.tui.widgets.transcript import Transcript
from squish.tui.widgets.turns import error_content
from squish.tui.widgets.welcome import Welcome

TICK = 0.5
LISTED = 500
REMEMBERED = 200


class ChatCore(Screen[None]):
    """One conversation in view, with one model at a time."""

    AUTO_FOCUS = "#prompt"

    def __init__(
        self, runtime: Runtime, model: str | None, machine: MemoryReadings, clock: Callable[[], float]
    ) -> None:
        super().__init__()
        self._runtime = runtime
        self._machine = machine
        self._wanted = model
        self._clock = clock
        self._manifest: Manifest | None = None
        self._conversation = Conversation(runtime.chats, "", clock)
        self._known: dict[int, Conversation] = {}  # chats of this run, for their live answers, drafts and news
        self._editing: Turn | None = None
        self._set_aside = ""  # the draft that an edit took the place of
        self._fullness = Context()
        self._escape = (False, False)

    def compose(self) -> ComposeResult:
        yield StatusStrip()
        with Horizontal(id="body"):
            yield ChatList()
            with Vertical(id="main"):
                yield Welcome()
                yield Transcript()
                yield Hints()
                yield PromptInput()
            yield ParamsPanel()
        yield Keys()

    async def on_mount(self) -> None:
        self._answering = AnswerTasks(self.app, self._runtime, self)
        self._transcript = self.query_one(Transcript)
        self._prompt = self.query_one(PromptInput)
        self._strip = self.query_one(StatusStrip)
        self._list = self.query_one(ChatList)
        self._show_welcome(True)
        with self.telling():
            self._prompt.remember(self._runtime.chats.recent_questions(REMEMBERED))
        await self._choose_first_model()
        self.set_interval(TICK, self._tick)
        self._refresh()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What goes wrong is told in a corner of the screen, and the chat goes on."""
        try:
            yield
        except SquishError as error:
            self.app.notify(clean(f"{error.message} {error.hint or ''}"), severity="error", markup=False)

    # ---- the model

    async def _choose_first_model(self) -> None:
        """The model that was asked for, or the first that is installed."""
        if self._wanted is not None:
            await self._choose(self._wanted)
        if not self._conversation.model:
            try:
                installed = self._runtime.store.list()
            except SquishError as error:
                await self._notice(error_content(error), "error")
                return
            if installed:
                await self._choose(installed[0].id)
            else:
                self.query_one(Welcome).show_nothing_installed()

    async def _choose(self, name: str) -> None:
        """Make a model the one that answers next, and load it while the user writes."""
        try:
            self._manifest = self._runtime.store.find(name).manifest
        except SquishError as error:
            await self._notice(error_content(error), "error")
            return
        with self.telling():
            self._conversation.configure(model=self._manifest.id)
        self.query_one(Welcome).show_model(self._manifest)
        self.app.run_worker(self._load(self._manifest.id), group="load", exit_on_error=False)
        self._refresh()

    async def _load(self, model: str) -> None:
        self.post_message(ModelLoaded(model, await loading.load(self._runtime.sessions, model)))

    @on(ModelLoaded)
    async def _model_loaded(self, event: ModelLoaded) -> None:
        told = self._conversation.running or any(turn.answer.error for turn in self._conversation.turns[-1:])
        if event.error and event.model == self._conversation.model and not told:
            await self._notice(error_content(event.error), "error")
        self._recount()
        self._refresh()

    async def action_pick_model(self, name: str = "") -> None:
        if name:
            await self._choose(name)
            return
        try:
            installed = self._runtime.store.list()
        except SquishError as error:
            await self._notice(error_content(error), "error")
            return
        await self.app.push_screen(ModelPicker(installed, self._conversation.model), self._picked)

    async def _picked(self, name: str | None) -> None:
        if name and name != self._conversation.model:
            await self._choose(name)

    # ---- a question

    @on(QuestionSent)
    async def _question_sent(self, event: QuestionSent) -> None:
        command = actions.parse_slash(event.text)
        if command:
            await self._run_command(command, event.text)
        elif not self._conversation.model:
            self.app.notify("Choose a model with ctrl+l, or install one first.", severity="warning", markup=False)
            self._prompt.give_back(event.text)
        elif self._conversation.live and self._answering.is_live(self._conversation.live):
            queued = self._conversation.queued
            self._conversation.queued = f"{queued}\n\n{event.text}" if queued else event.text
        else:
            await self._send(event.text)
        self._refresh()

    async def _run_command(self, command: actions.SlashCommand, text: str) -> None:
        action = command.action
        if action is None:
            name = f"/{command.name}"
            self.app.notify(f"There is no {name}. /help lists all; a space in front sends it.", markup=False)
            self._prompt.give_back(text)
            return
        argument = f"({command.argument!r})" if action.argument else ""
        await self.app.run_action(actions.qualified(action) + argument)

    async def _send(self, text: str) -> None:
        """Ask what the user wrote, with the files it names, unless something is wrong with it."""
        files = self._files(text)
        if files is None:
            self._prompt.give_back(text)
            return
        if self._fullness.too_long:
            self.app.notify(context_meter.advice(self._fullness), severity="warning", markup=False)
            self._prompt.give_back(text)
            return
        await self._ask(self._conversation, text, files)

    def _files(self, text: str) -> tuple[Attachment, ...] | None:
        """The files that a message names; None, with a word about it, when one cannot go along."""
        kept = {each.name: each for each in self._editing.attachments} if self._editing else {}
        read: list[Attachment] = []
        for mention in attachments.mentions(text, Path.cwd()):
            if mention.missing:
                read += [kept[mention.name]] if mention.name in kept else []
                continue
            problem = f"{mention.name}: {mention.problem}." if mention.problem else attachments.read(mention)
            if isinstance(problem, str):
                self.app.notify(clean(f"Not sent. {problem}"), severity="warning", markup=False)
                return None
            read.append(problem)
        return tuple(read)

    async def _ask(self, conversation: Conversation, text: str, files: tuple[Attachment, ...] = ()) -> None:
        shown = conversation is self._conversation
        instead, self._editing = (self._editing, None) if shown else (None, self._editing)
        try:
            turn = conversation.ask(text, files, instead)
        except SquishError as error:
            await self._notice(error_content(error), "error")
            self._prompt.give_back(text)
            return
        assert conversation.id is not None
        self._known[conversation.id] = conversation
        if instead:
            self._prompt.put(self._take_set_aside())
        if shown:
            self._show_welcome(False)
            if instead:
                await self._transcript.show(conversation.turns)
            else:
                await self._transcript.add_turn(turn)
        self._answering.start(turn)

    def _take_set_aside(self) -> str:
        taken, self._set_aside = self._set_aside, ""
        return taken

    @on(AnswerEvent)
    def _answer_event(self, event: AnswerEvent) -> None:
        turn, answer = event.turn, event.turn.answer
        if not answer.running:
            return
        before = answer.phase
        added = answer.apply(event.event)
        if answer.running:
            self._save(turn)
        if turn.conversation is not self._conversation:
            return
        if view := self._transcript.view_of(turn):
            view.write(added)
            if answer.phase not in ("writing", "thinking") or before != answer.phase:
                view.update_note()
        if answer.phase not in ("writing", "thinking") or before != answer.phase:
            self._refresh()

    @on(AnswerEnded)
    async def _answer_ended(self, event: AnswerEnded) -> None:
        turn, conversation = event.turn, event.turn.conversation
        if not self._answering.ended(turn):
            return
        if event.error:
            turn.answer.fail(event.error)
        turn.answer.leave()
        self._save(turn)
        shown = conversation is self._conversation
        conversation.unread = not shown
        if shown and (view := self._transcript.view_of(turn)):
            await view.finish()
        queued, conversation.queued = conversation.queued, ""
        if queued and turn.answer.phase == "done":
            files = self._files(queued) if shown else ()
            await self._ask(conversation, queued, files or ())
        elif queued and shown:
            self._prompt.give_back(queued)
        elif queued:
            conversation.draft = f"{queued}\n\n{conversation.draft}" if conversation.draft else queued
        self._recount()
        self._refresh()

    def _save(self, turn: Turn, now: bool = False) -> None:
        if turn.conversation.id not in self._known:  # deleted while it was answered
            return
        with self.telling():
            turn.conversation.save(turn, now)

    # ---- what is shown

    @on(DraftChanged)
    def _draft_changed(self) -> None:
        self._recount()
        self._refresh_hints()

    @on(FollowingChanged)
    def _following_changed(self) -> None:
        self._refresh_hints()

    async def _tick(self) -> None:
        if not self._conversation.model and self._conversation.running is None:
            await self._look_for_model()
        for conversation in self._known.values():
            if (turn := conversation.running) and turn.unsaved:
                self._save(turn, now=True)
        turn = self._conversation.running
        if turn and (view := self._transcript.view_of(turn)):
            view.update_note()
        self._refresh_strip()
        self._refresh_list()

    async def _look_for_model(self) -> None:
        """A pull in another terminal may have ended."""
        try:
            installed = self._runtime.store.list()
        except SquishError:  # told at the start already
            return
        if installed:
            await self._choose(installed[0].id)

    async def _notice(self, content: Content, kind: str = "plain") -> None:
        self._show_welcome(False)
        await self._transcript.add_notice(content, kind)

    def _show_welcome(self, shown: bool) -> None:
        self.query_one(Welcome).display = shown
        self._transcript.display = not shown

    def _recount(self) -> None:
        """Count the chat and the draft anew, when the user has not written for a moment."""
        limit, before = self._manifest.context_length if self._manifest else 0, self._fullness
        self._fullness = Context(self._conversation.context_used or before.used, before.draft, limit)
        # A callable, because a coroutine that is replaced before it starts would complain that nobody awaited it.
        count: Any = partial(self._count, limit)
        self.run_worker(count, group="count", exclusive=True, exit_on_error=False)

    async def _count(self, limit: int) -> None:
        conversation, draft = self._conversation, self._prompt.text
        text = "" if actions.parse_slash(draft) else draft
        counted = await counting.count(self._runtime.sessions, conversation, text, self._editing, limit)
        if counted and conversation is self._conversation:
            self._fullness = counted
            self._refresh_hints()

    def _refresh(self) -> None:
        self._refresh_strip()
        self._refresh_hints()
        self._refresh_list()
        escape = (self._conversation.running is not None, self._editing is not None)
        if escape != self._escape:
            self._escape = escape
            self.refresh_bindings()

    def _refresh_hints(self) -> None:
        queued = self._conversation.queued
        self.query_one(Hints).show(self._prompt.text, editing=self._editing is not None, queued=queued)
        self._prompt.border_title = "" if self._transcript.following else "↓ more below · ctrl+end"
        self._prompt.border_subtitle = self._fullness.label(max(self._prompt.size.width - 6, 20))

    def _refresh_strip(self) -> None:
        self._strip.facts = status_facts.facts(self._conversation, self._runtime.sessions.status(), self._machine)

    def _refresh_list(self) -> None:
        if not self.has_class("-chats"):
            return
        with self.telling():
            rows = [self._row(chat.id, chat.title) for chat in self._runtime.chats.recent(LISTED)]
            self._list.show(rows, self._conversation.id)

    def _row(self, id: int, title: str) -> ChatRow:
        known = self._known.get(id)
        return ChatRow(id, title, "running" if known and known.running else "news" if known and known.unread else "")
