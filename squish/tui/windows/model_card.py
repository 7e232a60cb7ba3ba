"""The whole card of a model: what it needs, which of its files to take, and what its makers write about it."""

from __future__ import annotations

import time
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from squish import figures
from squish.config.settings import Settings
from squish.errors import InvalidName, SquishError
from squish.hub.client import Hub
from squish.hub.search import Found
from squish.memory import fit
from squish.names import RepoName, parse
from squish.text import clean
from squish.tui.advice import hint
from squish.tui.faults import fault
from squish.tui.hub import gguf_variants, readme
from squish.tui.hub.gguf_variants import Variant
from squish.tui.messages import CardRead, DownloadModel
from squish.tui.scheduling import after_refresh
from squish.tui.widgets.facts import FactLines
from squish.tui.widgets.markdown.live import frozen
from squish.tui.widgets.model_card import FIT_LOOKS, about, fit_lines
from squish.tui.widgets.row_list import RowList
from squish.tui.windows.window import Window


class ModelCardScreen(Window[str | None]):
    """Returns the name to download, or None.

    choosing: it was opened to choose a file, so that it closes at once where there is nothing to choose.
    installed: the names of what is here already, which lead to the chat.
    """

    CSS_PATH = "model_card.tcss"
    BINDINGS: ClassVar = [
        Binding("escape,i,q", "dismiss", "Close", id="card.close"),
        Binding("enter,d", "take", "Download", id="card.take", priority=True),
        Binding("pageup", "scroll(-1)", "Page up", show=False, id="card.page_up", priority=True),
        Binding("pagedown,space", "scroll(1)", "Page down", show=False, id="card.page_down", priority=True),
    ]

    def __init__(
        self, find: Found, context: int, machine: fit.Machine, settings: Settings, choosing: bool,
        installed: frozenset[str],
    ) -> None:  # fmt: skip
        super().__init__()
        self._find, self._tokens, self._machine, self._settings = find, context, machine, settings
        self._choosing, self._installed = choosing, installed
        self._variants: tuple[Variant, ...] = ()

    def compose(self) -> ComposeResult:
        with Vertical(id="whole") as box:
            box.border_title = Content(clean(self._find.name)).truncate(60, ellipsis=True)
            box.border_subtitle = self._keys()
            state = "✓ installed" if self._find.name in self._installed else ""
            lines = [about(self._find, state), *fit_lines(self._find, self._tokens, self._machine)[:1]]
            yield FactLines(Content("\n").join(filter(None, lines)), id="facts")
            yield RowList(id="variants", markup=False, compact=True)
            with VerticalScroll(id="readme"):
                yield Static("Asking the Hub …", id="state", markup=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).display = False
        self.query_one("#readme").focus()
        self.run_worker(self._read(), exit_on_error=False)
        began = time.monotonic()
        self._waiting = self.set_interval(0.5, lambda: self._say_wait(time.monotonic() - began))

    def _say_wait(self, seconds: float) -> None:
        self.query_one("#state", Static).update(f"Asking the Hub … {figures.waited(seconds)}")

    async def _read(self) -> None:
        hub, find = Hub(self._settings), self._find
        text, found, failure = "", list[Variant](), None
        try:
            if gguf_variants.may_differ(find):
                snapshot = await hub.snapshot(find.repo)
                found = gguf_variants.of(find, snapshot, self._tokens, self._machine)
            if _is_on_hub(find.repo):
                text = readme.readable(await hub.card(find.repo))
        except SquishError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the app down
            failure = fault(error)
        self.post_message(CardRead(text, tuple(found), failure))

    @on(CardRead)
    async def _card_read(self, event: CardRead) -> None:
        self._variants = event.variants
        self._waiting.stop()
        if self._choosing and len(event.variants) < 2 and not event.error:
            self._take_the_only_one(event.variants[0].name if event.variants else self._find.name)
            return
        state = self.query_one("#state", Static)
        state.display = bool(event.error) or not event.text
        if event.error:
            advised = f"\n{hint(event.error, self.app)}".rstrip()
            state.update(
                Content.assemble(("✕ ", "$text-warning"), clean(event.error.message), (advised, "$foreground-muted"))
            )
        elif not event.text:
            state.update("No model card.")
        else:
            await self.query_one("#readme").mount(frozen(self.app, event.text))
        if len(event.variants) > 1:
            self._show_variants()

    def _take_the_only_one(self, name: str) -> None:
        """There is nothing to choose: it is downloaded at once, also where the list of downloads lies over this."""
        if self.app.screen is self:
            self.dismiss(name)
        else:
            self.post_message(DownloadModel(name))
            self.close_when_on_top()

    def _show_variants(self) -> None:
        options = self.query_one(OptionList)
        options.display = True
        options.set_options([Option(row(each)) for each in self._variants])
        options.highlighted = self._variants.index(gguf_variants.best(self._variants))
        options.border_title = "Which file?"
        options.focus()
        after_refresh(self, options.refresh, layout=True)

    @on(OptionList.OptionHighlighted)
    def _marked(self) -> None:
        self.query_one("#whole").border_subtitle = self._keys()

    @property
    def _taken(self) -> str:
        """Of what enter takes: the model, or the file of it that is marked."""
        lists = self.query(OptionList)
        at = lists.first().highlighted if lists and self._variants else None
        return self._find.name if at is None else self._variants[at].name

    def _keys(self) -> str:
        does = "chat" if self._taken in self._installed else "download"
        return f"enter {does} · pgdn more · esc close"

    def action_take(self) -> None:
        self.dismiss(self._taken)

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        self.action_take()

    def action_scroll(self, pages: int) -> None:
        text = self.query_one("#readme", VerticalScroll)
        if pages > 0:
            text.scroll_page_down(animate=False)
        else:
            text.scroll_page_up(animate=False)


def _is_on_hub(repo: str) -> bool:
    """Whether this is a repository, and not a file on this machine."""
    try:
        return isinstance(parse(repo), RepoName)
    except InvalidName:
        return False


def row(variant: Variant) -> Content:
    """`Q4_K_M   4.8 bits   5.0 GB   ● fits`."""
    symbol, word, style = FIT_LOOKS[variant.fits]
    bits = f"{variant.bits:.1f} bits" if variant.bits else ""
    tag = Content(clean(variant.tag)).truncate(16, ellipsis=True, pad=True)
    return Content.assemble(tag, f"{bits:>10}{figures.size(variant.size):>9}  ", (f"{symbol} {word}", style))
