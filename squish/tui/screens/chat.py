"""The chat: one conversation in view, the list of all of them and the parameters beside it, and the model it asks.

How a question becomes an answer is in widgets/dialogue; what is done with whole chats in chat_commands, with the model
and the parameters in model_and_parameters. State changes only in handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult

from squish.generation import is_title
from squish.sessions.backend import Backend
from squish.tui import actions, preferences, status_facts
from squish.tui.advice import reporting_errors
from squish.tui.chat.conversation import Conversation
from squish.tui.chat.conversations import Conversations, day_of
from squish.tui.chat.exports import Exports
from squish.tui.chat.model_choice import ModelChoice
from squish.tui.fitted_screen import FittedScreen
from squish.tui.memory_readings import MemoryReadings
from squish.tui.messages import ChatChanged, ContinueLast, ModelLoaded, OpenChat, SettingsChanged
from squish.tui.screens.chat_commands import ChatCommands
from squish.tui.screens.model_and_parameters import ModelAndParameters
from squish.tui.terminal import editor
from squish.tui.widgets.chat.chat_panels import ChatPanels
from squish.tui.widgets.chat.chat_view import ChatView
from squish.tui.widgets.keys import Keys
from squish.tui.widgets.places import Places
from squish.tui.widgets.status import StatusStrip

if TYPE_CHECKING:
    from squish.tui.screens.compare_commands import CompareCommands

TICK = 0.5


class ChatScreen(FittedScreen[None]):
    """One conversation in view, with one model at a time."""

    CSS_PATH = "chat.tcss"
    BINDINGS = actions.bindings("chat")
    AUTO_FOCUS = "#prompt"

    def __init__(
        self,
        runtime: Backend,
        model: str | None,
        memory: MemoryReadings,
        clock: Callable[[], float],
        exports: Exports,
    ) -> None:
        super().__init__()
        self._runtime, self._memory, self._wanted = runtime, memory, model
        self._chats = Conversations(runtime.chats, clock)
        choice = self._choice = ModelChoice(runtime, self)
        self._view = ChatView(runtime, self._chats, choice)
        self._panels = ChatPanels(self._view, runtime.offers.fixed)
        self._asked_with = ModelAndParameters(self, runtime, self._chats, choice, self._panels)
        self._commands = ChatCommands(self, runtime.chats, self._chats, self._panels, self._asked_with, exports)
        self._some_chats = self._at_start = False  # whether there are any, and none of them is read yet
        self._escape = (False, False)
        self._draft = ""  # at the last tick

    def compose(self) -> ComposeResult:
        yield StatusStrip()
        yield Places("chat")
        yield self._panels
        yield Keys()

    async def on_mount(self) -> None:
        self._view.prompt.offers = True
        self._offer_latest()
        self._some_chats = self._at_start = self._view.prompt.offers
        if unsent := preferences.unsent(self._runtime.settings):
            self._view.prompt.put(unsent)
            self._chats.take_up(unsent)
        self._view.dialogue.welcome.offer_project(self._asked_with.project_offer())
        await self._asked_with.choose_first(self._wanted)
        self.set_interval(TICK, self._tick)
        self._refresh()
        self._lay_out()  # before the first size is told, so that the screen is laid out once for it

    def on_unmount(self) -> None:
        with reporting_errors(self.app):
            if waiting := self._view.dialogue.outgoing.draft:
                waiting.conversation.queue(waiting.question)
            self._chats.close(self._view.prompt.draft)
            preferences.remember_unsent(self._runtime.settings, self._chats.unsent)

    @property
    def _shown(self) -> Conversation:
        return self._chats.shown

    @property
    def _stoppable(self) -> bool:
        """Whether something goes on in this chat that esc ends."""
        return self._shown.running is not None or self._view.dialogue.outgoing.is_reading_for(self._shown)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "stop":
                return self._stoppable
            case "interrupt":
                selected = self._view.prompt.selected_text or self.get_selected_text()
                return self._stoppable and not selected
            case "answer_call":  # else the key is the prompt's own
                return self._view.dialogue.question is not None
            case "leave_edit":
                return self._chats.editing is not None and not self._stoppable
        return True

    # ---- what is shown

    def _offer_latest(self) -> None:
        """Until a chat is shown or begun, the one that is offered may be renamed, put away or deleted from the list."""
        if self._view.prompt.offers:
            with reporting_errors(self.app):
                latest = next(iter(self._runtime.chats.recent(1)), None)
                now = datetime.now().astimezone()
                self._view.offer((latest.title, day_of(latest.updated, now)) if latest else None)

    @on(ChatChanged)
    def _refresh(self) -> None:
        self._offer_latest()
        self._refresh_strip()
        self._refresh_list()
        some_chats, at_start = self._some_chats or bool(self._shown.id), self._view.prompt.offers
        if (some_chats, at_start) != (self._some_chats, self._at_start):
            self._some_chats, self._at_start = some_chats, at_start
            self._lay_out()
        escape = (self._stoppable, self._chats.editing is not None)
        if escape != self._escape:
            self._escape = escape
            self.refresh_bindings()

    async def _tick(self) -> None:
        await self._asked_with.look_again()
        self._view.tick()
        self._keep_draft()
        self._offer_latest()
        self._refresh_strip()
        self._refresh_list()

    def _keep_draft(self) -> None:
        """Once nothing more is typed for a moment, what is written outlives a program that is killed."""
        draft, before = self._view.prompt.draft, self._draft
        self._draft = draft
        if draft == before and self._chats.is_unkept(draft):
            with reporting_errors(self.app):
                self._chats.keep_draft(draft)
                preferences.remember_unsent(self._runtime.settings, self._chats.unsent)

    def _refresh_strip(self) -> None:
        sessions, model = self._runtime.sessions, self._shown.model
        titles = sum(each.running and each.model == model for each in sessions.activity() if is_title(each.client))
        facts = status_facts.facts(self._shown, sessions.status(), self._memory, titles, self._choice.missing)
        self.query_one(StatusStrip).facts = facts

    def _refresh_list(self) -> None:
        if self._panels.list_shown:
            with reporting_errors(self.app):
                self._panels.chats.show(self._chats.rows(), self._shown.id, self._chats.tag)

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        self._panels.lay_out(some_chats=self._some_chats, at_start=self._at_start)
        self._refresh_list()

    # ---- panels

    def action_focus_prompt(self) -> None:
        """Back to writing."""
        self._panels.focus_prompt()

    def action_toggle_chats(self) -> None:
        self._panels.toggle_chats()
        self._refresh_list()

    async def action_toggle_params(self) -> None:
        with self.app.batch_update():  # laid out once, and not for each step
            if self._panels.toggle_params():
                await self._panels.params.open()
                self._panels.params.focus_first()
                self._asked_with.show_parameters()

    async def action_parameter(self, name: str) -> None:
        """Go to the field of a parameter."""
        if not self.has_class("-params"):
            await self.action_toggle_params()
        await self._panels.params.open()  # which another key may have begun
        self.set_focus(self.query_one(f"#field-{name}"))

    # ---- chats

    async def action_new_chat(self) -> None:
        await self._commands.begin()

    @on(OpenChat)
    async def _open_chat(self, event: OpenChat) -> None:
        await self._commands.open(event.id)
        self.action_focus_prompt()

    @on(ContinueLast)
    async def _continue_last(self) -> None:
        await self._commands.continue_last()

    async def action_open_marked(self) -> None:
        if self._panels.chats.marked is not None:
            await self._commands.open(self._panels.chats.marked)
        self.action_focus_prompt()

    async def action_step_chat(self, step: int) -> None:
        await self._commands.step(step)

    async def action_rename_chat(self, title: str = "") -> None:
        await self._commands.rename(title)

    def action_pin_chat(self) -> None:
        self._commands.pin()

    async def action_tag_chat(self, line: str = "") -> None:
        await self._commands.tag(line)

    async def action_filter_chats(self, tag: str = "") -> None:
        await self._commands.filter(tag)

    async def action_archive_chat(self) -> None:
        await self._commands.archive()

    def action_delete_chat(self) -> None:
        self._commands.delete()

    async def action_find(self, words: str = "") -> None:
        await self._commands.find(words)

    def action_export(self, name: str = "") -> None:
        self._commands.export(name)

    # ---- the model and the parameters

    async def action_pick_model(self, name: str = "") -> None:
        await (self._asked_with.choose(name) if name else self._asked_with.pick())

    @on(ModelLoaded)
    async def _model_loaded(self, event: ModelLoaded) -> None:
        await self._asked_with.loaded(event)
        self._refresh()

    @on(SettingsChanged)
    def _settings_changed(self, event: SettingsChanged) -> None:
        self._asked_with.set(event.settings, event.preset)

    async def action_project(self) -> None:
        await self._asked_with.toggle_project()

    async def action_set(self, text: str = "") -> None:
        await self._asked_with.set_parameter(text)

    async def action_system(self, text: str = "") -> None:
        await self._asked_with.set_system_prompt(text)

    async def action_pick_preset(self) -> None:
        await self._asked_with.pick_preset()

    async def action_preset(self, text: str = "") -> None:
        await self._asked_with.use_preset(text)

    async def action_keep_parameters(self, text: str = "") -> None:
        await self._asked_with.keep_for_model(text)

    async def action_template(self, text: str = "") -> None:
        from squish.tui.screens.template_commands import TemplateCommands

        await TemplateCommands(self, self._runtime.chats, self._chats, self._view).run(text)

    # ---- tools and comparisons

    @cached_property
    def _compare(self) -> CompareCommands:
        from squish.tui.screens.compare_commands import CompareCommands

        runtime, view, asked_with = self._runtime, self._view, self._asked_with
        return CompareCommands(self, runtime, self._chats, self._choice, view, asked_with, self._memory)

    async def action_compare(self, text: str = "") -> None:
        await self._compare.compare(text)

    async def action_tools(self, server: str = "") -> None:
        """Switch a server by its name, or show all of them."""
        from squish.tui.screens.tool_commands import ToolCommands

        tools = ToolCommands(self, self._runtime, self._chats, self._view)
        with reporting_errors(self.app):
            if server:
                tools.switch(server)
            else:
                await tools.choose()

    def action_answer_call(self) -> None:
        self._view.answer_question()

    # ---- messages and the draft

    def action_stop(self) -> None:
        self._view.dialogue.stop()

    def action_interrupt(self) -> None:
        self._view.dialogue.stop()

    async def action_regenerate(self) -> None:
        await self._view.dialogue.regenerate()

    async def action_continue(self) -> None:
        await self._view.go_on()

    def action_edit(self) -> None:
        self._view.edit()

    def action_leave_edit(self) -> None:
        self._view.leave_edit()

    async def action_version(self, step: int) -> None:
        await self._view.show_version(step)

    async def action_copy_answer(self) -> None:
        await self._view.transcript.action_copy()

    async def action_copy_code(self, number: str = "") -> None:
        await self._view.transcript.action_copy_code(number)

    def action_mark(self, step: int) -> None:
        self._view.transcript.move_mark(step)

    def action_transcript_page_up(self) -> None:
        self._view.page(-1)

    def action_transcript_page_down(self) -> None:
        self._view.page(1)

    def action_latest(self) -> None:
        self._view.transcript.follow()

    async def action_editor(self) -> None:
        """Write the draft in the user's editor; answers go on meanwhile."""
        with reporting_errors(self.app):
            written = await editor.edit(self.app, self._view.prompt.draft)
            if written is not None:
                self._view.prompt.put(written)
