"""The dialects that the server speaks, and which of them a request belongs to."""

from __future__ import annotations

from collections.abc import Container

from squish.api.anthropic.dialect import ANTHROPIC
from squish.api.dialect import Dialect
from squish.api.ollama.dialect import OLLAMA
from squish.api.openai.dialect import OPENAI
from squish.api.responses.dialect import RESPONSES

DIALECTS = (OPENAI, RESPONSES, ANTHROPIC, OLLAMA)
"""The first is spoken at paths that no dialect claims."""


def of(path: str) -> Dialect:
    """The dialect with the longest prefix of this path."""
    fitting = [
        (len(prefix), -order, dialect)
        for order, dialect in enumerate(DIALECTS)
        for prefix in dialect.prefixes
        if path == prefix or path.startswith(f"{prefix}/")
    ]
    return max(fitting, key=lambda found: found[:2])[2] if fitting else DIALECTS[0]


def spoken(path: str, headers: Container[str]) -> Dialect:
    """The dialect in which a client that asks here is answered: its path's, or at a path that several share, or that
    is not there, the one whose header it sends."""
    found = of(path)
    if found is DIALECTS[0] and not any(each.path == path for each in found.operations if each.method == "POST"):
        return next((each for each in DIALECTS if each.mark and each.mark in headers), found)
    return found
