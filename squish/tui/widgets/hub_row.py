"""How a model that was found is shown in a row, and the line that says what is shown of all. Knows no screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.text import Text
from textual.content import Content

from squish import figures
from squish.errors import HubUnreachable, Offline, SquishError
from squish.hub.search import Found
from squish.memory import fit
from squish.names import LocalPath
from squish.text import clean
from squish.tui.hub import filters
from squish.tui.hub.filters import Filters, Hiding
from squish.tui.widgets.model_card import FIT_LOOKS
from squish.tui.widgets.table import Column

COLUMNS = (
    Column("Model", 0),
    Column("Params", 6, right=True),
    Column("Bits", 4, right=True, from_width=72),
    Column("Disk", 7, right=True),
    Column("RAM", 7, right=True, from_width=84),
    Column("Fit", 7),
    Column("↓", 5, right=True, from_width=72),
)


class HubRows:
    """The rows as they were made last: only what has changed since is made again. made: how many rows were."""

    def __init__(self) -> None:
        self.made = 0
        self._known: dict[str, tuple[tuple[object, ...], tuple[Text, ...]]] = {}

    def row(
        self, find: Found, sign: str, context: int, machine: fit.Machine, colors: Mapping[str, str]
    ) -> tuple[Text, ...]:
        shows = (find, sign, context, machine, *(colors[style.removeprefix("$")] for *_, style in FIT_LOOKS.values()))
        if (known := self._known.get(find.name)) and known[0] == shows:
            return known[1]
        self.made += 1
        made = row(find, sign, context, machine, colors)
        self._known[find.name] = shows, made
        return made


def row(find: Found, sign: str, context: int, machine: fit.Machine, colors: Mapping[str, str]) -> tuple[Text, ...]:
    """A cell for each column. sign: what has become of it here, one character; colors: the theme's."""
    needs = filters.estimate(find, context, machine)
    symbol, word, style = FIT_LOOKS[fit.verdict(needs, machine) if needs else None]
    return (
        Text.assemble((f"{sign or ' '} ", colors["text-success"]), clean(find.name)),
        Text(figures.parameters(find.parameters) if find.parameters else "?"),
        Text(f"{find.bits:.3g}" if find.bits else "?"),
        Text(figures.size(find.size) if find.size else "?"),
        Text(figures.size(needs.needed) if needs else "?"),
        Text(f"{symbol} {word}", colors[style.removeprefix("$")]),
        Text(figures.amount(find.downloads) if find.downloads is not None else ""),
    )


def filter_line(
    choice: Filters, shown: int, all_: int, waited: float | None, error: SquishError | None, key: Callable[[str], str]
) -> Content:
    """The filters with their keys, how many models they let through, and how the search goes.

    waited: seconds for the Hub so far, None when it has answered. key: of an action.
    """
    values = (
        ("hub.fit", filters.FITS[choice.fit][0], choice.fit),
        (
            "hub.parameters",
            f"size {filters.PARAMETERS[choice.parameters][0]}" if choice.parameters else "size",
            choice.parameters,
        ),
        ("hub.bits", f"bits {filters.BITS[choice.bits][0]}" if choice.bits else "bits", choice.bits),
        ("hub.sort", filters.ORDERS[choice.order][0], choice.order),
    )
    pieces: list[Content | str | tuple[str, str]] = []
    for id, value, changed in values:
        pieces += [(f"{key(id)} ", "bold $text-accent"), (value, "bold" if changed else "$foreground-muted"), "   "]
    count = f"{shown} of {all_}" if choice.narrow else f"{shown} model{'' if shown == 1 else 's'}"
    pieces.append((count, "$foreground-muted"))
    if waited is not None:
        seconds = f" {figures.waited(waited)}" if waited >= 1 else ""
        pieces.append((f"   asking the Hub …{seconds}", "$text-secondary"))
    elif error:
        pieces.append((f"\n✕ {_why(error)}: only the catalog is shown", "$text-warning"))
    return Content.assemble(*pieces)


def nothing_found(
    hiding: Sequence[Hiding], models: int, key: Callable[[str], str], path: LocalPath | None = None, *,
    searching: bool = False,
) -> str:  # fmt: skip
    """Why the list is empty: which filter hides what was found, and the key that changes it.

    models: how many were found. key: of an action. path: what was named on this machine. searching: the Hub has not
    answered yet.
    """
    if not models and searching and not path:
        return "Nothing in the catalog; searching the Hub …"
    if not models and path:
        return f"{clean(str(path))} is neither a GGUF file nor a directory with safetensors. Check the path."
    if not models:
        return "No model matches. Shorten the search, or name a repository: org/repo."
    named = [f"“{each.value}” ({key(f'hub.{each.filter}')})" for each in hiding]
    if hiding[0].hides:
        each = " or ".join(f"{name}, which hides {which.hides}" for name, which in zip(named, hiding, strict=True))
        return f"No model matches. Loosen {each}, or shorten the search."
    return f"No model matches. Loosen {' and '.join(named)}, which together hide {models}, or shorten the search."


def _why(error: SquishError) -> str:
    """An error of the Hub, short enough for a row."""
    if isinstance(error, Offline):
        return "offline"
    return "the Hub cannot be reached" if isinstance(error, HubUnreachable) else clean(error.message)
