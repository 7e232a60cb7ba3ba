"""Formulas as models write them, `\\( … \\)` and `\\[ … \\]`: simple ones in Unicode, all others as they were written.

Markdown would take the backslashes for its own and drop them. Pure text.
"""

from __future__ import annotations

import re
from functools import partial

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

_NAMES = (
    "alpha α, beta β, gamma γ, delta δ, epsilon ε, varepsilon ε, zeta ζ, eta η, theta θ, iota ι, kappa κ, "
    "lambda λ, mu μ, nu ν, xi ξ, pi π, rho ρ, sigma σ, tau τ, phi φ, varphi φ, chi χ, psi ψ, omega ω, "
    "Gamma Γ, Delta Δ, Theta Θ, Lambda Λ, Xi Ξ, Pi Π, Sigma Σ, Phi Φ, Psi Ψ, Omega Ω, times ×, cdot ·, "
    "div ÷, pm ±, mp ∓, le ≤, leq ≤, ge ≥, geq ≥, ne ≠, neq ≠, approx ≈, equiv ≡, sim ∼, infty ∞, in ∈, "
    "notin ∉, subset ⊂, subseteq ⊆, cup ∪, cap ∩, to →, rightarrow →, Rightarrow ⇒, leftarrow ←, implies ⇒, "
    "iff ⇔, forall ∀, exists ∃, partial ∂, nabla ∇, sum ∑, prod ∏, int ∫, ldots …, cdots ⋯, dots …, land ∧, "
    "lor ∨, neg ¬, angle ∠, circ ∘, degree °, propto ∝, emptyset ∅"
)
MATH = {r"\(": r"\)", r"\[": r"\]", "$$": "$$"}
_SYMBOLS = dict(each.split() for each in _NAMES.split(", "))
_UP = dict(zip("0123456789+-=()nixaT", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣᵃᵀ", strict=True))
_DOWN = dict(zip("0123456789+-=()aeijknmx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑᵢⱼₖₙₘₓ", strict=True))
_PLAIN = "sin|cos|tan|log|ln|exp|lim|max|min|mod|gcd|det|left|right"
_SPACES = {r"\,": " ", r"\;": " ", r"\:": " ", r"\!": "", r"\ ": " ", r"\quad": "  ", r"\qquad": "    "}


def readable(formula: str) -> str | None:
    """A formula in Unicode, or None when some of it has no such form."""
    text = formula
    for mark, space in _SPACES.items():
        text = re.sub(re.escape(mark) + r"(?![A-Za-z])" if mark[-1].isalpha() else re.escape(mark), space, text)
    text = re.sub(r"\\(?:text|mathrm|mathbf|operatorname)\{([^{}\\]*)\}", r"\1", text)
    text = re.sub(r"\\(?:d|t)?frac\{([^{}\\]*)\}\{([^{}\\]*)\}", _fraction, text)
    text = re.sub(r"\\sqrt\{([^{}]*)\}", lambda found: f"√{_grouped(found[1])}", text)
    text = re.sub(rf"\\({_PLAIN})(?![A-Za-z])", _word, text)
    text = re.sub(r"\\([A-Za-z]+)", lambda found: _SYMBOLS.get(found[1], found[0]), text)
    text = re.sub(r"\\([{}%$#&_])", r"\1", text) if not re.search(r"\\[{}]", text) else text
    for mark, table in (("^", _UP), ("_", _DOWN)):
        text = re.sub(rf"\{mark}(?:\{{([^{{}}]*)\}}|([^\s{{}}\\]))", partial(_raised, table=table), text)
    return None if re.search(r"[\\{}^]|_\S", text) else text.strip()


def _word(found: re.Match[str]) -> str:
    return "" if found[1] in ("left", "right") else found[1]


def _grouped(text: str) -> str:
    return text if re.fullmatch(r"\w+", text) else f"({text})"


def _fraction(found: re.Match[str]) -> str:
    return f"{_grouped(found[1])}/{_grouped(found[2])}"


def _raised(found: re.Match[str], table: dict[str, str]) -> str:
    letters = found[1] if found[1] is not None else found[2]
    return "".join(table[each] for each in letters) if all(each in table for each in letters) else found[0]


def _rule(state: StateInline, silent: bool) -> bool:
    opening = state.src[state.pos : state.pos + 2]
    closing = MATH.get(opening)
    end = state.src.find(closing, state.pos + 2, state.posMax) if closing else -1
    if closing is None or end < 0:
        return _escaped(state, silent)
    if not silent:
        token = state.push("text", "", 0)
        written = state.src[state.pos : end + 2]
        words = opening != "$$" and re.fullmatch(r"[A-Za-z][A-Za-z ,.]+", written[2:-2])  # `\\[optional\\]`: an escape
        token.content = f"{opening[1]}{written[2:-2]}{closing[1]}" if words else readable(written[2:-2]) or written
    state.pos = end + 2
    return True


def _escaped(state: StateInline, silent: bool) -> bool:
    """A backslash of a formula that is not closed yet, or of one that nothing opens, stays."""
    if state.src[state.pos : state.pos + 2] not in (r"\(", r"\)", r"\[", r"\]", r"\,", r"\;", r"\:"):
        return False
    if not silent:
        state.push("text", "", 0).content = state.src[state.pos : state.pos + 2]
    state.pos += 2
    return True


def _block(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """A formula that begins with a line of its own is one paragraph up to its end, or an empty line: `+ b` in it is no
    item of a list, and `= c` makes no heading."""
    if state.is_code_block(first):
        return False
    opening = _line(state, first)[:2]
    closing = MATH.get(opening)
    if closing is None or opening == r"\(" or closing in _line(state, first)[2:]:
        return False
    if silent:
        return True
    last = first + 1
    while last < end and not state.isEmpty(last) and state.sCount[last] >= state.blkIndent:
        last += 1
        if closing in _line(state, last - 1):
            break
    paragraph = state.push("paragraph_open", "p", 1)
    paragraph.map, paragraph.markup = [first, last], opening
    inline = state.push("inline", "", 0)
    inline.map, inline.children = [first, last], []
    inline.content = state.getLines(first, last, state.blkIndent, False).strip()
    state.push("paragraph_close", "p", -1)
    state.line = last
    return True


def _line(state: StateBlock, line: int) -> str:
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]


def math(parser: MarkdownIt) -> None:
    """A plugin: formulas are text, whatever Markdown would see in them."""
    parser.inline.ruler.before("escape", "math", _rule)
    parser.block.ruler.before("table", "math", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
