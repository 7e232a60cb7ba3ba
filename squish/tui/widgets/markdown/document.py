"""Markdown as it looks in a chat and on a model's card, as one document that Rich draws.

What grows and what is finished are drawn by the same code. Knows no widget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import dropwhile

from markdown_it.token import Token
from rich import markdown as rich_markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

from squish.text import clean
from squish.tui.widgets.markdown.elements import EvenList, EvenRule, LeftHeading, MarkedItem, NumberedCode, SampledTable
from squish.tui.widgets.markdown.palette import Palette
from squish.tui.widgets.markdown.parsing import References, parser, sample_rows
from squish.tui.widgets.markdown.reopening import CLOSED, ITEM, LISTS, Reopening


class Document(rich_markdown.Markdown):
    """palette: is asked each time the document is drawn, so that it follows the theme.

    opening: how the text begins. references: addresses of links by their labels, of the whole text; those that are
    defined here are added. is_cut: code that it ends with goes on elsewhere.
    """

    elements = rich_markdown.Markdown.elements | {
        "heading_open": LeftHeading,
        "hr": EvenRule,
        "fence": NumberedCode,
        "code_block": NumberedCode,
        "ordered_list_open": EvenList,
        "list_item_open": MarkedItem,
        "table_open": SampledTable,
    }

    def __init__(
        self,
        text: str,
        palette: Callable[[], Palette],
        opening: Reopening = CLOSED,
        references: References | None = None,
        is_cut: bool = False,
    ) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = parser().parse(clean(text), {"references": {} if references is None else references})
        for token in self.parsed:
            token.children = list(_shown(token.children or ()))
        self._palette = palette
        self._open(opening)
        self._describe_tables(opening)
        self._describe_code(opening, is_cut)

    def _open(self, opening: Reopening) -> None:
        """Take what only opens the text again out of what is shown; count on from what came before."""
        headings = [at for at, token in enumerate(self.parsed) if token.type == "heading_open"][: opening.lines]
        filling = {at for begin in headings for at in range(begin, begin + 3)}
        self.parsed = [token for at, token in enumerate(self.parsed) if at not in filling]
        for token in [token for token in self.parsed if token.type == ITEM][: opening.items]:
            token.meta["goes_on"] = True
        lists = [token for token in self.parsed if token.type in LISTS]
        for token, number in zip(lists, opening.numbers, strict=False):
            token.attrs["start"] = number

    def _describe_tables(self, opening: Reopening) -> None:
        again = opening.rows
        for at, token in enumerate(self.parsed):
            if token.type == "table_open":
                token.meta.update(sample=again or sample_rows(self.parsed, at), again=again)
                again = 0

    def _describe_code(self, opening: Reopening, is_cut: bool) -> None:
        found = [token for token in self.parsed if token.type == "fence"]
        for number, token in enumerate(found[1:] if opening.code else found, opening.fences + 1):
            token.meta["number"] = number
        if is_cut and found:
            found[-1].meta["is_cut"] = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        palette = self._palette()
        self.code_theme = "ansi_dark" if palette.dark else "ansi_light"
        with console.use_theme(palette.theme()):
            # Rich puts an empty line above a list, also where nothing is above it.
            drawn = super().__rich_console__(console, options)
            yield from dropwhile(lambda each: isinstance(each, Segment) and each.text == "\n", drawn)


def _shown(children: Iterable[Token]) -> Iterator[Token]:
    for each in children:
        if each.type == "image":
            yield from _image(each)
        elif not _is_bare_link(each):
            each.content = clean(each.content)  # `&#8238;` was no control character before it was read
            yield each


def _is_bare_link(token: Token) -> bool:
    """Whether it opens or closes a link that is written as its address, which needs not be said twice."""
    return token.type in ("link_open", "link_close") and token.markup in ("linkify", "autolink")


def _image(token: Token) -> list[Token]:
    """An image as a link to it: Rich would draw it before its paragraph, and cut off what has no room beside it."""
    alt = clean("".join(each.content for each in token.children or ()))
    opens = Token("link_open", "a", 1, attrs={"href": token.attrs.get("src", "")})
    return [opens, Token("text", "", 0, content=f"🌆 {alt}".rstrip()), Token("link_close", "a", -1)]
