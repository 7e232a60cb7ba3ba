"""The registry of everything a user can ask the TUI to do: one entry serves the key, the palette, the slash command and
the help screen, so that they cannot drift apart. It knows no screen; `method` names the Textual action that does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding, BindingType

Scope = Literal["app", "chat", "transcript", "prompt"]

SCOPE_TITLES: tuple[tuple[Scope, str], ...] = (
    ("prompt", "Writing"),
    ("chat", "Chat"),
    ("transcript", "Transcript"),
    ("app", "Everywhere"),
)


@dataclass(frozen=True, slots=True)
class Action:
    """id: what a keymap names; keys: Textual keys, comma between; footer: the word shown at the bottom, if any.

    slash: the command's name; argument: what may follow it; palette: whether ctrl+p lists it.
    priority: whether the key is taken before the widget that has the focus sees it.
    """

    id: str
    scope: Scope
    title: str
    about: str
    method: str
    keys: str = ""
    footer: str = ""
    slash: str = ""
    argument: str = ""
    palette: bool = False
    priority: bool = False


ACTIONS: tuple[Action, ...] = (
    Action("prompt.send", "prompt", "Send", "Send the message", "send", "enter", priority=True),
    Action("prompt.newline", "prompt", "New line", "Begin a new line", "newline", "ctrl+j,shift+enter,alt+enter",
           priority=True),
    Action("prompt.complete", "prompt", "Complete", "Complete a slash command", "complete", "tab", priority=True),
    Action("chat.stop", "chat", "Stop", "Stop the answer; what was written stays", "stop", "escape", "stop",
           priority=True),
    Action("chat.model", "chat", "Choose model", "Choose the model that answers next", "pick_model", "ctrl+l", "model",
           "model", "NAME", palette=True, priority=True),
    Action("chat.new", "chat", "New chat", "Begin a new chat", "new_chat", "ctrl+n", "new",
           "new", palette=True, priority=True),
    Action("chat.copy", "chat", "Copy answer", "Copy the last answer", "copy_answer", slash="copy", palette=True),
    Action("chat.system", "chat", "System prompt", "Set the system prompt; alone it takes it away", "system",
           slash="system", argument="TEXT"),
    Action("chat.page_up", "chat", "Page up", "Scroll up", "transcript_page_up", "pageup", priority=True),
    Action("chat.page_down", "chat", "Page down", "Scroll down", "transcript_page_down", "pagedown", priority=True),
    Action("chat.latest", "chat", "Latest", "Go to the newest text and follow it", "latest", "ctrl+end", priority=True),
    Action("transcript.copy", "transcript", "Copy answer", "Copy the last answer", "screen.copy_answer", "y", "copy"),
    Action("app.help", "app", "Help", "Keys and commands", "help", "f1", "help", "help", palette=True, priority=True),
    Action("app.palette", "app", "Commands", "Find a command", "command_palette", "ctrl+p", "commands", priority=True),
    Action("app.theme", "app", "Theme", "Choose the colors", "change_theme", palette=True),
    Action("app.interrupt", "app", "How to quit", "Copy what is selected, or say how to quit", "help_quit", "ctrl+c"),
    Action("app.quit", "app", "Quit", "Leave Squish", "quit", "ctrl+q", "quit", "quit", palette=True, priority=True),
)  # fmt: skip

_SLASH = re.compile(r"/([a-z]*)(?:\s+(.*))?", re.DOTALL)


def bindings(scope: Scope) -> list[BindingType]:
    """The keys of a scope, each with the id that a keymap can name."""
    return [
        Binding(
            action.keys,
            action.method,
            action.footer or action.title,
            show=bool(action.footer),
            id=action.id,
            priority=action.priority,
            tooltip=action.about,
            key_display="F1" if action.keys == "f1" else None,
        )
        for action in ACTIONS
        if action.scope == scope and action.keys
    ]


def in_palette() -> Iterator[Action]:
    return (action for action in ACTIONS if action.palette)


def qualified(action: Action) -> str:
    """The action's name as seen from the app: the chat is the screen that is on."""
    return f"screen.{action.method}" if action.scope == "chat" else f"app.{action.method}"


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """A line that begins with a slash, taken apart. action is None when nothing has that name."""

    name: str
    argument: str
    action: Action | None


def parse_slash(text: str) -> SlashCommand | None:
    """The command in a message, or None when it is a message: `/etc/hosts` and ` /new` are."""
    match = _SLASH.fullmatch(text)
    if not match:
        return None
    name, argument = match[1], (match[2] or "").strip()
    action = next((each for each in ACTIONS if each.slash == name), None) if name else None
    return SlashCommand(name, argument, action)


def completions(text: str) -> list[Action]:
    """The commands that a draft like `/mo` may become; none when it is no unfinished command."""
    if not re.fullmatch(r"/[a-z]*", text):
        return []
    return [action for action in ACTIONS if action.slash and action.slash.startswith(text[1:])]


def display_keys(keys: str) -> list[str]:
    """Keys as people write them."""
    names = {"escape": "esc", "f1": "F1", "pageup": "pgup", "pagedown": "pgdn"}
    return [names.get(key, key) for key in keys.split(",")]
