"""The full-screen app: it owns the screens, the theme and the way in and out of the terminal.

It knows the runtime and nothing of what is behind it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.binding import Binding
from textual.command import CommandPalette, Provider
from textual.screen import Screen
from textual.theme import Theme

from squish import figures
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import EngineError, InvalidInput, SquishError
from squish.models.store import Store
from squish.runtime import Runtime
from squish.sessions.backend import Backend
from squish.system import servers
from squish.text import clean
from squish.tui import actions, preferences, theme
from squish.tui.advice import reporting_errors
from squish.tui.api_server import ApiServer, Serve, ShownServer
from squish.tui.downloads import Downloads, Transfer
from squish.tui.key_hints import key
from squish.tui.load_history import LoadHistory
from squish.tui.memory_readings import MemoryReadings
from squish.tui.messages import CancelDownload, DownloadModel, UseModel
from squish.tui.screens.chat import ChatScreen
from squish.tui.screens.confirm import ConfirmScreen
from squish.tui.style_sheets import ParsedOnce
from squish.tui.terminal import CleanFilter, guarded_stderr, whole_pastes
from squish.tui.widgets import transfer_list
from squish.tui.widgets.status import StatusStrip

if TYPE_CHECKING:
    from squish.remote.connected import Connected
    from squish.remote.nearby import NearbyServer

TICK = 0.5
TOAST = 160
_OFFERED = 12.0  # seconds


def _palette() -> type[Provider]:
    from squish.tui.palette import PaletteProvider

    return PaletteProvider


class SquishApp(App[None], inherit_bindings=False):
    """runtime: the models, in this process or at a server that the app is connected to.

    model: the one to begin with, or None for the first that is installed. machine and clock stand in tests still.

    serve: runs the API, or None where that is left out.
    """

    TITLE = "squish"
    BINDINGS = actions.bindings("app")
    COMMANDS: ClassVar = {_palette}
    # At the bottom, where Textual puts it, a notice covers the message that is being written.
    CSS = "ToastRack { dock: top; align: right top; margin-top: 1; }"

    def __init__(
        self,
        runtime: Runtime | Connected,
        model: str | None = None,
        *,
        machine: MemoryReadings | None = None,
        clock: Callable[[], float] = time.monotonic,
        serve: Serve | None = None,
    ) -> None:
        super().__init__()
        self.stylesheet = ParsedOnce(variables=self.get_css_variables())
        self._runtime = runtime
        self._here = isinstance(runtime, Runtime)
        self._model = model
        self._chat_clock = clock
        self.fault = ""  # what it had to close for
        self.connect_to: tuple[str, str] | None = None  # the server that is to be used from now on
        self._filters.append(CleanFilter())
        self._first_model = ""  # the one whose download is to end in a chat
        self.server: ShownServer
        if isinstance(runtime, Runtime):
            self._machine, store = machine or MemoryReadings(), runtime.store
            self.server = ApiServer(runtime, serve)
        else:
            from squish.tui.connected_server import ConnectedServer, ServerReadings

            self._machine, store = machine or ServerReadings(runtime), Store(runtime.settings.cache_dir)
            self.server = ConnectedServer(runtime)
        self.downloads = Downloads(runtime.settings, store, self._download_ended)
        self.load_history = LoadHistory(clock)
        self.register_theme(theme.squish())
        self.theme = theme.NAME

    async def on_mount(self) -> None:
        self.add_mode("chat", lambda: ChatScreen(self._runtime, self._model, self._machine, self._chat_clock))
        self.add_mode("hub", self._hub_screen)
        self.add_mode("library", self._library_screen)
        self.add_mode("server", self._server_screen)
        await self.switch_mode("hub" if self._nothing_to_chat_with() else "chat")
        self.set_interval(TICK, self._show_background_work)
        self.set_interval(TICK, lambda: self.load_history.read(self._runtime.sessions, self._machine))
        if self._here:
            self._pin_again()
        self.theme_changed_signal.subscribe(self, self._theme_chosen)
        if self._here:
            await self._look_for_downloads()
            self.run_worker(self._offer_running(), exit_on_error=False)
        self._show_background_work()

    async def _look_for_downloads(self) -> None:
        try:
            await self.downloads.look()
        except SquishError as error:
            self.notify(clean(error.message), severity="error", markup=False)

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

    async def on_unmount(self) -> None:
        await self.downloads.close()
        await self.server.close()

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
        """Find a command. Textual gives the window an id, and one that is still closing would stand in its way."""
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette())

    def action_help(self) -> None:
        from squish.tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            # In the chat one writes most of the time, so there the keys for that come first, as they are listed.
            self.push_screen(HelpScreen("prompt" if self.current_mode == "chat" else self.current_mode))

    async def action_open(self, mode: str) -> None:
        """Go to one of the four screens; what lies over the current one is left as it is."""
        await self.switch_mode(mode)
        self._show_background_work()

    def action_downloads(self) -> None:
        from squish.tui.screens.download_drawer import DownloadDrawer

        if not isinstance(self.screen, DownloadDrawer):
            self.push_screen(DownloadDrawer(self.downloads))

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

        arrived = figures.size(transfer.done)
        question = f"Stop the download of {clean(transfer.id)} and delete the {arrived} downloaded so far?"
        self.push_screen(ConfirmScreen("Cancel download", question, "Delete", "Keep"), answered)

    async def _cancel_download(self, transfer: Transfer) -> None:
        try:
            freed = await self.downloads.cancel(transfer)
        except SquishError as error:
            self.notify(clean(error.message), severity="error", markup=False)
            return
        if freed:
            self.notify(f"{figures.size(freed)} freed.", markup=False)

    def _download_ended(self, transfer: Transfer) -> None:
        self._show_background_work()
        if transfer.error:
            message = clean(f"{transfer.id}: {transfer.error.message}")
            message = (
                message
                if len(message) <= TOAST
                else f"{message[:TOAST]} … {key(self, 'app.downloads')} shows all of it."
            )
            self.notify(message, title="Download failed", severity="error", markup=False)
        elif transfer.name == self._first_model and self.current_mode != "server":
            self._first_model = ""
            self.post_message(UseModel(transfer.id))
        else:
            chats = f"{key(self, 'app.library')} {key(self, 'library.use')}"
            self.notify(f"{clean(transfer.id)} is installed. {chats} chats with it.", markup=False)

    def _show_background_work(self) -> None:
        """Show background work in the status strip of the current screen."""
        strips = [strip for screen in self.screen_stack for strip in screen.query(StatusStrip)]
        for strip in strips:  # also below a window
            strip.waited = int(self.load_history.loading_for(strip.facts.model) or 0)
            strip.background_work = (transfer_list.one_line(self.downloads.transfers), self.server.one_line())

    def notify(self, message: str, **options: Any) -> None:
        """Show a message in a corner; one that is there already is not shown twice."""
        if not any(each.message == message for each in self._notifications):
            super().notify(message, **options)

    def connect(self, server: NearbyServer) -> None:
        """End, so that the screens begin anew on the models of a server; what is downloaded or written ends here."""
        self.connect_to = (server.url, server.key)
        self.run_worker(self.action_quit(), exit_on_error=False)

    async def _offer_running(self) -> None:
        if other := await self._other_server():
            self.notify(f"A Squish already serves at {other.url}. {key(self, 'app.connect')} uses its models.",
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
            self.notify("No other Squish of yours serves on this machine.", markup=False)
            return
        with reporting_errors(self):
            self.connect(await look(other.url, self._runtime.settings.api_key or ""))

    async def action_quit(self) -> None:
        """Leave; a running download is mentioned first."""
        if not self.downloads.active or isinstance(self.screen, ConfirmScreen):
            self.exit()
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.exit()

        on_their_way = ", ".join(clean(each.id) for each in self.downloads.active)
        where = f"{key(self, 'app.library')} {key(self, 'downloads.resume')}"
        text = f"{on_their_way}: not complete. What has arrived stays; {where} continues it next time."
        self.push_screen(ConfirmScreen("A download is running", text, "Quit", "Stay"), answered)

    def get_key_display(self, binding: Binding) -> str:
        """As everywhere else also for function keys that config.toml sets."""
        shown = super().get_key_display(binding)
        return actions.display_keys(shown)[0] if shown else shown

    def action_help_quit(self) -> None:
        self.notify(f"{key(self, 'app.quit')} quits.", markup=False)

    def _fatal_error(self) -> None:
        """Textual would print a traceback with local variables, prompts among them: that belongs in the log."""
        os.write(2, traceback.format_exc().encode(errors="replace"))
        self.fault = _where(sys.exc_info()[1] or self._exception)
        self._close_messages_no_wait()


def _where(error: BaseException | None) -> str:
    """`ZeroDivisionError in chat_view.py:120`: the kind and the last place of ours; never what the error says."""
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    ours = [each for each in frames if f"{os.sep}squish{os.sep}" in each.filename] or list(frames)
    place = f" in {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"{type(error).__name__}{place}"


def run(
    settings: Settings,
    model: str | None = None,
    *,
    serve: Serve | None = None,
    connect: tuple[str, str] | None = None,
    in_browser: bool = False,
) -> int:
    """Run the app until the user leaves it; the exit code. Raises InvalidInput without a terminal.

    EngineError, when the terminal is as it was before: the app met a fault of its own.
    serve: runs the API behind the server screen. connect: the address of a server whose models are used, and its key;
    raises RemoteError where it cannot be used. in_browser: what is drawn goes to a page, see `squish web`.
    """
    if not in_browser and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput("The full-screen chat needs a terminal.", hint='Run: squish run MODEL --prompt "…"')
    log = settings.home / "logs" / "tui.log"
    with guarded_stderr(log), whole_pastes():
        code, fault = resolver.run(_run(settings, model, serve, connect))
    if fault:
        raise EngineError(f"Squish had to close: {fault}. The log has the details: {log}")
    return code


async def _run(
    settings: Settings, model: str | None, serve: Serve | None, connect: tuple[str, str] | None
) -> tuple[int, str]:
    """One app after the other, for as long as each ends by choosing another server."""
    while True:
        if connect is None:
            async with Runtime(settings) as runtime:
                app = await _shown(SquishApp(runtime, model, serve=serve), settings)
        else:
            app = await _connected(settings, model, *connect)
        if app.connect_to is None or app.fault:
            return app.return_code or 0, app.fault
        connect = app.connect_to


async def _connected(settings: Settings, model: str | None, url: str, key: str) -> SquishApp:
    from squish.remote.connected import connected

    async with connected(settings, url, key) as backend:
        listed = any(each.id == model for each in backend.store.list())
        return await _shown(SquishApp(backend, model if listed else None), settings)


async def _shown(app: SquishApp, settings: Settings) -> SquishApp:
    preferences.apply(app, settings)
    await app.run_async()
    return app
