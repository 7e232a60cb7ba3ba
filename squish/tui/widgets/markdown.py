"""Markdown that a model writes: shown while it grows, frozen to one plain widget when it has become the past.

The text is already clean. Raw HTML is shown as it was written, since a model that explains `<div>` means to show it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich import markdown as rich_markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.syntax import Syntax
from rich.text import Text
from rich.theme import Theme
from textual.timer import Timer
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownBlock, MarkdownFence

from squish.text import clean
from squish.tui.widgets.searchable import Searchable

MIN_INTERVAL = 0.05
COST_FACTOR = 4


def parser() -> MarkdownIt:
    return MarkdownIt("gfm-like", {"html": False})


def code_blocks(text: str) -> list[str]:
    """The code of every fence in a text, in the order of the numbers that are shown with them."""
    return [token.content.removesuffix("\n") for token in parser().parse(text) if token.type == "fence"]


class NumberedFence(MarkdownFence):
    """A block of code with its number, by which it can be copied."""

    def on_mount(self) -> None:
        fences = self._markdown.query(NumberedFence)
        self._number = 1 + sum(1 for _ in takewhile(lambda each: each is not self, fences))
        self._entitle()

    def _copy_context(self, block: MarkdownBlock) -> None:
        before = self.lexer
        super()._copy_context(block)
        if self.lexer != before:  # its name may come after the fence
            self._entitle()

    def _entitle(self) -> None:
        self.border_title = f"[{self._number}] {clean(self.lexer)}".rstrip().replace("[", "\\[")


class FlushPacer:
    """When text that arrives may be put on the screen: at least 50 ms apart, and four times what the last time cost.

    A long list costs 50 times what prose costs, so a fixed rhythm would either stutter or take a whole core.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Seconds to wait."""
        return max(self._next - now, 0.0)

    def flushed(self, start: float, end: float) -> None:
        self._next = start + max(MIN_INTERVAL, COST_FACTOR * (end - start))


class LiveMarkdown(Markdown):
    """Markdown that text is written to. Nothing is drawn while `may_flush` says no; `resume` and `finish` catch up."""

    def __init__(self, may_flush: Callable[[], bool], text: str = "") -> None:
        super().__init__(parser_factory=parser, open_links=False)
        self.BLOCKS = Markdown.BLOCKS | {"fence": NumberedFence}
        self.flushes = 0
        self._may_flush = may_flush
        self._pending: list[str] = [text] if text else []
        self._pacer = FlushPacer()
        self._flush_timer: Timer | None = None

    def on_mount(self) -> None:
        self.resume()

    def write(self, text: str) -> None:
        """Add text; it appears with the next flush."""
        if text:
            self._pending.append(text)
            self.resume()

    def resume(self) -> None:
        """Plan a flush when there is something to show."""
        if self._pending and self._flush_timer is None and self.is_running and self._may_flush():
            self._flush_timer = self.set_timer(max(self._pacer.delay(time.perf_counter()), 0.001), self._flush)

    async def finish(self) -> None:
        """Show all that was written, wherever the user has scrolled to."""
        if self._flush_timer:
            self._flush_timer.stop()
            self._flush_timer = None
        await self._append_pending()

    async def _flush(self) -> None:
        self._flush_timer = None
        if self._may_flush():
            await self._append_pending()
            self.resume()

    async def _append_pending(self) -> None:
        if not self._pending or not self.is_attached:
            return
        text = "".join(self._pending)
        self._pending.clear()
        start = time.perf_counter()
        await self.append(text)
        self._pacer.flushed(start, time.perf_counter())
        self.flushes += 1


@dataclass(frozen=True, slots=True)
class Palette:
    """The theme's colors for frozen text, as Rich takes them; "default" where the theme leaves one to the terminal."""

    primary: str
    warning: str
    muted: str
    dark: bool

    @classmethod
    def of(cls, variables: Mapping[str, str], dark: bool) -> Palette:
        def color(name: str) -> str:
            value = variables.get(name, "")
            return value if re.fullmatch("#[0-9a-fA-F]{6}", value) else "default"

        return cls(color("text-primary"), color("text-warning"), color("footer-description-foreground"), dark)

    def theme(self) -> Theme:
        headings = {f"markdown.h{level}": f"bold {self.primary}" for level in range(1, 7)}
        return Theme(
            headings
            | {
                "markdown.code": self.warning,
                "markdown.item.bullet": self.primary,
                "markdown.item.number": self.primary,
                "markdown.list": "default",
                "markdown.block_quote": self.muted,
                "markdown.link": "underline",
                "markdown.link_url": f"underline {self.muted}",
                "markdown.table.header": self.primary,
                "markdown.table.border": self.muted,
            }
        )


class _LeftHeading(rich_markdown.Heading):
    """Rich centers headings and boxes the first level; the live widget does neither."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _NumberedCode(rich_markdown.CodeBlock):
    """A block of code below its number, as the live widget shows it."""

    number = 0

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> _NumberedCode:
        block = cls((token.info or "").partition(" ")[0] or "text", markdown.code_theme)
        if isinstance(markdown, _FrozenDocument):
            block.number = markdown.numbers[id(token)]
        return block

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        language = "" if self.lexer_name == "text" else f" {self.lexer_name}"
        yield Text(f" [{self.number}]{language}", style="markdown.block_quote")
        yield Syntax(str(self.text).rstrip(), self.lexer_name, theme=self.theme, word_wrap=True, padding=(0, 1))


def _is_bare_link(token: Token) -> bool:
    """Whether it opens or closes a link that is written as its address, which needs not be said twice."""
    return token.type in ("link_open", "link_close") and token.markup in ("linkify", "autolink")


class _FrozenDocument(rich_markdown.Markdown):
    elements = rich_markdown.Markdown.elements | {"heading_open": _LeftHeading, "fence": _NumberedCode}

    def __init__(self, text: str, palette: Palette) -> None:
        super().__init__("", code_theme="ansi_dark" if palette.dark else "ansi_light", hyperlinks=False)
        self.parsed = parser().parse(text)
        for token in self.parsed:
            token.children = [each for each in token.children or () if not _is_bare_link(each)]
        fences = [token for token in self.parsed if token.type == "fence"]
        self.numbers = {id(token): number for number, token in enumerate(fences, 1)}
        self._palette = palette

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with console.use_theme(self._palette.theme()):
            yield from super().__rich_console__(console, options)


def frozen(text: str, palette: Palette) -> Searchable:
    """The same text as one widget: a resize of sixty live answers takes seconds, of sixty of these a fifth of one."""
    return Searchable(_FrozenDocument(text, palette), classes="frozen")
