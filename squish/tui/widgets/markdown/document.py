"""Markdown as it looks in a chat and on a model's card, as one document that Rich draws.

What grows and what is finished are drawn by the same code. Raw HTML is shown as it was written, since a model that
explains `<div>` means to show it. Knows no widget.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich import markdown as rich_markdown
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.rule import Rule
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from squish.text import clean
from squish.tui.widgets.markdown.math_text import math
from squish.tui.widgets.markdown.reopening import CLOSED, ITEM, LISTS, Reopening

References = dict[str, dict[str, Any]]
"""What markdown-it knows of `[label]: address` lines."""


def parser() -> MarkdownIt:
    return MarkdownIt("gfm-like", {"html": False}).use(math)


def code_blocks(text: str) -> list[str]:
    """The code of every fence in a text, in the order of the numbers that are shown with them."""
    return [token.content.removesuffix("\n") for token in parser().parse(text) if token.type == "fence"]


@dataclass(frozen=True, slots=True)
class Palette:
    """The theme's colors for frozen text, as Rich takes them; "default" where the theme leaves one to the terminal."""

    primary: str
    warning: str
    muted: str
    surface: str
    dark: bool

    @classmethod
    def of(cls, variables: Mapping[str, str], dark: bool) -> Palette:
        def color(name: str) -> str:
            value = variables.get(name, "")
            return value if re.fullmatch("#[0-9a-fA-F]{6}", value) else "default"

        return cls(color("text-primary"), color("text-warning"), color("quiet"), color("surface"), dark)

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
    """Rich centers headings and boxes the first level."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Rule(rich_markdown.HorizontalRule):
    """Rich puts one empty line below it in front of some blocks, and two in front of others."""

    new_line = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Rule(characters="─", style="markdown.table.border")


class _NumberedCode(rich_markdown.CodeBlock):
    """A block of code below its number; without a number, the rest of one that began further up."""

    number = 0
    surface = "default"

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> _NumberedCode:
        block = cls((token.info or "").partition(" ")[0] or "text", markdown.code_theme)
        if isinstance(markdown, Document):
            block.number = markdown.numbers.get(id(token), 0)
            block.surface = markdown.palette.surface
        return block

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.number:
            language = "" if self.lexer_name == "text" else f" {self.lexer_name}"
            yield Text(f" [{self.number}]{language}", style="markdown.block_quote")
        yield Syntax(
            str(self.text).rstrip(),
            self.lexer_name,
            theme=self.theme,
            word_wrap=True,
            padding=(0, 1),
            background_color=self.surface,
        )


class _EvenList(rich_markdown.ListElement):
    """Rich sets numbers as wide as the last one, so that a list would move to the right while it grows."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.list_type == "bullet_list_open":
            yield from super().__rich_console__(console, options)
            return
        for number, item in enumerate(self.items, self.list_start or 0):
            yield from item.render_number(console, options, number, max(number, 10))


class _Item(rich_markdown.ListItem):
    """An item of a list; one that only goes on has spaces in place of its marker."""

    goes_on = False

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> _Item:
        item = cls()
        item.goes_on = isinstance(markdown, Document) and id(token) in markdown.opened
        return item

    def render_bullet(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return self._marked(super().render_bullet(console, options))

    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        return self._marked(super().render_number(console, options, number, last_number))

    def _marked(self, drawn: RenderResult) -> RenderResult:
        for at, each in enumerate(drawn):
            marker = at == 0 and self.goes_on and isinstance(each, Segment)
            yield Segment(" " * cell_len(each.text)) if marker and isinstance(each, Segment) else each


class Columns:
    """How wide the columns of a table are that was cut: as its first rows need it, in each width of the screen."""

    def __init__(self) -> None:
        self._widths: dict[int, list[int]] = {}

    def apply(self, table: Table, console: Console, options: ConsoleOptions) -> None:
        """Give a table these widths; the first one that comes decides."""
        if options.max_width not in self._widths:
            room = options.update_width(options.max_width - table._extra_width)  # beside the lines between columns
            self._widths[options.max_width] = [
                width - table._get_padding_width(at)
                for at, width in enumerate(table._calculate_column_widths(console, room))
            ]
        for column, width in zip(table.columns, self._widths[options.max_width], strict=False):
            column.width = width


class _PlainTable(rich_markdown.TableElement):
    """Rich puts an empty line above and below a table, where one stands between all blocks anyway."""

    columns: Columns | None = None
    goes_on = False

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> _PlainTable:
        table = cls()
        if isinstance(markdown, Document) and token is markdown.first_table:
            table.columns, table.goes_on = markdown.columns, markdown.opening.table
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                table.show_edge = False
                table.show_header = not self.goes_on
                for column in table.columns:
                    column.overflow = "fold"  # a long word is broken, not cut off
                if self.columns:
                    self.columns.apply(table, console, options)
            yield table


def _is_bare_link(token: Token) -> bool:
    """Whether it opens or closes a link that is written as its address, which needs not be said twice."""
    return token.type in ("link_open", "link_close") and token.markup in ("linkify", "autolink")


def _image(token: Token) -> list[Token]:
    """An image as a link to it: Rich would draw it before its paragraph, and cut off what has no room beside it."""
    alt = "".join(each.content for each in token.children or ())
    opens = Token("link_open", "a", 1, attrs={"href": token.attrs.get("src", "")})
    return [opens, Token("text", "", 0, content=f"🌆 {alt}".rstrip()), Token("link_close", "a", -1)]


def _shown(children: Iterable[Token]) -> Iterator[Token]:
    for each in children:
        if each.type == "image":
            yield from _image(each)
        elif not _is_bare_link(each):
            yield each


class Document(rich_markdown.Markdown):
    """palette: is asked each time the document is drawn, so that it follows the theme.

    opening: how the text begins. references: addresses of links by their labels, of the whole text; those that are
    defined here are added. columns: of the first table.
    """

    elements = rich_markdown.Markdown.elements | {
        "heading_open": _LeftHeading,
        "hr": _Rule,
        "fence": _NumberedCode,
        "code_block": _NumberedCode,
        "ordered_list_open": _EvenList,
        "list_item_open": _Item,
        "table_open": _PlainTable,
    }

    def __init__(
        self,
        text: str,
        palette: Callable[[], Palette],
        opening: Reopening = CLOSED,
        references: References | None = None,
        columns: Columns | None = None,
    ) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = parser().parse(clean(text), {"references": {} if references is None else references})
        for token in self.parsed:
            token.children = list(_shown(token.children or ()))
        self._open(opening)
        self.opening, self.columns, self._palette = opening, columns, palette
        self.first_table = next((token for token in self.parsed if token.type == "table_open"), None)

    def _open(self, opening: Reopening) -> None:
        """Take what only opens the text again out of what is shown; count on from what came before."""
        headings = [at for at, token in enumerate(self.parsed) if token.type == "heading_open"][: opening.lines]
        filling = {at for begin in headings for at in range(begin, begin + 3)}
        self.parsed = [token for at, token in enumerate(self.parsed) if at not in filling]
        items = [token for token in self.parsed if token.type == ITEM]
        self.opened = {id(token) for token in items[: opening.items]}
        lists = [token for token in self.parsed if token.type in LISTS]
        for token, number in zip(lists, opening.numbers, strict=False):
            token.attrs["start"] = number
        found = [token for token in self.parsed if token.type == "fence"]
        numbered = found[1:] if opening.code else found
        self.numbers = {id(token): number for number, token in enumerate(numbered, opening.fences + 1)}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.palette = self._palette()
        self.code_theme = "ansi_dark" if self.palette.dark else "ansi_light"
        with console.use_theme(self.palette.theme()):
            # Rich puts an empty line above a list, also where nothing is above it.
            drawn = super().__rich_console__(console, options)
            yield from dropwhile(lambda each: isinstance(each, Segment) and each.text == "\n", drawn)
