"""Showing a text in a widget as often as one likes: only another text than before has the screen laid out anew."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static


def show_text(widget: Static, text: Content | str, *, layout: bool = True) -> None:
    """layout: whether the text decides how large the widget is. Strings are taken literally."""
    content, before = Content(text) if isinstance(text, str) else text, widget.content
    if not (isinstance(before, Content) and content.is_same(before)):
        widget.update(content, layout=layout)
