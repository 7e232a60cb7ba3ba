"""What an empty chat shows: how to begin, or, when no model is installed, how to get one."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from squish import figures
from squish.models.store import Manifest
from squish.text import clean

FIRST_MODEL = "smollm2:135m"
_NO_BREAK = "\u00a0"
_TITLE = 32

_KEYS = (
    ("enter", "send the message", "ctrl+l", "choose a model"),
    ("ctrl+j", "begin a new line", "ctrl+n", "begin a new chat"),
    ("esc", "stop the answer", "F1", "all keys"),
)


class Welcome(Static):
    """Stands in the middle of the transcript until the first question."""

    def __init__(self) -> None:
        super().__init__(id="welcome", markup=False)
        self._latest: tuple[str, str] | None = None

    def offer(self, title: str, day: str) -> None:
        """Name the chat that was used last, and when, to go on with."""
        self._latest = (title, day)

    def offer_nothing(self) -> None:
        self._latest = None

    def show_model(self, manifest: Manifest) -> None:
        """A model is chosen: its figures and the keys to begin with."""
        about = (  # as far as it is known: a server may say nothing but the name
            figures.size(manifest.size) if manifest.size else "",
            f"{figures.parameters(manifest.parameters)} parameters" if manifest.parameters else "",
            clean(manifest.quantization),
            f"{figures.count(manifest.context_length)} context" if manifest.context_length else "",
        )
        rows = [
            Content.assemble(
                (clean(manifest.id), "bold $text-primary"),
                "\n",
                (" · ".join(each.replace(" ", _NO_BREAK) for each in about if each), "$foreground-muted"),
                "\n",
            )
        ]
        for left, does, right, too in _KEYS:
            rows.append(
                Content.assemble(
                    (f"{left:>6}", "bold $text-accent"),
                    f"  {does:<18}",
                    (f"{right:>6}", "bold $text-accent"),
                    f"  {too:<16}",
                )
            )
        if self._latest:
            title, day = Content(clean(self._latest[0])).truncate(_TITLE, ellipsis=True), self._latest[1]
            continued = Content.assemble(("↑", "bold $text-accent"), "  continue “", title, f"”, {day}")
            rows += [Content(""), continued]
        self.update(Content("\n").join(rows))

    def show_nothing_installed(self, where: str) -> None:
        """First run: the key that helps, and the command for those who come with one. where: of Offers."""
        if where:
            self.update(
                Content.assemble((f"{clean(where)} has no model", "bold"), "\n\nIt is asked again every few seconds.")
            )
            return
        self.update(
            Content.assemble(
                ("No model is installed yet", "bold"),
                ("\n\nF3", "bold $text-accent"),
                " finds one and downloads it.\n\n",
                ("Or run this in another terminal; the chat notices it:\n\n", "$foreground-muted"),
                (f"  squish pull {FIRST_MODEL}  ", "bold $text-accent on $panel"),
            )
        )
