"""What an empty chat shows: how to begin, or, when no model is installed, how to get one."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from squish import figures
from squish.models.store import Manifest
from squish.text import clean
from squish.tui.key_hints import key
from squish.tui.short_names import short
from squish.tui.widgets.facts import broken_at
from squish.tui.widgets.shown_text import show_text

FIRST_MODEL = "smollm2:135m"
_PADDING = 2

_KEYS = (
    ("prompt.send", "send the message", "chat.model", "choose a model"),
    ("prompt.newline", "begin a new line", "chat.new", "begin a new chat"),
    ("chat.stop", "stop the answer", "app.help", "all keys"),
)


class Welcome(Static):
    """Stands in the middle of the transcript until the first question."""

    def __init__(self) -> None:
        super().__init__(id="welcome", markup=False)
        self._latest: tuple[str, str] | None = None
        self._project = ""
        self._model = self._about = ""

    def on_resize(self) -> None:
        self._show_again()

    def offer(self, latest: tuple[str, str] | None) -> None:
        """Name the chat that was used last, and when, to go on with; None: there is none, or no longer."""
        if latest != self._latest:
            self._latest = latest
            self._show_again()

    def offer_project(self, about: str) -> None:
        """Name the project's files that may go along with the chat; empty where there are none."""
        self._project = clean(about)

    def show_model(self, manifest: Manifest) -> None:
        """A model is chosen: its figures and the keys to begin with."""
        about = [  # as far as it is known: a server may say nothing but the name
            figures.size(manifest.size) if manifest.size else "",
            f"{figures.parameters(manifest.parameters)} parameters" if manifest.parameters else "",
            clean(manifest.quantization),
            f"{figures.count(manifest.context_length)} context" if manifest.context_length else "",
        ]
        self._model, self._about = short(manifest.id), " · ".join(filter(None, about))
        self._show_again()

    def show_missing(self, model: str, why: str) -> None:
        """The chat's model cannot answer; the keys say how to choose another one."""
        self._model, self._about = short(model), why
        self._show_again()

    def _show_again(self) -> None:
        if not self._model:
            return
        width = self.content_size.width or self.app.size.width - 2 * _PADDING
        rows = [
            Content.assemble(
                (self._model, "bold $text-primary"),
                "\n",
                broken_at(Content.styled(self._about, "$foreground-muted"), width),
                "\n",
            ),
            *self._keys(width),
        ]
        if self._project:
            rows += [
                Content(""),
                Content.assemble(
                    (key(self.app, "chat.project"), "bold $text-accent"), f"  send {self._project} with this chat"
                ),
            ]
        if self._latest:
            title, day = Content(clean(self._latest[0])), f"”, {self._latest[1]}"
            before = Content.assemble(("↑", "bold $text-accent"), "  continue “")
            title = title.truncate(max(width - before.cell_length - len(day), 8), ellipsis=True)
            rows += [Content(""), before + title + day]
        show_text(self, Content("\n").join(rows))

    def _keys(self, width: int) -> list[Content]:
        """Two beside each other, or where they would be broken, one below the other."""
        beside = [self._key(left, does, 18) + self._key(right, too, 16) for left, does, right, too in _KEYS]
        if all(each.cell_length <= width for each in beside):
            return beside
        first = [self._key(left, does, 18) for left, does, _, _ in _KEYS]
        return [*first, *(self._key(right, too, 18) for _, _, right, too in _KEYS)]

    def _key(self, action: str, does: str, width: int) -> Content:
        return Content.assemble((f"{key(self.app, action):>6}", "bold $text-accent"), f"  {does:<{width}}")

    def show_nothing_installed(self, where: str) -> None:
        """First run: the key that helps, and the command for those who come with one. where: of Offers."""
        self._model = ""
        if where:
            self.update(
                Content.assemble((f"{clean(where)} has no models", "bold"), "\n\nSquish checks every few seconds.")
            )
            return
        self.update(
            Content.assemble(
                ("No model is installed yet", "bold"),
                (f"\n\n{key(self.app, 'app.hub')}", "bold $text-accent"),
                " finds one and downloads it.\n\n",
                ("Or run this in another terminal, and it appears here:\n\n", "$foreground-muted"),
                (f"  squish pull {FIRST_MODEL}  ", "bold $text-accent on $panel"),
            )
        )
