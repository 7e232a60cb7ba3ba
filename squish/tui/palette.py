"""What ctrl+p finds: every action of the registry, and by their names models, chats, themes and parameters.

Before anything is written only the actions are listed. It changes nothing itself: each entry does what its key does.
Knows no window.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from squish import figures
from squish.errors import SquishError
from squish.text import clean
from squish.tui import actions, fuzzy
from squish.tui.chat.conversations import LISTED, day_of
from squish.tui.chat.parameters import PARAMETERS
from squish.tui.key_hints import key
from squish.tui.messages import OpenChat, UseModel

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


@dataclass(frozen=True, slots=True)
class Match:
    """places: the letters of the title that were looked for."""

    entry: PaletteEntry
    places: tuple[int, ...] = ()


def found(written: str, entries: Iterable[PaletteEntry]) -> list[Match]:
    """The best first: what the screens call so, then what only begins so, then what has it elsewhere."""
    matches = list[tuple[float, Match]]()
    for each in entries:
        score, places = fuzzy.match(written, each.title)
        if score > 0:
            matches.append((score * (2 if written.casefold() == each.label else 1), Match(each, places)))
    return [match for _, match in sorted(matches, key=lambda scored: (-scored[0], scored[1].places[0] > 0))]


def commands(app: SquishApp) -> list[PaletteEntry]:
    return [
        PaletteEntry(action.title, action.about, key(app, action.id), partial(app.perform, action))
        for action in sorted(actions.in_palette(), key=lambda each: each.title)
    ]


def named(app: SquishApp) -> list[PaletteEntry]:
    """What has a name; read when something is looked for."""
    looks = [replace(each, title=f"Theme: {each.title}", about="Use these colors") for each in themes(app)]
    return [*_models(app), *_chats(app), *looks, *_parameters(app)]


def themes(app: SquishApp) -> list[PaletteEntry]:
    return [
        PaletteEntry(clean(name), "", "", partial(setattr, app, "theme", name)) for name in sorted(app.available_themes)
    ]


async def servers(app: SquishApp) -> list[PaletteEntry]:
    """Servers that run on this machine, to use their models from now on."""
    from squish.remote.nearby import nearby

    settings = app.runtime.settings
    return [
        PaletteEntry(
            f"Connect: {clean(each.url)}", f"Use the models of {clean(each.program)}", "", partial(app.connect, each)
        )
        for each in await nearby(settings.home, settings.api_key or "")
        if each.url != app.server.url
    ]


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


def _parameters(app: SquishApp) -> Iterator[PaletteEntry]:
    shown = key(app, "chat.params")
    for each in PARAMETERS:
        title = f"Parameter: {each.name}" + (f" · {each.label}" if each.label != each.name else "")
        yield PaletteEntry(title, each.about, shown, partial(_set_parameter, app, each.name), each.label)


def _in_chat(app: SquishApp, message: OpenChat) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        await app.switch_mode("chat")
        app.screen.post_message(message)

    return run


async def _set_parameter(app: SquishApp, name: str) -> None:
    await app.switch_mode("chat")
    await app.run_action(f"screen.parameter({name!r})")
