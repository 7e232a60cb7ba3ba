"""The blocks of Markdown where they look otherwise than Rich draws them.

What a block has to know of the text around it stands in its token's `meta`.
"""

from __future__ import annotations

from itertools import islice

from markdown_it.token import Token
from rich import box
from rich import markdown as rich_markdown
from rich.cells import cell_len, split_graphemes
from rich.console import Console, ConsoleOptions, RenderResult
from rich.rule import Rule
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Span, Text

from squish.text import clean

_ROOM = 6  # cells


class LeftHeading(rich_markdown.Heading):
    """Rich centers headings and boxes the first level."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class EvenRule(rich_markdown.HorizontalRule):
    """Rich puts one empty line below it in front of some blocks, and two in front of others."""

    new_line = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Rule(characters="─", style="markdown.table.border")


class _Code(Syntax):
    """Pygments colors what several characters make, such as a family, one by one, and Rich would count each as wide as
    it is alone, and cut the line off."""

    def highlight(self, code: str, line_range: tuple[int | None, int | None] | None = None) -> Text:
        text = super().highlight(code, line_range)
        if not code.isascii():
            within = {at: start for start, end, _ in split_graphemes(text.plain)[0] for at in range(start, end)}
            text.spans = [
                Span(within.get(span.start, span.start), within.get(span.end, span.end), span.style)
                for span in text.spans
            ]
        return text


class NumberedCode(rich_markdown.CodeBlock):
    """A block of code below its number; without a number, the rest of one that began further up.

    is_cut: more of it follows somewhere else, so that empty lines at its end are in its middle.
    """

    number = 0
    is_cut = False

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> NumberedCode:
        block = cls(clean(token.info or "").partition(" ")[0] or "text", markdown.code_theme)
        block.number, block.is_cut = token.meta.get("number", 0), token.meta.get("is_cut", False)
        return block

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.number:
            language = "" if self.lexer_name == "text" else f" {self.lexer_name}"
            yield Text(f" [{self.number}]{language}", style="markdown.block_quote")
        surface = console.get_style("markdown.code_block").bgcolor
        code = str(self.text)
        yield _Code(
            code.removesuffix("\n") if self.is_cut else code.rstrip(),
            self.lexer_name,
            theme=self.theme,
            word_wrap=True,
            padding=(0, 1),
            background_color=surface.name if surface else "default",
        )


class EvenList(rich_markdown.ListElement):
    """Rich sets numbers as wide as the last one, so that a list would move to the right while it grows."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.list_type == "bullet_list_open":
            yield from super().__rich_console__(console, options)
            return
        for number, item in enumerate(self.items, self.list_start or 0):
            yield from item.render_number(console, options, number, max(number, 10))


class MarkedItem(rich_markdown.ListItem):
    """An item of a list; one that only goes on has spaces in place of its marker."""

    goes_on = False

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> MarkedItem:
        item = cls()
        item.goes_on = token.meta.get("goes_on", False)
        return item

    def render_bullet(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return self._marked(super().render_bullet(console, options))

    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        return self._marked(super().render_number(console, options, number, last_number))

    def _marked(self, drawn: RenderResult) -> RenderResult:
        for at, each in enumerate(drawn):
            marker = at == 0 and self.goes_on and isinstance(each, Segment)
            yield Segment(" " * cell_len(each.text)) if marker and isinstance(each, Segment) else each


class SampledTable(rich_markdown.TableElement):
    """Its first rows decide how wide its columns are. Rich puts an empty line above and below, where one stands between
    all blocks anyway.

    sample: how many rows decide. again: how many rows at its beginning, and the head, have been shown further up.
    """

    sample = again = 0

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> SampledTable:
        table = cls()
        table.sample, table.again = token.meta.get("sample", 0), token.meta.get("again", 0)
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = self.body.rows if self.body else []
        if len(rows) <= self.sample:
            if not self.again:
                yield self._table(0, len(rows))
            return
        widths = _widths(self._table(0, self.sample), console, options)
        table = self._table(self.again, len(rows))
        table.show_header = not self.again
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
        yield table

    def _table(self, first: int, end: int) -> Table:
        """With some of the rows."""
        table = Table(
            box=box.SIMPLE, show_edge=False, pad_edge=False, style="markdown.table.border", collapse_padding=True
        )
        for cell in self.header.row.cells if self.header and self.header.row else ():
            heading = cell.content.copy()
            heading.stylize("markdown.table.header")
            table.add_column(heading, overflow="fold")  # a long word is broken, not cut off
        for row in islice(self.body.rows if self.body else (), first, end):
            table.add_row(*(cell.content for cell in row.cells))
        return table


def _widths(table: Table, console: Console, options: ConsoleOptions) -> list[int]:
    """Of the columns, with some room for rows that are longer, where there is room."""
    room = options.max_width - table._extra_width  # beside the lines between columns
    widths = table._calculate_column_widths(console, options.update_width(room))
    more = min(max(room - sum(widths), 0) // max(len(widths), 1), _ROOM)
    return [width + more - table._get_padding_width(at) for at, width in enumerate(widths)]
