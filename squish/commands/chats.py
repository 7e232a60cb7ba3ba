"""`squish chats`: list, show, tag, export, import and remove the conversations that are kept."""

from __future__ import annotations

from pathlib import Path

import click

from squish import console
from squish.chats import tags
from squish.chats.chats import Chats
from squish.chats.export import FORMATS, Format, about, export, format_of, local_time
from squish.commands.flags import Whole
from squish.config.settings import Settings
from squish.errors import InvalidInput, StoreError
from squish.files import read_regular, write_new
from squish.text import clean

_TITLE_WIDTH = 48
_LARGEST_FILE = 256 * 1024 * 1024  # bytes


@click.group("chats")
def chats() -> None:
    """List, show, tag, export, import and remove conversations.

    \b
    squish chats list
    squish chats show 12
    squish chats export 12 -o chat.md
    squish chats export --all -o chats.jsonl
    squish chats tag 12 work
    squish chats archive 12
    squish chats rm 12
    """


def _open() -> Chats:
    return Chats(Settings.from_environment().home / "chats.db")


@chats.command("list")
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.option("--limit", type=Whole(1), help="Print only the newest N.")
@click.option("--archived", is_flag=True, help="Print archived ones too.")
@click.option("--tag", "tagged", multiple=True, metavar="TAG", help="Print only those with this tag; repeatable.")
def list_chats(
    words: tuple[str, ...], as_json: bool, limit: int | None, archived: bool, tagged: tuple[str, ...]
) -> None:
    """List conversations, most recently used first. With WORDS, those with a message that contains them, also archived.

    \b
    squish chats list
    squish chats list haiku --limit 5
    squish chats list --tag work
    """
    store = _open()
    found = store.recent(archived=archived or bool(words), tags=tags.tags(tagged))
    if words:
        hits = {hit.chat for hit in store.find(" ".join(words), limit=10_000)}
        found = [chat for chat in found if chat.id in hits]
    found = found[:limit]
    if as_json:
        console.out_json([about(chat) for chat in found])
        return
    if not found:
        none = "No chat has these tags." if tagged else "No chats are saved yet."
        console.note("No chat contains these words." if words else none)
        return
    rows = [
        (str(chat.id), _short(chat.title), chat.model, local_time(chat.updated), tags.written(chat.tags))
        for chat in found
    ]
    console.table(("ID", "TITLE", "MODEL", "USED", "TAGS"), rows, right=frozenset({0}))


@chats.command()
@click.argument("chat", type=int)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(chat: int, as_json: bool) -> None:
    """Print a conversation, as Markdown.

    \b
    squish chats show 12
    """
    store = _open()
    console.out(export(store.get(chat), store.branch(chat), "json" if as_json else "md").rstrip("\n"))


@chats.command("export")
@click.argument("chat", type=int, required=False)
@click.option("-o", "--output", "file", type=click.Path(path_type=Path), help="Write to this file.  [default: stdout]")
@click.option("--all", "everything", is_flag=True, help="All conversations, as JSON lines or JSON.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="[default: what the file ends in, or md]")
def export_chat(chat: int | None, file: Path | None, everything: bool, form: Format | None) -> None:
    """Write a conversation as Markdown, JSON or a JSON line. An existing file is not touched.

    \b
    squish chats export 12 > chat.md
    squish chats export 12 -o chat.json
    squish chats export --all -o chats.jsonl
    """
    store = _open()
    if everything:
        text = _all(store, form or (format_of(file) if file else "jsonl"))
    elif chat is None:
        raise InvalidInput("Which chat?", hint="Give its number, or --all.", param="CHAT")
    else:
        form = form or (format_of(file) if file else "md")
        text = export(store.get(chat), store.branch(chat), form)
    if file is None:
        console.out(text.rstrip("\n"))
        return
    try:
        write_new(file, text)
    except FileExistsError:
        raise InvalidInput(f"{file} already exists; it was not touched.", param="--output") from None
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror}.") from error
    console.note(f"Written to {file}")


def _all(store: Chats, form: Format) -> str:
    """Every conversation, the oldest first. Raises InvalidInput for Markdown."""
    if form == "md":
        raise InvalidInput("All chats together are written as jsonl or json.", param="--format")
    texts = [export(each, store.branch(each.id), form) for each in reversed(store.recent(archived=True))]
    return "".join(texts) if form == "jsonl" else f"[{','.join(text.rstrip() for text in texts)}]\n"


@chats.command("import")
@click.argument("file", type=click.Path(path_type=Path))
def import_chats(file: Path) -> None:
    """Read conversations that `squish chats export` wrote.

    Each becomes a new conversation. JSON keeps titles, tags and dates, JSON lines the messages alone.

    \b
    squish chats export --all -o chats.json
    squish chats import chats.json
    """
    from squish.chats import importing

    try:
        text = read_regular(file, _LARGEST_FILE, follow=True).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not UTF-8 text.", param="FILE") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{file} cannot be read: {reason}.", param="FILE") from None
    try:
        found = importing.read(text)
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error.message}", hint=error.hint, param="FILE") from None
    store = _open()
    for id in importing.keep(store, found):
        console.note(f"Imported {id}: {clean(store.get(id).title)}")


@chats.command("tag")
@click.argument("chat", type=int)
@click.argument("added", nargs=-1, metavar="[TAG]...")
@click.option("--remove", "removed", multiple=True, metavar="TAG", help="Take this tag away; repeatable.")
def tag_chat(chat: int, added: tuple[str, ...], removed: tuple[str, ...]) -> None:
    """Give a conversation tags, and print those that it has.

    \b
    squish chats tag 12 work recipes
    squish chats tag 12 --remove work
    """
    store = _open()
    id = store.get(chat).id
    store.tag(id, tags.TagChange(tags.tags(added), tags.tags(removed)))
    for each in store.get(id).tags:
        console.out(each)


@chats.command()
@click.argument("chat", type=int, nargs=-1, required=True)
@click.option("--undo", is_flag=True, help="Bring them back into the list.")
def archive(chat: tuple[int, ...], undo: bool) -> None:
    """Take conversations out of the list.

    Nothing is deleted, and their words are still found.

    \b
    squish chats archive 12 13
    squish chats archive --undo 12
    """
    store = _open()
    for each in [store.get(id) for id in chat]:
        store.archive(each.id, not undo)
        console.note(f"{'Brought back' if undo else 'Archived'} {each.id}: {clean(each.title)}")


@chats.command("rm")
@click.argument("chat", type=int, nargs=-1, required=True)
def remove(chat: tuple[int, ...]) -> None:
    """Delete conversations with all their messages.

    \b
    squish chats rm 12 13
    """
    store = _open()
    for each in [store.get(id) for id in chat]:
        store.remove(each.id)
        console.note(f"Deleted {each.id}: {clean(each.title)}")


def _short(title: str) -> str:
    return title if len(title) <= _TITLE_WIDTH else title[: _TITLE_WIDTH - 1] + "…"
