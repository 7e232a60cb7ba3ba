"""The registry of everything a user can ask the TUI to do: one entry serves the key, the palette, the slash command and
the help screen, so that they cannot drift apart. It knows no screen; `method` names the Textual action that does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec
from textual.binding import Binding, BindingType

Scope = Literal[
    "app", "chat", "transcript", "prompt", "chats", "params", "compare", "hub", "library", "downloads", "server"
]

SCOPE_TITLES: tuple[tuple[Scope, str], ...] = (
    ("prompt", "Writing"),
    ("chat", "Chat"),
    ("transcript", "Transcript"),
    ("chats", "List of chats"),
    ("params", "Parameters"),
    ("compare", "Compare"),
    ("hub", "Hub"),
    ("library", "Models"),
    ("downloads", "Downloads"),
    ("server", "Server"),
    ("app", "Everywhere"),
)


class Action(msgspec.Struct, frozen=True):
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
    Action("prompt.leave", "prompt", "Leave edit", "Cancel the edit; the draft comes back", "screen.leave_edit",
           "escape", "leave edit", priority=True),
    Action("chat.stop", "chat", "Stop", "Stop the answer; what was written stays", "stop", "escape", "stop",
           priority=True),
    Action("chat.interrupt", "chat", "Stop", "Stop the answer, or copy the selection if there is one", "interrupt",
           "ctrl+c", priority=True),
    Action("chat.model", "chat", "Choose model", "Choose the model that answers next", "pick_model", "ctrl+l", "model",
           "model", "NAME", palette=True, priority=True),
    Action("chat.new", "chat", "New chat", "Begin a new chat", "new_chat", "ctrl+n", "new",
           "new", palette=True, priority=True),
    Action("chat.list", "chat", "Chats", "Show or hide the list of chats", "toggle_chats", "ctrl+b", "chats",
           "chats", palette=True, priority=True),
    Action("chat.params", "chat", "Parameters", "Show or hide this chat's parameters", "toggle_params",
           "ctrl+o", slash="params", palette=True, priority=True),
    Action("chat.tools", "chat", "Tools", "Choose which MCP tools this chat may use", "tools", slash="tools",
           argument="SERVER", palette=True),
    Action("chat.compare", "chat", "Compare", "Ask several models or presets the same question, keep one answer",
           "compare", "f8", slash="compare", argument="TEXT", palette=True, priority=True),
    Action("chat.answer_call", "chat", "Answer", "Go to the question about a tool call", "answer_call",
           "ctrl+y", priority=True),
    Action("chat.project", "chat", "Project files", "Send AGENTS.md and CLAUDE.md with this chat, or stop that",
           "project", "ctrl+f", slash="project", palette=True, priority=True),
    Action("chat.find", "chat", "Find", "Find words in all chats", "find", "ctrl+s", "find", "find", "WORDS",
           palette=True, priority=True),
    Action("chat.next", "chat", "Next chat", "Go to the next chat in the list", "step_chat(1)", "alt+pagedown",
           palette=True, priority=True),
    Action("chat.previous", "chat", "Previous chat", "Go to the previous chat in the list", "step_chat(-1)",
           "alt+pageup", palette=True, priority=True),
    Action("chat.editor", "chat", "Editor", "Write the message in $EDITOR", "editor", "ctrl+g", slash="editor",
           palette=True, priority=True),
    Action("chat.regenerate", "chat", "Retry", "Ask for another version of an answer", "regenerate",
           slash="again", palette=True),
    Action("chat.edit", "chat", "Edit", "Edit a message as a new branch", "edit", slash="edit", palette=True),
    Action("chat.continue", "chat", "Continue", "Continue an answer that was stopped or cut by a limit", "continue",
           slash="continue", palette=True),
    Action("chat.copy", "chat", "Copy answer", "Copy the last answer", "copy_answer", slash="copy", palette=True),
    Action("chat.code", "chat", "Copy code", "Copy a code block by number; without NUMBER, the last one", "copy_code",
           slash="code", argument="NUMBER", palette=True),
    Action("chat.rename", "chat", "Rename chat", "Rename this chat", "rename_chat", slash="rename",
           argument="NAME", palette=True),
    Action("chat.pin", "chat", "Pin chat", "Pin this chat to the top of the list, or unpin it", "pin_chat",
           slash="pin", palette=True),
    Action("chat.archive", "chat", "Archive chat", "Archive this chat, or unarchive it", "archive_chat",
           slash="archive", palette=True),
    Action("chat.tag", "chat", "Tag chat", "Tag this chat: work recipes; -work removes one", "tag_chat",
           slash="tag", argument="TAG", palette=True),
    Action("chat.filter", "chat", "Filter chats", "List only the chats with a tag; without TAG, all of them",
           "filter_chats", slash="filter", argument="TAG", palette=True),
    Action("chat.delete", "chat", "Delete chat", "Delete this chat with all its messages", "delete_chat",
           slash="delete", palette=True),
    Action("chat.export", "chat", "Export", "Write this chat to a .md, .json or .jsonl file", "export",
           slash="export", argument="FILE", palette=True),
    Action("chat.system", "chat", "System prompt", "Set the system prompt; without TEXT, remove it", "system",
           slash="system", argument="TEXT"),
    Action("chat.set", "chat", "Set", "Set a parameter: temperature 0.2; without a value, reset it", "set",
           slash="set", argument="NAME VALUE"),
    Action("chat.preset", "chat", "Preset", "Use parameters by name; save NAME, rm NAME", "preset",
           slash="preset", argument="NAME"),
    Action("chat.defaults", "chat", "Model defaults", "Save these parameters as the model's defaults; rm removes them",
           "keep_parameters", slash="defaults", argument="rm", palette=True),
    Action("chat.template", "chat", "Template", "Write a prompt from a template; save NAME TEXT, rm NAME", "template",
           slash="template", argument="NAME TEXT", palette=True),
    Action("chat.mark_up", "chat", "Mark", "Mark the previous message", "mark(-1)", "alt+up", palette=True,
           priority=True),
    Action("chat.mark_down", "chat", "Mark next", "Mark the next message", "mark(1)", "alt+down", palette=True,
           priority=True),
    Action("chat.page_up", "chat", "Page up", "Scroll up", "transcript_page_up", "pageup", palette=True,
           priority=True),
    Action("chat.page_down", "chat", "Page down", "Scroll down", "transcript_page_down", "pagedown", palette=True,
           priority=True),
    Action("chat.latest", "chat", "Latest", "Jump to the end and follow it", "latest", "ctrl+end", slash="latest",
           palette=True, priority=True),
    Action("transcript.copy", "transcript", "Copy", "Copy the marked message",
           "copy", "y", "copy"),
    Action("transcript.code", "transcript", "Copy code", "Copy the last code block; 1 to 9 copies that one",
           "copy_code", "c", "code"),
    Action("transcript.edit", "transcript", "Edit", "Edit the marked message as a new branch", "on_marked('edit')", "e",
           "edit", priority=True),
    Action("transcript.again", "transcript", "Retry", "Ask for another version of the answer",
           "on_marked('regenerate')", "r",
           "retry", priority=True),
    Action("transcript.continue", "transcript", "Continue", "Continue the last answer", "on_marked('continue')", "g",
           "continue", priority=True),
    Action("transcript.older", "transcript", "Older version", "Show the previous version", "version(-1)",
           "left_square_bracket", "versions"),
    Action("transcript.newer", "transcript", "Newer version", "Show the next version", "version(1)",
           "right_square_bracket", "versions"),
    Action("transcript.fold", "transcript", "Thoughts", "Show or hide the model's thinking", "fold", "t"),
    Action("transcript.back", "transcript", "Write", "Go back to the prompt", "screen.focus_prompt", "escape",
           priority=True),
    Action("chats.open", "chats", "Open", "Open the marked chat", "screen.open_marked", "enter", "open",
           priority=True),
    Action("chats.rename", "chats", "Rename", "Rename the marked chat", "screen.rename_chat", "r", "rename"),
    Action("chats.pin", "chats", "Pin", "Pin the marked chat to the top, or unpin it", "screen.pin_chat", "p", "pin"),
    Action("chats.tag", "chats", "Tag", "Edit the marked chat's tags", "screen.tag_chat", "t", "tag"),
    Action("chats.filter", "chats", "Filter", "List only the chats with a tag", "screen.filter_chats", "f", "filter"),
    Action("chats.archive", "chats", "Archive", "Archive the marked chat; search still finds it",
           "screen.archive_chat", "a", "archive"),
    Action("chats.delete", "chats", "Delete", "Delete the marked chat", "screen.delete_chat", "delete,d", "delete"),
    Action("chats.back", "chats", "Write", "Go back to the prompt", "screen.focus_prompt", "escape", priority=True),
    Action("params.reset", "params", "Reset", "Reset all parameters to their defaults", "reset", "ctrl+r", "reset",
           priority=True),
    Action("params.keep", "params", "For this model", "Save these parameters as the model's defaults",
           "screen.keep_parameters", "f9", "for this model", priority=True),
    Action("params.back", "params", "Write", "Go back to the prompt", "screen.focus_prompt", "escape"),
    Action("compare.first", "compare", "Keep", "Keep the first answer", "keep(1)", "1", "keep"),
    Action("compare.second", "compare", "Keep", "Keep the second answer", "keep(2)", "2", "keep"),
    Action("compare.third", "compare", "Keep", "Keep the third answer", "keep(3)", "3", "keep"),
    Action("compare.leave", "compare", "Chat", "Go back to the chat; all answers are versions there", "leave",
           "escape,enter", "chat", priority=True),
    Action("compare.stop", "compare", "Stop", "Stop all answers; what was written stays", "stop", "escape", "stop",
           priority=True),
    Action("compare.interrupt", "compare", "Stop", "Stop all answers", "stop", "ctrl+c", priority=True),
    Action("compare.next", "compare", "Next", "Go to the next answer, to scroll it", "step(1)", "tab,right",
           "next", priority=True),
    Action("compare.previous", "compare", "Previous", "Go to the previous answer", "step(-1)", "shift+tab,left",
           priority=True),
    Action("compare.copy", "compare", "Copy", "Copy the answer that has the focus", "copy", "y", "copy"),
    Action("hub.search", "hub", "Search", "Type to search", "search", "slash,ctrl+f", "search",
           priority=True),
    Action("hub.download", "hub", "Download", "Download the marked model", "download", "enter,d", "download"),
    Action("hub.import", "hub", "Import", "Import the marked model of this machine", "import_model", "enter,d",
           "import"),
    Action("hub.resume", "hub", "Resume", "Resume the download of the marked model, or retry it", "resume",
           "enter,r", "resume"),
    Action("hub.use", "hub", "Chat", "Chat with the marked model, which is installed", "use", "enter,c", "chat"),
    Action("hub.card", "hub", "Card", "Read the marked model's card and choose among its files",
           "card", "i", "card"),
    Action("hub.fit", "hub", "Fit", "Show all models, those that fit, or those that fit now", "cycle('fit')", "f"),
    Action("hub.parameters", "hub", "Parameters", "Show models of one size", "cycle('parameters')", "p"),
    Action("hub.bits", "hub", "Bits", "Show models of one precision", "cycle('bits')", "b"),
    Action("hub.sort", "hub", "Sort", "Change the sort order", "cycle('order')", "s"),
    Action("hub.context_less", "hub", "Less context", "Check the fit with half the context", "context(-1)",
           "left_square_bracket,left"),
    Action("hub.context_more", "hub", "More context", "Check the fit with twice the context", "context(1)",
           "right_square_bracket,right"),
    Action("library.use", "library", "Chat", "Chat with the marked model", "use", "enter", "chat"),
    Action("library.load", "library", "Load or unload", "Load or unload the marked model", "load", "l",
           "load/unload"),
    Action("library.pin", "library", "Pin", "Keep the marked model loaded, even when it is idle", "pin", "p",
           "pin"),
    Action("library.delete", "library", "Delete", "Delete the marked model from the disk", "delete", "delete,d",
           "delete"),
    Action("downloads.pause", "downloads", "Pause", "Pause the marked download", "pause", "p",
           "pause"),
    Action("downloads.resume", "downloads", "Resume", "Resume the marked download, or retry it", "resume", "r",
           "resume"),
    Action("downloads.cancel", "downloads", "Cancel", "Cancel the marked download and delete its data",
           "cancel", "x,delete", "cancel"),
    Action("downloads.use", "downloads", "Chat", "Chat with the downloaded model", "use", "c", "chat"),
    Action("server.toggle", "server", "Start or stop", "Start or stop the API", "start_or_stop", "s", "start/stop"),
    Action("server.port", "server", "Port", "Use the next free port", "next_port", "n", "next port"),
    Action("server.details", "server", "Details", "Show the marked request in full", "details", "enter", "details"),
    Action("server.cancel", "server", "Cancel", "Cancel the marked request", "cancel", "x,delete", "cancel"),
    Action("server.texts", "server", "Texts", "Keep prompts and answers of new requests, or discard them", "texts",
           "t"),
    Action("server.copy", "server", "Copy address", "Copy the address for clients", "copy_address", "y", "copy url"),
    Action("app.chat", "app", "Chat", "Go to the chat", "open('chat')", "f2", slash="chat", palette=True,
           priority=True),
    Action("app.hub", "app", "Hub", "Find and download models", "open('hub')", "f3", slash="hub", palette=True,
           priority=True),
    Action("app.library", "app", "Models", "Installed models", "open('library')", "f4", slash="models", palette=True,
           priority=True),
    Action("app.server", "app", "Server", "Serve the models to other programs", "open('server')", "f5", slash="server",
           palette=True, priority=True),
    Action("app.connect", "app", "Connect", "Use the models of your running `squish serve`", "use_running",
           "f6", slash="connect", palette=True, priority=True),
    Action("app.downloads", "app", "Downloads", "Show the downloads", "downloads", "ctrl+t", slash="downloads",
           palette=True, priority=True),
    Action("app.help", "app", "Help", "Keys and commands", "help", "f1", "help", "help", palette=True, priority=True),
    Action("app.palette", "app", "Commands", "Find a command", "command_palette", "ctrl+p", "commands", priority=True),
    Action("app.theme", "app", "Theme", "Choose the colors", "change_theme", palette=True),
    Action("app.interrupt", "app", "How to quit", "Copy the selection, or show how to quit", "help_quit", "ctrl+c"),
    Action("app.quit", "app", "Quit", "Quit Squish", "quit", "ctrl+q", "quit", "quit", palette=True, priority=True),
)  # fmt: skip

_FUNCTION_KEYS = tuple(f"f{number}" for number in range(1, 25))
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
            key_display=action.keys.upper() if action.keys in _FUNCTION_KEYS else None,
        )
        for action in ACTIONS
        if action.scope == scope and action.keys
    ]


def in_palette() -> Iterator[Action]:
    return (action for action in ACTIONS if action.palette)


def qualified(action: Action) -> str:
    """The action's name as seen from the app: the chat is the screen that is on."""
    return f"app.{action.method}" if action.scope == "app" else f"screen.{action.method}"


class SlashCommand(msgspec.Struct, frozen=True):
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
    """The commands that a draft like `/mo` may become; none when it is not an unfinished command."""
    if not re.fullmatch(r"/[a-z]*", text):
        return []
    return [action for action in ACTIONS if action.slash and action.slash.startswith(text[1:])]


def display_keys(keys: str) -> list[str]:
    """Keys as people write them."""
    names = {
        "escape": "esc",
        "pageup": "pgup",
        "pagedown": "pgdn",
        "slash": "/",
        "left_square_bracket": "[",
        "right_square_bracket": "]",
        "left": "←",
        "right": "→",
        "up": "↑",
        "down": "↓",
    } | {key: key.upper() for key in _FUNCTION_KEYS}
    return ["+".join(names.get(part, part) for part in key.split("+")) for key in keys.split(",")]
