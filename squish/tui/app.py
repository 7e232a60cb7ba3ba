"""The full-screen app: it owns the screens and the theme, and asks before it is left.

It knows the runtime and nothing of what is behind it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from rich.terminal_theme import TerminalTheme
from textual.binding import Binding
from textual.events import DescendantFocus, Event, Key, Paste
from textual.notifications import Notify
from textual.screen import Screen
from textual.theme import Theme
from textual.widgets import Input, TextArea

from squish import figures
from squish.errors import SquishError
from squish.generation import is_title
from squish.models.store import Store
from squish.runtime import Runtime
from squish.sessions.backend import Backend
from squish.system import servers
from squish.text import clean
from squish.tui import actions, faults, leaving, preferences, theme
from squish.tui.advice import hint, in_a_toast, reporting_errors
from squish.tui.chat.answer_tasks import GROUP as ANSWERS
from squish.tui.chat.exports import Exports
from squish.tui.downloads import Downloads, Transfer
from squish.tui.fitted_screen import FittedScreen
from squish.tui.key_hints import key
from squish.tui.memory_readings import MemoryReadings
from squish.tui.messages import CancelDownload, DownloadModel, UseModel
from squish.tui.notices import keep_clear
from squish.tui.scheduling import after_refresh, collect_again
from squish.tui.screens.chat import ChatScreen
from squish.tui.server.api_server import ApiServer, Serve, ShownServer
from squish.tui.server.load_history import LoadHistory
from squish.tui.style_sheets import ParsedOnce, StyledApp
from squish.tui.terminal import clipboard
from squish.tui.terminal.guard import CleanFilter
from squish.tui.terminal.key_order import KeyOrder
from squish.tui.widgets.status import StatusStrip
from squish.tui.windows.window import WindowedApp, open_once

if TYPE_CHECKING:
    from squish.remote.connected import Connected
    from squish.remote.nearby import NearbyServer

TICK = 0.5
_OFFERED = 12.0  # seconds


class SquishApp(WindowedApp[None], StyledApp[None], inherit_bindings=False):
    """runtime: the models, in this process or at a server that the app is connected to.

    model: the one to begin with, or None for the first that is installed. machine and clock stand in tests still.

    serve: runs the API, or None where that is left out. failed: why the server that was chosen is not used.
    """

    TITLE = "squish"
    BINDINGS = actions.bindings("app")
    ENABLE_COMMAND_PALETTE = False  # Textual's
    CSS = """
    ToastRack { dock: top; align: right top; margin-top: 1; }
    Toast { color: $on-toast; }
    """

    def __init__(
        self,
        runtime: Runtime | Connected,
        model: str | None = None,
        *,
        machine: MemoryReadings | None = None,
        clock: Callable[[], float] = time.monotonic,
        serve: Serve | None = None,
        failed: SquishError | None = None,
    ) -> None:
        super().__init__()
        self.register_theme(theme.squish())
        self.theme = theme.NAME
        self.stylesheet = ParsedOnce(variables=self.get_css_variables())
        self._runtime, self._here, self._failed = runtime, isinstance(runtime, Runtime), failed
        self._model, self._clock = model, clock
        self._keys = KeyOrder(self, super().on_event)
        self.fault = ""  # what it had to close for
        self._leaving: Screen[Any] | None = None
        self.connect_to: tuple[str, str] | None = None  # the server that is to be used from now on
        self._filters.append(CleanFilter())
        self._first_model = ""  # the one whose download is to end in a chat
        self.server: ShownServer
        if isinstance(runtime, Runtime):
            self._machine, store = machine or MemoryReadings(), runtime.store
            self.server = ApiServer(runtime, serve)
        else:
            from squish.tui.server.connected_server import ConnectedServer, ServerReadings

            self._machine, store = machine or ServerReadings(runtime), Store(runtime.settings.cache_dir)
            self.server = ConnectedServer(runtime)
        self.downloads = Downloads(runtime.settings, store, self._download_ended)
        self.load_history, self._exports = LoadHistory(clock), Exports(clock)

    async def on_event(self, event: Event) -> None:
        if isinstance(event, Key | Paste) and not event.is_forwarded:
            await self._keys.take(event)
        else:
            await super().on_event(event)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Where nothing is to move, no cursor blinks, in whatever field; and no notice lies over it."""
        if isinstance(event.widget, Input | TextArea):
            event.widget.cursor_blink = self.animation_level != "none"
        if self._notifications:
            keep_clear(self.screen)

    async def on_mount(self) -> None:
        self.add_mode("chat", lambda: ChatScreen(self._runtime, self._model, self._machine, self._clock, self._exports))
        self.add_mode("hub", self._hub_screen)
        self.add_mode("library", self._library_screen)
        self.add_mode("server", self._server_screen)
        await self.switch_mode("hub" if self._nothing_to_chat_with() else "chat")
        self.set_interval(TICK, self._show_background_work)
        self.set_interval(TICK, lambda: self.load_history.read(self._runtime.sessions, self._machine))
        self.theme_changed_signal.subscribe(self, self._theme_chosen)
        if self._here:
            self._pin_again()
            await self._look_for_downloads()
            self.run_worker(self._offer_running(), exit_on_error=False)
        self._show_background_work()
        after_refresh(self.screen, collect_again)
        if self._failed:
            self.notify(f"{clean(self._failed.message)} These are the models of this machine.",
                        severity="error", timeout=_OFFERED, markup=False)  # fmt: skip

    async def _look_for_downloads(self) -> None:
        with reporting_errors(self):
            await self.downloads.look()

    # Screens and windows are imported when they are opened: the first paint waits for none of them.

    def _hub_screen(self) -> Screen[None]:
        if not isinstance(self._runtime, Runtime):
            from squish.tui.screens.elsewhere import ElsewhereScreen

            return ElsewhereScreen(self._runtime, self._machine)
        from squish.tui.screens.hub import HubScreen

        return HubScreen(self._runtime, self._machine, self.downloads)

    def _library_screen(self) -> Screen[None]:
        from squish.tui.screens.library import LibraryScreen

        return LibraryScreen(self._runtime, self._machine, self.downloads, self.load_history)

    def _server_screen(self) -> Screen[None]:
        from squish.tui.screens.server import ServerScreen

        return ServerScreen(self._runtime, self._machine, self.server, self.load_history)

    async def _shutdown(self) -> None:
        """The terminal is as it was already; what is still busy has a while."""
        await leaving.insist(super()._shutdown)

    async def on_unmount(self) -> None:
        await asyncio.gather(self.downloads.close(), self.server.close())

    def _pin_again(self) -> None:
        """What was pinned stays in memory once it is loaded; this loads nothing."""
        for id in preferences.pinned(self._runtime.settings):
            with suppress(SquishError):  # it was deleted since, or is damaged, which the models screen shows
                self._runtime.sessions.pin(id, True)

    def _theme_chosen(self, theme: Theme) -> None:
        try:
            preferences.remember_theme(self._runtime.settings, theme.name)
        except SquishError as error:
            self.notify(clean(error.message), severity="warning", markup=False)

    def _nothing_to_chat_with(self) -> bool:
        if not self._here:  # the chat says it
            return False
        try:
            return self._model is None and all(each.kind != "chat" for each in self._runtime.store.list())
        except SquishError:  # the chat says why
            return False

    @property
    def runtime(self) -> Backend:
        return self._runtime

    async def perform(self, action: actions.Action) -> None:
        """Do what the palette offers, on the screen that can do it."""
        if action.scope == "chat" and self.current_mode != "chat":
            await self.switch_mode("chat")
        await self.run_action(actions.qualified(action))

    def action_command_palette(self) -> None:
        from squish.tui.windows.command_palette import CommandPalette

        open_once(self, CommandPalette, answered=self._do)

    def search_themes(self) -> None:
        from squish.tui.windows.command_palette import ThemePicker

        open_once(self, ThemePicker, answered=self._do)

    async def _do(self, command: Callable[[], Any] | None) -> None:
        """Do what was found, on the screen that is in view again."""
        if command is not None and isawaitable(result := command()):
            await result

    def action_help(self) -> None:
        from squish.tui.windows.help import HelpScreen

        # In the chat one writes most of the time, so there the keys for that come first, as they are listed.
        open_once(self, HelpScreen, "prompt" if self.current_mode == "chat" else self.current_mode)

    async def action_open(self, mode: str) -> None:
        """Go to one of the four screens; what lies over the current one is left as it is."""
        await self.switch_mode(mode)
        self._show_background_work()

    def action_downloads(self) -> None:
        from squish.tui.windows.download_drawer import DownloadDrawer

        open_once(self, DownloadDrawer, self.downloads)

    async def on_use_model(self, event: UseModel) -> None:
        await self.switch_mode("chat")
        await self.run_action(f"screen.pick_model({event.id!r})")

    def on_download_model(self, event: DownloadModel) -> None:
        """Begin a download; the first model of all ends in a chat."""
        if self._nothing_to_chat_with():
            self._first_model = event.name
        self.downloads.start(event.name)
        self._show_background_work()

    def on_cancel_download(self, event: CancelDownload) -> None:
        """Take a download off the list; what has arrived is deleted, so that is asked first."""
        transfer = event.transfer
        if transfer.state == "done" or not transfer.done:
            self.run_worker(self._cancel_download(transfer), exit_on_error=False)
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(self._cancel_download(transfer), exit_on_error=False)

        from squish.tui.windows.confirm import ConfirmScreen

        arrived = figures.size(transfer.done)
        question = f"Stop the download of {clean(transfer.id)} and delete the {arrived} downloaded so far?"
        self.push_screen(ConfirmScreen("Cancel download", question, "Delete", "Keep"), answered)

    async def _cancel_download(self, transfer: Transfer) -> None:
        with reporting_errors(self):
            if freed := await self.downloads.cancel(transfer):
                self.notify(f"{figures.size(freed)} freed.", markup=False)

    def _download_ended(self, transfer: Transfer) -> None:
        self._show_background_work()
        if transfer.error:
            message = in_a_toast(f"{transfer.id}: {transfer.error.message}", hint(transfer.error, self), self)
            self.notify(message, title="Not installed", severity="error", markup=False)
        elif self._first_model in (transfer.name, transfer.id) and self.current_mode != "server":
            self._first_model = ""
            self.post_message(UseModel(transfer.id))
        else:
            chats = f"{key(self, 'app.library')} {key(self, 'library.use')}"
            self.notify(f"{clean(transfer.id)} is installed. {chats} chats with it.", markup=False)

    def _show_background_work(self) -> None:
        """Show background work in the status strip of the current screen, and downloads wherever they are shown."""
        self.downloads.read()
        work = (self._exports.one_line(), self.downloads.one_line(), self.server.one_line())
        for strip in [each for screen in self.screen_stack for each in screen.query(StatusStrip)]:  # also below windows
            strip.waited = int(self.load_history.loading_for(strip.facts.model) or 0)
            strip.background_work = work
        for screen in self.screen_stack:
            if isinstance(screen, FittedScreen) and screen.is_mounted:
                screen.show_downloads()

    def _on_notify(self, event: Notify) -> None:
        """Of the messages in a corner, one that is there already is not shown twice."""
        if any(each.message == event.notification.message for each in self._notifications):
            event.prevent_default()

    def _refresh_notifications(self) -> None:
        super()._refresh_notifications()
        if self._notifications and self._screen_stack:
            self.call_later(keep_clear, self.screen)

    def connect(self, server: NearbyServer) -> None:
        """End, so that the screens begin anew on the models of a server; what is downloaded or written ends here."""

        def leave() -> None:
            self.connect_to = (server.url, server.key)
            self.exit()

        self._leave("Connect", leave)

    async def _offer_running(self) -> None:
        other = await self._other_server()
        if other and preferences.is_news(self._runtime.settings, f"{other.url} {other.started:.0f}"):
            self.notify(f"A Squish server already runs at {other.url}. {key(self, 'app.connect')} uses its models.",
                        timeout=_OFFERED, markup=False)  # fmt: skip

    async def _other_server(self) -> servers.Server | None:
        """The `squish serve` of this home that runs and is not in use here."""
        found = await asyncio.to_thread(servers.servers, self._runtime.settings.home)
        return next((each for each in found if each.url not in ("", self.server.url)), None)

    async def action_use_running(self) -> None:
        """Use the models of a server of this home; one that wants another key is only mentioned."""
        from squish.remote.nearby import look

        other = await self._other_server()
        if other is None:
            self.notify("No other Squish server of yours runs on this machine.", markup=False)
            return
        with reporting_errors(self):
            self.connect(await look(other.url, self._runtime.settings.api_key or ""))

    async def action_quit(self) -> None:
        """Leave; the second time, whatever goes on."""
        self._leave("Quit", self.exit)

    def _leave(self, word: str, leave: Callable[[], None]) -> None:
        """Mention what would be cut short, and leave if the user wants to."""
        exports, where = self._exports.names, partial(key, self)
        found = leaving.cut_short(self._answers, self.downloads.active, self._clients, where, exports)
        if found is None or self.screen is self._leaving:
            leave()
            return

        from squish.tui.windows.confirm import ConfirmScreen

        def answered(yes: bool | None) -> None:
            if yes:
                leave()

        self.push_screen(ConfirmScreen(found.title, found.text, word, "Stay"), answered)
        self._leaving = self.screen  # also one that other windows lay over

    @property
    def _answers(self) -> int:
        """How many are being written, or wait for something, in all chats and comparisons."""
        return sum(each.group == ANSWERS and not each.is_finished for each in self.workers)

    @property
    def _clients(self) -> int:
        """Requests of other programs that this one answers."""
        requests = self._runtime.sessions.activity() if self._here else ()
        return sum(each.running and bool(each.client) and not is_title(each.client) for each in requests)

    @cached_property
    def _themes(self) -> theme.ReadableThemes:
        return theme.ReadableThemes(self.console.color_system, self.no_color)

    def get_css_variables(self) -> dict[str, str]:
        self.theme_variables = self._themes.variables(self.theme, super().get_css_variables())
        return self.theme_variables

    @property
    def ansi_theme(self) -> TerminalTheme:
        return self._themes.code(self.theme, super().ansi_theme, self.get_css_variables)

    def get_key_display(self, binding: Binding) -> str:
        """As everywhere else also for function keys that config.toml sets."""
        shown = super().get_key_display(binding)
        return actions.display_keys(shown)[0] if shown else shown

    async def action_help_quit(self) -> None:  # type: ignore[override]  # an action may be awaited
        if text := self.screen.get_selected_text():
            await clipboard.put(clean(text), self.copy_to_clipboard)
        self.notify(f"Copied {len(text)} characters." if text else f"{key(self, 'app.quit')} quits.", markup=False)

    def _handle_exception(self, error: Exception) -> None:
        """A screen that was opening when the user left misses what it is made of: that is for the log alone."""
        if self._exit and faults.is_of_what_has_gone(error):
            faults.log()
        else:
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Textual would print a traceback with local variables, prompts among them: that belongs in the log."""
        faults.log()
        self.fault = faults.where(sys.exc_info()[1] or self._exception)
        self._close_messages_no_wait()
