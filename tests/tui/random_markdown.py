"""Markdown as models write it and as none does, made of a seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_PLAIN = ("word", "longer-word", "of", "and", "sentence,", "end.")
_MARKED = (
    "`code`", "**bold**", "*soft*", "~~gone~~", "x_1", "2 * 3", "snake_case_name", "日本語のテキスト", "中文",
    "👩\u200d👩\u200d👧", "e\u0301\u0327", "ไทย", "שלום", "🇩🇪", "❤\ufe0f", "https://a.example/x",
    "[link](https://a.example/y)", "![img](c.png)", "&amp;", "&#8238;", "\\*", "\\(a^2\\)", "\\[x_1\\]", "$$y$$",
    "<b>html</b>", "[^1]", "`a|b`", "__strong__", "**`x`**", "$5", "a*b", "**a *b* c**", "\\,", "(parens)", "…",
    "incomprehensibilities",
)  # fmt: skip
_HALF = (
    "*open", "**open", "`open", "[open", "~~open", "\\(open", "\\[open", "$$open", "_open", "<https://open", "***",
    "``", "close*", "close**", "close`", "close]", "close](http://x.y)", "close\\)", "close$$", "close_",
)  # fmt: skip
_BREAKS = ("\n", "\n", "  \n", "\\\n")
_CODE = (
    "x = 1", "", "    indented", "\tTab", "def f() -> str:", "# comment", "日本語 = '👩‍👩‍👧'", "y" * 200,
    "trailing   ", "a | b", "- x", "> q", "*a*",
)  # fmt: skip
_FORMULAS = ("x^2 + y_1", "e^{i\\pi} \\, dx", "a\n+ b\n= c", "\\begin{matrix} a & b \\\\ c & d \\end{matrix}")


class RandomMarkdown:
    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def text(self) -> str:
        """Some blocks, the more the shorter they are."""
        many, large = self._random.choice([(3, 0.9), (8, 0.3), (25, 0.05)])
        blocks = [self._block(self._random.random() < large) for _ in range(many)]
        return "".join(block + self._random.choice(["\n\n"] * 8 + ["\n", "\n\n\n"]) for block in blocks).rstrip("\n")

    def pieces(self, text: str) -> list[str]:
        """A text in pieces, as it may arrive; a long one in larger pieces."""
        size, pieces = max(self._random.choice([3, 8, 40, 200, 1000, 5000]), len(text) // 50), list[str]()
        while text:
            at = self._random.randint(1, size)
            pieces.append(text[:at])
            text = text[at:]
        return pieces

    def _words(self, most: int, *between: str) -> str:
        pick, words = self._random.choice, list[str]()
        for _ in range(self._random.randint(1, most)):
            words += [pick(_MARKED if self._random.random() < 0.45 else _PLAIN), pick(between or (" ",))]
        if self._random.random() < 0.25:
            words[2 * self._random.randrange(len(words) // 2)] = pick(_HALF)
        return "".join(words[:-1])

    def _block(self, large: bool, depth: int = 0) -> str:
        makers: list[tuple[int, Callable[[bool, int], str]]] = [
            (7, self._paragraph), (3, self._fence), (4, self._table), (6, self._list), (2, self._quote),
            (4, self._other),
        ]  # fmt: skip
        (make,) = self._random.choices([make for _, make in makers], [weight for weight, _ in makers])
        return make(large, depth)

    def _paragraph(self, large: bool, depth: int) -> str:
        kind = self._random.random()
        if kind < 0.1:
            return self._random.choice("x語") * self._random.randint(1, 4000 if large else 300)
        if kind < 0.2:
            return "\n".join(self._words(10) for _ in range(self._random.randint(1, 60)))
        return self._words(800 if large else 40, *" " * 20, "  ", " \t", *(_BREAKS if kind < 0.7 else ()))

    def _fence(self, large: bool, depth: int) -> str:
        fence, other = self._random.choice([("```", "~~~"), ("~~~", "```"), ("`````", "```")])
        lines = self._random.choices([*_CODE, other], k=self._random.randint(0, 120 if large else 8))
        first = fence + self._random.choice(["", "python", "js title", "日本"])
        return "\n".join([first, *lines, *([fence] if self._random.random() < 0.9 else [])])

    def _table(self, large: bool, depth: int) -> str:
        columns = self._random.randint(1, 6)

        def row(most: int) -> str:
            cells = [self._words(most).replace("|", "\\|") for _ in range(columns)]
            if self._random.random() < 0.02:
                cells[0] = self._words(120).replace("|", "\\|")
            return f"| {' | '.join(cells)} |" if self._random.random() < 0.6 else f"{' | '.join(cells)} |"

        under = "|".join(self._random.choice(["---", ":--", "--:", ":-:"]) for _ in range(columns))
        rows = [row(self._random.choice([1, 3, 8])) for _ in range(self._random.randint(0, 90 if large else 5))]
        return "\n".join([row(2), f"|{under}|", *rows])

    def _list(self, large: bool, depth: int) -> str:
        number = self._random.choice([None, None, None, 1, 1, 0, 5, 98, 997])
        step, loose, items = self._random.choice([0, 1, 1, 1]), self._random.random() < 0.3, list[str]()
        marker = self._random.choice("-*+")
        for at in range(self._random.randint(1, 60 if large else 5)):
            begin = f"{marker} " if number is None else f"{number + at * step}. "
            body = self._random.choice(["[ ] ", "[x] ", *[""] * 8]) + self._words(10)
            if depth < 3 and self._random.random() < 0.25:
                body += self._random.choice(["\n", "\n\n"]) + self._block(False, depth + 1)
            items.append(begin + body.replace("\n", "\n" + " " * len(begin)))
        return ("\n\n" if loose else "\n").join(items)

    def _quote(self, large: bool, depth: int) -> str:
        blocks = [self._block(large and self._random.random() < 0.3, depth + 1) for _ in range(8 if large else 1)]
        return "\n".join(f"> {line}".rstrip(" ") for line in "\n\n".join(blocks).split("\n")) if depth < 3 else "> deep"

    def _other(self, large: bool, depth: int) -> str:
        formula, opening = self._random.choice(_FORMULAS), self._random.choice(["\\[", "$$"])
        indented = "\n".join(f"    {self._words(8)}" for _ in range(self._random.randint(1, 80 if large else 5)))
        return self._random.choice(
            [
                "# " + self._words(12),
                self._words(60 if large else 20, " ") + "\n" + self._random.choice(["===", "---"]),
                "[^1]: a footnote " + self._words(8),
                f"<div>\n{self._words(8)}\n</div>",
                "<!-- comment -->",
                indented,
                f"{opening}\n{formula}\n{opening.replace('[', ']')}",
                *("---", "***", "", " ", "-", "1.", "#", "|", "```"),
            ]
        )
