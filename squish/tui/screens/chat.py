"""The chat: one conversation in view, the list of all of them and the parameters beside it, and the model it asks.

How a question becomes an answer is in widgets/chat_view. State changes only in handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen

from squish.chats.messages import Hit
from squish.errors import SquishError
from squish.runtime import Runtime
from squish.text import clean
from squish.tui import actions, editor, status_facts
from squish.tui.chat import export_file, parameter_commands
from squish.tui.chat.conversation import Conversation
from squish.tui.chat.conversations import Conversations, day_of
from squish.tui.chat.model_choice import ModelChoice
from squish.tui.memory_readings import MemoryReadings
from squish.tui.messages import ChatChanged, ModelLoaded, OpenChat, SettingsChanged
from squish.tui.screens import chat_windows
from squish.tui.widgets.chat_panels import ChatPanels
from squish.tui.widgets.chat_view import ChatView
from squish.tui.widgets.keys import Keys
from squish.tui.widgets.status import StatusStrip
from squish.tui.widgets.turns import error_content
from squish.tui.widgets.welcome import Welcome

TICK = 0.5


class ChatScreen(Screen[None]):
    """One conversation in view, with one model at a time."""

    CSS_PATH = "chat.tcss"
    BINDINGS = actions.bindings("chat")
    AUTO_FOCUS = "#prompt"

    def __init__(self, runtime: Runtime, model: str | None, memory: MemoryReadings, clock: Callable[[], float]) -> None:
        super().__init__()
        self._runtime, self._memory, self._wanted = runtime, memory, model
        self._chats = Conversations(runtime.chats, clock)
        self._model = ModelChoice(runtime, self)
        self._view = ChatView(runtime, self._chats, self._model)
        self._panels = ChatPanels(self._view)
        self._list, self._params = self._panels.chats, self._panels.params
        self._some_chats = False
        self._escape = (False, False)

    def compose(self) -> ComposeResult:
        yield StatusStrip()
        yield self._panels
        yield Keys()

    async def on_mount(self) -> None:
        with self._view.reporting_errors():
            for latest in self._runtime.chats.recent(1):
                self._some_chats = True
                self._view.offer(latest.title, day_of(latest.updated, datetime.now().astimezone()))
        await self._choose_first_model()
        self.set_interval(TICK, self._tick)
        self._refresh()

    def on_unmount(self) -> None:
        with self._view.reporting_errors():
            self._chats.keep_draft(self._view.prompt.draft)

    @property
    def _shown(self) -> Conversation:
        return self._chats.shown

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "stop":
                return self._shown.running is not None
            case "interrupt":
                selected = self._view.prompt.selected_text or self.get_selected_text()
                return self._shown.running is not None and not selected
            case "leave_edit":
                return self._chats.editing is not None and self._shown.running is None
        return True

    # ---- the model

    async def _choose_first_model(self) -> None:
        """The model that was asked for, or the first that is installed."""
        if self._wanted is not None:
            await self._choose(self._wanted)
        if self._shown.model:
            return
        try:
            installed = self._model.installed()
        except SquishError as error:
            await self._view.notice(error_content(error), "error")
            return
        if installed:
            await self._choose(installed[0].id)
        else:
            self.query_one(Welcome).show_nothing_installed()

    async def _choose(self, name: str) -> None:
        """Make a model the one that answers next."""
        try:
            manifest = self._model.choose(name)
        except SquishError as error:
            await self._view.notice(error_content(error), "error")
            return
        with self._view.reporting_errors():
            self._shown.configure(model=manifest.id)
        self.query_one(Welcome).show_model(manifest)
        self._refresh()

    @on(ModelLoaded)
    async def _model_loaded(self, event: ModelLoaded) -> None:
        known = self._shown.running or any(turn.answer.error for turn in self._shown.turns[-1:])
        if event.error and event.model == self._shown.model and not known:
            await self._view.notice(error_content(event.error), "error")
        self._view.recount()
        self._refresh()

    async def action_pick_model(self, name: str = "") -> None:
        if name:
            await self._choose(name)
            return
        with self._view.reporting_errors():
            await chat_windows.pick_model(self.app, self._model.installed(), self._shown.model, self._choose)

    # ---- what is shown

    @on(ChatChanged)
    def _refresh(self) -> None:
        self._refresh_strip()
        self._refresh_list()
        if self._shown.id and not self._some_chats:
            self._some_chats = True
            self._lay_out()
        escape = (self._shown.running is not None, self._chats.editing is not None)
        if escape != self._escape:
            self._escape = escape
            self.refresh_bindings()

    async def _tick(self) -> None:
        if not self._shown.model and self._shown.running is None:
            try:
                if installed := self._model.installed():  # a pull in another terminal may have ended
                    await self._choose(installed[0].id)
            except SquishError:  # said at the start already
                pass
        self._view.tick()
        self._refresh_strip()
        self._refresh_list()

    def _refresh_strip(self) -> None:
        facts = status_facts.facts(self._shown, self._runtime.sessions.status(), self._memory)
        self.query_one(StatusStrip).facts = facts

    def _refresh_list(self) -> None:
        if self._panels.list_shown:
            with self._view.reporting_errors():
                self._list.show(self._chats.rows(), self._shown.id)

    # ---- panels

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        self._panels.lay_out(some_chats=self._some_chats)
        self._refresh_list()

    def action_focus_prompt(self) -> None:
        """Back to writing."""
        self._panels.focus_prompt()

    def action_toggle_chats(self) -> None:
        self._panels.toggle_chats()
        self._refresh_list()

    async def action_toggle_params(self) -> None:
        if self._panels.toggle_params():
            await self._params.open()
            self._show_params()
            self._params.focus_first()

    # ---- chats

    async def action_new_chat(self) -> None:
        with self._view.reporting_errors():
            self._chats.begin(self._view.prompt.draft)
        await self._view.show()
        self._show_params()
        self.set_focus(self._view.prompt)

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
        with self._view.reporting_errors():
            found = self._chats.open(id, self._view.prompt.draft, hit.message if hit else None)
            await self._view.show(found, hit)
        self._show_params()

    async def action_step_chat(self, step: int) -> None:
        """The next chat of the list, or the one before it."""
        with self._view.reporting_errors():
            if (id := self._chats.neighbor(step)) is not None:
                await self.open_chat(id)

    @property
    def _meant(self) -> int | None:
        """The chat that is marked in the list, or the one that is shown."""
        return self._list.marked if self._list.has_focus else self._shown.id

    async def action_rename_chat(self, title: str = "") -> None:
        id = self._meant
        if id is None:
            self.app.notify("This chat has no name before its first message.", markup=False)
            return
        if title:
            self._rename(id, title)
            return
        with self._view.reporting_errors():
            known = self._runtime.chats.get(id).title
            await chat_windows.rename(self.app, known, partial(self._rename, id))

    def _rename(self, id: int, title: str) -> None:
        with self._view.reporting_errors():
            self._runtime.chats.rename(id, title)
        self._refresh()

    def action_delete_chat(self) -> None:
        if (id := self._meant) is not None:
            with self._view.reporting_errors():
                title = self._runtime.chats.get(id).title
                chat_windows.confirm_deletion(self.app, title, partial(self._delete, id))

    async def _delete(self, id: int) -> None:
        shown = id == self._shown.id
        with self._view.reporting_errors():
            self._view.leave(self._chats.delete(id))
        if shown:
            self._view.prompt.put(self._chats.unsent)
            await self.action_new_chat()
        self._refresh()

    async def action_find(self, words: str = "") -> None:
        await chat_windows.find(self.app, self._runtime.chats, words, self._open_hit)

    async def _open_hit(self, hit: Hit) -> None:
        await self.open_chat(hit.chat, hit)

    def action_export(self, name: str = "") -> None:
        """Write the branch that is shown to a file that is not there yet."""
        if self._shown.id is None:
            self.app.notify("Nothing to export yet.", markup=False)
            return
        with self._view.reporting_errors():
            path = export_file.write(self._runtime.chats, self._shown.id, name)
            self.app.notify(clean(f"Written to {path}"), markup=False)

    # ---- parameters

    @on(SettingsChanged)
    def _settings_changed(self, event: SettingsChanged) -> None:
        with self._view.reporting_errors():
            self._shown.configure(settings=event.settings)
        self._view.recount()

    def _show_params(self) -> None:
        with self._view.reporting_errors():
            self._params.show(self._shown.settings, self._runtime.chats.presets())

    async def action_set(self, text: str = "") -> None:
        await self._change(parameter_commands.set_parameter, text)

    async def action_system(self, text: str = "") -> None:
        await self._change(parameter_commands.set_system_prompt, text)

    async def action_preset(self, text: str = "") -> None:
        await self._change(parameter_commands.use_preset, text)

    async def _change(self, command: parameter_commands.Command, text: str) -> None:
        with self._view.reporting_errors():
            outcome = command(self._shown.settings, self._runtime.chats, text)
            self._shown.configure(settings=outcome.settings)
            self._show_params()
            self._view.recount()
            heading = f"{outcome.heading}  " if outcome.heading else ""
            await self._view.notice(Content.assemble((heading, "bold"), clean(outcome.text)))

    # ---- messages and the draft

    def action_stop(self) -> None:
        self._view.stop()

    def action_interrupt(self) -> None:
        self._view.stop()

    async def action_regenerate(self) -> None:
        await self._view.regenerate()

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
        self._view.transcript.scroll_page_up(animate=False)

    def action_transcript_page_down(self) -> None:
        self._view.transcript.scroll_page_down(animate=False)

    def action_latest(self) -> None:
        self._view.transcript.follow()

    async def action_editor(self) -> None:
        """Write the draft in the user's editor; answers go on meanwhile."""
        with self._view.reporting_errors():
            written = await editor.edit(self.app, self._view.prompt.draft)
            if written is not None:
                self._view.prompt.put(written)
