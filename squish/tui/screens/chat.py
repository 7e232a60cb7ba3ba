"""The chat: it takes questions, starts answers, shows them, stops them.

State changes only in its handlers; what runs in the background posts messages.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Markdown, Static
from textual.worker import Worker

from squish.engine import Generation
from squish.errors import EngineError, SquishError
from squish.generation import GenerationRequest
from squish.runtime import Runtime
from squish.store import Manifest
from squish.text import clean
from squish.tui import actions, clipboard, figures, summary
from squish.tui.conversation import Conversation, Turn
from squish.tui.machine import Machine
from squish.tui.messages import AnswerEnded, AnswerEvent, DraftChanged, FollowingChanged, ModelLoaded, QuestionSent
from squish.tui.screens.models import ModelPicker
from squish.tui.widgets.prompt import PromptInput
from squish.tui.widgets.status import StatusStrip
from squish.tui.widgets.transcript import Transcript, error_content
from squish.tui.widgets.welcome import Welcome

TICK = 0.5


class ChatScreen(Screen[None]):
    """One conversation with one model at a time."""

    CSS_PATH = "chat.tcss"
    BINDINGS = actions.bindings("chat")
    AUTO_FOCUS = "#prompt"

    def __init__(self, runtime: Runtime, model: str | None, machine: Machine, clock: Callable[[], float]) -> None:
        super().__init__()
        self._runtime = runtime
        self._machine = machine
        self._wanted = model
        self._clock = clock
        self._manifest: Manifest | None = None
        self._conversation = Conversation("", clock)
        self._open: Turn | None = None  # the turn whose AnswerEnded is still to come
        self._generation: Generation | None = None
        self._worker: Worker[None] | None = None
        self._queued = ""
        self._stoppable = False

    def compose(self) -> ComposeResult:
        yield StatusStrip()
        yield Welcome()
        yield Transcript()
        yield Static(id="hints", markup=False)
        yield PromptInput()
        yield Footer(show_command_palette=False)

    async def on_mount(self) -> None:
        self._transcript = self.query_one(Transcript)
        self._prompt = self.query_one(PromptInput)
        self._strip = self.query_one(StatusStrip)
        self._show_welcome(True)
        await self._choose_first_model()
        self.set_interval(TICK, self._tick)
        self._refresh()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self._conversation.running is not None if action == "stop" else True

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
        self._conversation.model = self._manifest.id
        self.query_one(Welcome).show_model(self._manifest)
        self.app.run_worker(self._load(self._manifest.id), group="load", exit_on_error=False)
        self._refresh()

    async def _load(self, model: str) -> None:
        failure: SquishError | None = None
        try:
            await self._runtime.sessions.load(model)
        except SquishError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the chat down
            failure = _fault(error)
        self.post_message(ModelLoaded(model, failure))

    @on(ModelLoaded)
    async def _model_loaded(self, event: ModelLoaded) -> None:
        told = self._conversation.running or any(turn.answer.error for turn in self._conversation.turns[-1:])
        if event.error and event.model == self._conversation.model and not told:
            await self._notice(error_content(event.error), "error")
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
        self.app.push_screen(ModelPicker(installed, self._conversation.model), self._picked)

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
        elif self._open:
            self._queued = f"{self._queued}\n\n{event.text}" if self._queued else event.text
        else:
            await self._ask(event.text)
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

    async def _ask(self, text: str) -> None:
        turn = self._open = self._conversation.ask(text)
        self._show_welcome(False)
        await self._transcript.add_turn(turn)
        # The answer belongs to the app, so that it goes on while another screen is open.
        self._worker = self.app.run_worker(
            self._answer(turn, self._conversation.request()), group="answer", exit_on_error=False
        )

    async def _answer(self, turn: Turn, request: GenerationRequest) -> None:
        failure: SquishError | None = None
        try:
            async with self._runtime.sessions.generate(request) as generation:
                self._generation = generation
                async for event in generation:
                    self.post_message(AnswerEvent(turn, event))
        except SquishError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the chat down
            failure = _fault(error)
        finally:
            self.post_message(AnswerEnded(turn, failure))

    @on(AnswerEvent)
    def _answer_event(self, event: AnswerEvent) -> None:
        view, answer = self._transcript.view_of(event.turn), event.turn.answer
        if view is None or not answer.running:
            return
        before = answer.phase
        view.write(answer.apply(event.event))
        if answer.phase != "writing" or before != "writing":
            view.update_note()
            self._refresh()

    @on(AnswerEnded)
    async def _answer_ended(self, event: AnswerEnded) -> None:
        if event.turn is not self._open:
            return
        answer, self._open, self._generation = event.turn.answer, None, None
        if event.error:
            answer.fail(event.error)
        answer.leave()
        if view := self._transcript.view_of(event.turn):
            await view.finish()
        queued, self._queued = self._queued, ""
        if queued and answer.phase == "done":
            await self._ask(queued)
        elif queued:
            self._prompt.give_back(queued)
        self._refresh()

    def action_stop(self) -> None:
        """Once: ask the engine to end the answer. Twice: leave it, whatever the engine does."""
        turn = self._conversation.running
        if turn is None:
            return
        if self._generation and not turn.answer.stopping:
            turn.answer.stopping = True
            self._generation.cancel()
        elif self._worker:
            self._worker.cancel()
            self.post_message(AnswerEnded(turn))  # a worker that had no chance to begin posts nothing
        if view := self._transcript.view_of(turn):
            view.update_note()

    # ---- other actions

    async def action_new_chat(self) -> None:
        if self._worker:
            self._worker.cancel()
        self._open = self._generation = None
        self._queued = ""
        self._conversation = Conversation(self._conversation.model, self._clock)
        await self._transcript.empty()
        self._show_welcome(True)
        self._prompt.focus()
        self._refresh()

    async def action_system(self, text: str = "") -> None:
        had, self._conversation.system = self._conversation.system, text
        if text:
            await self._notice(Content.assemble(("System prompt  ", "bold"), clean(text)))
        else:
            await self._notice(
                Content(f"System prompt taken away: {clean(had)}" if had else "No system prompt is set.")
            )

    async def action_copy_answer(self) -> None:
        text = self._conversation.last_answer
        if not text:
            self.app.notify("There is no answer to copy yet.", markup=False)
            return
        program = clipboard.local_program(os.environ)
        if program is None or not await clipboard.fill(program, text):
            self.app.copy_to_clipboard(text)
        self.app.notify(f"Copied {len(text)} characters.", markup=False)

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

    # ---- what is shown

    @on(DraftChanged)
    @on(FollowingChanged)
    def _hints_changed(self) -> None:
        self._refresh_hints()

    async def _tick(self) -> None:
        if not self._conversation.model and self._conversation.running is None:
            await self._look_for_model()
        turn = self._conversation.running
        if turn and (view := self._transcript.view_of(turn)):
            view.update_note()
        self._refresh_strip()

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

    def _refresh(self) -> None:
        self._refresh_strip()
        self._refresh_hints()
        stoppable = self._conversation.running is not None
        if stoppable != self._stoppable:
            self._stoppable = stoppable
            self.refresh_bindings()

    def _refresh_hints(self) -> None:
        hints = self.query_one("#hints", Static)
        rows = [_completion(action) for action in actions.completions(self._prompt.text)]
        if self._queued:
            first = self._queued.partition("\n")[0]
            rows.append(Content.assemble(("next  ", "bold $accent"), clean(first)))
        hints.update(Content("\n").join(rows))
        hints.display = bool(rows)
        self._prompt.border_title = "" if self._transcript.following else "↓ more below · ctrl+end"
        self._prompt.border_subtitle = self._context_figures()

    def _context_figures(self) -> str:
        used = self._conversation.context_used
        if not used or self._manifest is None:
            return ""
        return f"ctx {figures.count(used)}/{figures.count(self._manifest.context_length)}"

    def _refresh_strip(self) -> None:
        self._strip.facts = summary.facts(self._conversation, self._runtime.sessions.status(), self._machine)


def _completion(action: actions.Action) -> Content:
    usage = f"/{action.slash} {action.argument}"
    return Content.assemble((f"{usage:<14}", "bold $accent"), (action.about, "$foreground-muted"))


def _fault(error: Exception) -> EngineError:
    return EngineError(f"Something went wrong inside Squish ({type(error).__name__}).", hint="Try again.")
