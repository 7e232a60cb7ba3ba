"""The windows over a chat that ask for one thing: a model, a title, tags, values, a yes. Each hands on what was chosen.

They know no conversation; nothing happens where the user chooses nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from textual.app import App

from squish.chats import tags
from squish.chats.chats import Chats
from squish.chats.messages import Hit
from squish.chats.tags import TagChange
from squish.text import clean
from squish.tui.advice import reporting_errors

if TYPE_CHECKING:
    from squish.chats.templates import Variable
    from squish.models.manifest import Manifest


async def pick_model(
    app: App[Any], installed: Sequence[Manifest], current: str, then: Callable[[str], Awaitable[None]]
) -> None:
    """then: gets a model other than the current one. The last row goes to the hub instead, which looks for what was
    written."""
    from squish.tui.windows.model_picker import GET_MORE, ModelPicker

    async def picked(name: str | None) -> None:
        if name and name.startswith(GET_MORE):
            await app.run_action("app.open('hub')")
            if words := name.removeprefix(GET_MORE):
                await app.run_action(f"screen.search_for({words!r})")
        elif name and name != current:
            await then(name)

    await app.push_screen(ModelPicker(installed, current), picked)


async def rename(app: App[Any], title: str, then: Callable[[str], None]) -> None:
    """then: gets the new title."""
    from squish.tui.windows.line_input import LineScreen

    def written(line: str | None) -> None:
        if line:
            then(line)

    await app.push_screen(LineScreen("Rename chat", clean(title)), written)


async def fill_in(
    app: App[Any], title: str, wanted: Sequence[Variable], text: str, then: Callable[[dict[str, str]], Awaitable[None]]
) -> None:
    """then: gets a value for each variable of the text."""
    from squish.tui.windows.form import FormScreen

    async def filled(values: dict[str, str] | None) -> None:
        if values is not None:
            await then(values)

    await app.push_screen(FormScreen(clean(title), wanted, clean(text)), filled)


async def pick_template(app: App[Any], known: Mapping[str, str], then: Callable[[str], Awaitable[None]]) -> None:
    """then: gets the name of a template."""
    from squish.tui.windows.named_picker import NamedPicker

    async def picked(name: str | None) -> None:
        if name is not None:
            await then(name)

    await app.push_screen(NamedPicker("template", "Prompt templates", known), picked)


async def pick_preset(
    app: App[Any], known: Mapping[str, str], current: str, then: Callable[[str], Awaitable[None]]
) -> None:
    """known: what each preset sets, by its name. then: gets a name."""
    from squish.tui.windows.named_picker import NamedPicker

    async def picked(name: str | None) -> None:
        if name is not None:
            await then(name)

    await app.push_screen(NamedPicker("preset", "Presets", known, current), picked)


async def write_tags(app: App[Any], before: Sequence[str], then: Callable[[TagChange], None]) -> None:
    """then: gets what was changed of a chat's tags."""
    from squish.tui.windows.line_input import LineScreen

    def written(line: str | None) -> None:
        if line is not None:
            with reporting_errors(app):
                after = tags.change(line).added
                then(TagChange(after, tuple(each for each in before if each not in after)))

    await app.push_screen(LineScreen("Tags, separated by spaces", clean(" ".join(before)), may_be_empty=True), written)


async def pick_tag(app: App[Any], known: Mapping[str, int], current: str, then: Callable[[str], None]) -> None:
    """then: gets a tag, or an empty text for all chats."""
    from squish.tui.windows.tag_picker import TagPicker

    def picked(tag: str | None) -> None:
        if tag is not None:
            then(tag)

    await app.push_screen(TagPicker(known, current), picked)


def confirm_deletion(app: App[Any], title: str, then: Callable[[], Awaitable[None]]) -> None:
    """then: is called where the user says yes."""
    from squish.tui.windows.confirm import ConfirmScreen

    async def answered(yes: bool | None) -> None:
        if yes:
            await then()

    question = f"Delete “{clean(title)}” with all its messages? This cannot be undone."
    app.push_screen(ConfirmScreen("Delete chat", question, "Delete"), answered)


async def find(app: App[Any], chats: Chats, words: str, then: Callable[[Hit], Awaitable[None]]) -> None:
    """then: gets what was chosen of what was found."""
    from squish.tui.windows.chat_search import ChatSearchScreen

    async def chosen(hit: Hit | None) -> None:
        if hit:
            await then(hit)

    await app.push_screen(ChatSearchScreen(chats, words), chosen)
