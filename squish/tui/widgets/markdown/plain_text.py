"""What a piece of Markdown says, without its marks, for a line in a list. Pure text."""

from __future__ import annotations

import re

_FENCE = r"[ \t]*(?:`{3,}|~{3,})"
_MARKED = re.compile(
    rf"""
      ^{_FENCE}[^\n]*\n?(?P<block>.*?)(?:^{_FENCE}[ \t]*$\n?|\Z)  # what is code stays as it is
    | (?P<ticks>`+)(?P<code>.+?)(?<!`)(?P=ticks)(?!`)
    | ^[ \t]*(?:\#{{1,6}}[ \t]+|>[ \t]?)(?P<line>[^\n]*)
    | ^[ \t]*(?P<bullet>[-*+])[ \t]+
    | ^[ \t]*\|?[ \t]*:?-{{2,}}[-:| \t]*$\n?  # a rule, also below the head of a table
    | ^[ \t]*\|[ \t]*:?-+:?[ \t]*\|[-:| \t]*$\n?
    | !?\[(?P<link>[^\]\n]{{0,200}})\]\([^)\n]*\)
    | (?P<bold>\*\*|~~|(?<!\w)__)(?=\S)(?P<strong>.+?)(?<=\S)(?P=bold)(?![\w*])
    | (?<![\w*\\])(?P<mark>[*_])(?=[^\s*_])(?P<soft>[^*_\n]*?)(?<=\S)(?P=mark)(?![\w*])
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_ROW = re.compile(r"^(?:…[^\n|]*)?\|[^\n]*|^[^\n]*\|[ \t]*$", re.MULTILINE)
_LONGEST = 2000  # characters: more of one word is not Markdown
_DEEPEST = 3  # marks within marks


def plain_text(markdown: str) -> str:
    """The text. Where it was cut out of a longer one, half a pair of marks may be left, and goes too."""
    if len(markdown) > _LONGEST:
        return markdown
    text = _unmarked(markdown, _DEEPEST)
    if text.count("**") == 1 and (text.startswith("…") or text.endswith("…")):
        text = text.replace("**", "")
    return _ROW.sub(lambda row: " · ".join(filter(None, map(str.strip, row[0].split("|")))), text)


def _unmarked(text: str, depth: int) -> str:
    def meant(found: re.Match[str]) -> str:
        if found["bullet"]:
            return "• "
        for name in ("block", "code"):
            if found[name] is not None:
                return found[name]
        inner = next((found[name] for name in ("line", "link", "strong", "soft") if found[name] is not None), "")
        return _unmarked(inner, depth - 1)

    return _MARKED.sub(meant, text) if depth else text
