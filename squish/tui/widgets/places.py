"""The row that names the four screens, which one is on, and the keys to the others."""

from __future__ import annotations

from textual.content import Content
from textual.style import Style
from textual.widgets import Static

from squish.tui import actions


class Places(Static):
    """here: the mode whose screen this is. A click goes there."""

    def __init__(self, here: str) -> None:
        places = [each for each in actions.ACTIONS if each.method.startswith("open(")]
        pieces = [Content(" ")]
        for place in places:
            (key, *_), on = actions.display_keys(place.keys), f"'{here}'" in place.method
            style = "bold $on-primary on $primary" if on else "$foreground-muted"
            label = Content.assemble((f" {key} ", "bold $text-accent" if not on else style), (f"{place.title} ", style))
            pieces += [label if on else label.stylize(Style.from_meta({"@click": f"app.{place.method}"})), Content(" ")]
        super().__init__(Content("").join(pieces), id="places", markup=False)
