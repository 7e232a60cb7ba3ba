"""What ctrl+p finds: every action of the registry, and by their names models, chats, themes and parameters.

Before anything is written only the actions are listed. It changes nothing itself: each entry does what its key does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.fuzzy import Matcher
from textual.markup import escape
from textual.theme import ThemeProvider
from textual.widgets import Input

from squish import figures
from squish.errors import SquishError
from squish.text import clean
from squish.tui import actions
from squish.tui.chat.conversations import LISTED, day_of
from squish.tui.chat.parameters import PARAMETERS
from squish.tui.key_hints import key
from squish.tui.messages import OpenChat, UseModel
from squish.tui.windows.window import ClosesOnce

if TYPE_CHECKING:
    from squish.tui.app import SquishApp


@dataclass(frozen=True, slots=True)
class PaletteEntry:
    """title is searched; about and key stand beside it. label: the word in the title that the screens show for it."""

    title: str
    about: str
    key: str
    run: Callable[[], Any]
    label: str = ""

    @property
    def help(self) -> str:
        """Escaped: what a server calls itself could be read as markup."""
        return escape(self.about)

    def shown(self, title: Content) -> Content:
        return Content.assemble(title, (f"  {self.key}", "$text-accent") if self.key else "")


class SquishPalette(CommandPalette, ClosesOnce[None]):
    """Closes with ctrl+c too, as all windows do; what is selected in its field is copied instead."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "escape", "Close", id="palette.interrupt", show=False)]

    def dismiss(self, result: None = None) -> AwaitComplete:
        """A second `enter` that was on its way does not run the command again."""
        self.call_next(setattr, self, "_selected_command", None)
        return super().dismiss(result)

    def search_again(self) -> None:
        """Search for what is written now: there is more to find."""
        if written := self.query_one(Input).value.strip():
            self._cancel_gather_commands()
            self._gather_commands(written)

    def _action_command_list(self, action: str) -> None:
        with suppress(KeyError, IndexError):  # a page, of a list that has no room, or not yet
            super()._action_command_list(action)


class ThemePalette(SquishPalette):
    """Lists the themes alone."""

    def __init__(self) -> None:
        super().__init__([ThemeProvider], placeholder="Search for themes…")


class PaletteProvider(Provider):
    """Reads models and chats once, when the window opens, and looks for servers when the first letter is written."""

    async def startup(self) -> None:
        app = cast("SquishApp", self.app)
        self._actions = sorted(_actions(app), key=lambda each: each.title)
        self._others = [*_models(app), *_chats(app), *_themes(app), *_parameters(app)]
        self._looked = False

    def _look_for_servers(self) -> None:
        """A port that does not answer must not hold up what is searched, nor the client's modules the window."""
        if not self._looked:
            self._looked, app = True, cast("SquishApp", self.app)
            app.run_worker(self._find_servers(app), group="servers", exclusive=True, exit_on_error=False)

    async def _find_servers(self, app: SquishApp) -> None:
        """They come after the letters that they were looked for with, often the last ones."""
        self._others += (found := await _servers(app))
        if found and isinstance(app.screen, SquishPalette):
            app.screen.search_again()

    async def discover(self) -> Hits:
        for each in self._actions:
            yield DiscoveryHit(each.shown(Content(each.title)), each.run, text=each.title, help=each.help)

    async def search(self, query: str) -> Hits:
        self._look_for_servers()
        matcher = self.matcher(query)
        for each in (*self._actions, *self._others):
            if hit := _hit(matcher, query, each):
                yield hit


def _hit(matcher: Matcher, query: str, entry: PaletteEntry) -> Hit | None:
    """What the screens call so stands before what only begins so."""
    if (score := matcher.match(entry.title)) <= 0:
        return None
    if query.casefold() == entry.label:
        score *= 2
    return Hit(score, entry.shown(matcher.highlight(entry.title)), entry.run, text=entry.title, help=entry.help)


def _actions(app: SquishApp) -> Iterator[PaletteEntry]:
    for action in actions.in_palette():
        yield PaletteEntry(action.title, action.about, key(app, action.id), partial(app.perform, action))


def _models(app: SquishApp) -> Iterator[PaletteEntry]:
    shown = key(app, "chat.model")
    with suppress(SquishError):  # the models screen says what is wrong with them
        for each in app.runtime.store.list():
            if each.kind == "chat":
                about = f"Chat with it · {figures.size(each.size)}"
                yield PaletteEntry(
                    f"Model: {clean(each.id)}", about, shown, partial(app.post_message, UseModel(each.id))
                )


def _chats(app: SquishApp) -> Iterator[PaletteEntry]:
    shown, today = key(app, "chat.list"), datetime.now().astimezone()
    with suppress(SquishError):  # the chat says it at the start
        for each in app.runtime.chats.recent(LISTED, archived=True):
            about = f"{day_of(each.updated, today)}{' · archived' if each.archived else ''}"
            yield PaletteEntry(f"Chat: {clean(each.title)}", about, shown, _in_chat(app, OpenChat(each.id)))


def _themes(app: SquishApp) -> Iterator[PaletteEntry]:
    for name in sorted(app.available_themes):
        yield PaletteEntry(f"Theme: {clean(name)}", "Use these colors", "", partial(setattr, app, "theme", name))


def _parameters(app: SquishApp) -> Iterator[PaletteEntry]:
    shown = key(app, "chat.params")
    for each in PARAMETERS:
        title = f"Parameter: {each.name}" + (f" · {each.label}" if each.label != each.name else "")
        yield PaletteEntry(title, each.about, shown, partial(_set_parameter, app, each.name), each.label)


async def _servers(app: SquishApp) -> list[PaletteEntry]:
    """Servers that run on this machine, to use their models from now on."""
    from squish.remote.nearby import nearby

    settings = app.runtime.settings
    return [
        PaletteEntry(f"Connect: {each.url}", f"Use the models of {each.program}", "", partial(app.connect, each))
        for each in await nearby(settings.home, settings.api_key or "")
        if each.url != app.server.url
    ]


def _in_chat(app: SquishApp, message: OpenChat) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        await app.switch_mode("chat")
        app.screen.post_message(message)

    return run


async def _set_parameter(app: SquishApp, name: str) -> None:
    await app.switch_mode("chat")
    await app.run_action(f"screen.parameter({name!r})")
