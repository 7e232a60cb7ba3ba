"""The dialects that the server speaks, and which of them a path belongs to."""

from __future__ import annotations

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
