"""The lines above the prompt: commands a draft may become, files it names, what is edited and what comes next."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from squish import figures
from squish.attachments.mentions import Mention, mentions
from squish.system.working_directory import working_directory
from squish.text import clean
from squish.tui import actions
from squish.tui.key_hints import key
from squish.tui.short_names import tail
from squish.tui.widgets.shown_text import show_text

_COMMANDS_SHOWN = 7
_READING = "reading  "
_LEAST = 12  # cells of a name


class Hints(Static):
    """Takes no room while there is nothing to say."""

    def __init__(self) -> None:
        super().__init__(id="hints", markup=False)
        self.display = False

    def show(self, draft: str, *, editing: bool, queued: str, reading: tuple[str, float] | None = None) -> None:
        """reading: what is being read before a message is sent, and for how many seconds."""
        width = self.size.width or self.container_size.width
        found = actions.completions(draft)
        sends, leaves, stops = (key(self.app, id) for id in ("prompt.send", "prompt.leave", "chat.stop"))
        rows = [_completion(action) for action in found[:_COMMANDS_SHOWN]]
        if len(found) > _COMMANDS_SHOWN:
            rows.append(Content.styled(f"… and {len(found) - _COMMANDS_SHOWN} more; keep typing", "$foreground-muted"))
        if "@" in draft:
            rows += [_mention(each, sends, width) for each in mentions(draft, working_directory())]
        if editing:
            rows.append(
                Content.assemble(
                    ("edit  ", "bold $text-accent"),
                    f"{sends} sends this version · {leaves} cancels",
                )
            )
        if reading:
            end = f" … {figures.waited(reading[1])} · {stops} cancels"
            names = tail(reading[0], max(width - len(_READING) - len(end), _LEAST))
            rows.append(Content.assemble((_READING, "bold $text-accent"), names, end))
        if queued:
            rows.append(Content.assemble(("next  ", "bold $text-accent"), clean(queued.partition("\n")[0])))
        show_text(self, Content("\n").join(rows))
        self.display = bool(rows)


def _completion(action: actions.Action) -> Content:
    usage = f"/{action.slash} {action.argument}"
    return Content.assemble((f"{usage:<17}", "bold $text-accent"), (action.about, "$foreground-muted"))


def _mention(mention: Mention, sends: str, width: int) -> Content:
    about = mention.problem or _about(mention, sends)
    style = "$text-warning" if mention.problem else "$foreground-muted"
    sent = ", sent as plain text" if mention.missing else " · cannot be sent" if mention.problem else ""
    end = Content(f"  {clean(about)}{sent}")
    name = tail(mention.name, max(width - 2 - end.cell_length, _LEAST))
    return Content.assemble(("⎘ ", "bold $text-accent"), name, end.stylize(style))


def _about(mention: Mention, sends: str) -> str:
    match mention.kind:
        case "folder":
            return f"a folder · {sends} shows what will be sent"
        case "url":
            return f"{sends} asks before it is fetched"
        case "html":
            return f"{figures.size(mention.size)} · its text (@! sends its source)"
        case "pdf" | "docx":
            return f"{figures.size(mention.size)} · its text"
    return figures.size(mention.size)
