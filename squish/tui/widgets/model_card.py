"""One model of the hub in full: where it is from, what it needs on this machine, and what of it fits."""

from __future__ import annotations

from textual.content import Content

from squish import figures
from squish.hub.search import Found
from squish.memory import fit
from squish.text import clean
from squish.tui.hub import filters
from squish.tui.key_hints import key
from squish.tui.widgets.facts import FactLines

FIT_LOOKS: dict[fit.Fits | None, tuple[str, str, str]] = {
    "yes": ("●", "fits", "$text-success"),
    "tight": ("◐", "tight", "$text-warning"),
    "no": ("○", "no", "$text-error"),
    None: ("·", "?", "$foreground-muted"),
}
_SLIDER = len(filters.CONTEXTS)


class ModelCard(FactLines):
    """What the marked row is about; `[` and `]` move the context."""

    def __init__(self) -> None:
        super().__init__(id="card")

    def show_nothing(self, text: str) -> None:
        self.border_title = ""
        self.say(Content.styled(text, "$foreground-muted"))

    def show(self, find: Found, context: int, machine: fit.Machine, state: str) -> None:
        """state: what is so of it already, as `installed`; empty when nothing is."""
        self.border_title = Content(clean(find.name)).truncate(max(self.size.width - 6, 10), ellipsis=True)
        keys = key(self.app, "hub.context_less"), key(self.app, "hub.context_more")
        self.say(Content("\n").join(filter(None, [about(find, state), *fit_lines(find, context, machine, keys)])))


def about(find: Found, state: str) -> Content:
    """`org/repo · 8.0B · 4.5 bits · 4.5 GB · ↓ 12k · ♥ 33 · 2026-01-31 · license to accept`."""
    facts = [clean(_origin(find.repo))] if find.repo != find.name else []
    facts += [figures.parameters(find.parameters)] if find.parameters else []
    facts += [f"{find.bits:g} bits"] if find.bits else []
    facts += [_on_disk(find)] if find.size else []
    facts += {"gguf": ["gguf"], "embedding": ["embedding model"]}.get(find.kind, [])
    facts += [f"↓ {figures.amount(find.downloads)}"] if find.downloads is not None else []
    facts += [f"♥ {figures.amount(find.likes)}"] if find.likes else []
    facts += [f"updated {clean(find.updated)}"] if find.updated else []
    said = [Content.styled(state, "bold $text-success")] if state else []
    said += [Content.styled(each, "$foreground-muted") for each in facts]
    said += [Content.styled("accept its license on the Hub first", "$text-warning")] if find.gated else []
    return Content.styled(" · ", "$foreground-muted").join(said)


def _origin(repo: str) -> str:
    """`org/name`; of a model in a Python package the package only, whose file is of no use to a reader."""
    return repo.partition("/")[0].replace(":", " ") if repo.startswith("package:") else repo


def _on_disk(find: Found) -> str:
    """What comes and what of it stays: `2.7 GB to download, 760 MB on disk once compressed`."""
    on_disk = f"{figures.size(find.size)} on disk"
    if find.download == 0:
        return f"nothing to download, {on_disk}"
    if find.kind != "safetensors":
        return on_disk
    return f"{figures.size(find.download)} to download, {on_disk} once compressed" if find.download else on_disk


def fit_lines(find: Found, context: int, machine: fit.Machine, keys: tuple[str, str] = ("[", "]")) -> list[Content]:
    """Whether it fits at a context, with the numbers, and the longest context that does.

    keys: for a shorter and a longer context.
    """
    needs = filters.estimate(find, context, machine)
    if needs is None:
        unknown = "Parameters" if find.size else "Size"
        return [Content.styled(f"{unknown} unknown; fit is checked on load.", "$text-warning")]
    symbol, _, style = FIT_LOOKS[found := fit.verdict(needs, machine)]
    sentence = {
        "yes": f"It fits: {figures.size(needs.needed)} of the {figures.size(machine.free)} of {machine.kind} free now.",
        "tight": f"It fits if other programs free memory: it needs {figures.size(needs.needed)}, "
        f"{figures.size(machine.free)} of {figures.size(machine.total)} {machine.kind} are free.",
        "no": f"It does not fit: it needs {figures.size(needs.needed)}, this machine has "
        f"{figures.size(machine.total)} of {machine.kind}.",
    }[found]
    at = filters.CONTEXTS.index(context)
    slider = "━" * at + "●" + "─" * (_SLIDER - at - 1)
    sums = f"weights {figures.size(needs.weights)} + cache {figures.size(needs.cache)} + engine "
    sums += f"{figures.size(needs.overhead)} = {'' if needs.exact else 'about '}{figures.size(needs.needed)}"
    if machine.float32 and needs.weights > find.size:
        sums += " · a CPU computes in float32"
    longest = filters.longest(find, machine)
    limit = f"fits up to {_tokens(longest)}" if longest else "does not fit at any context"
    verdict = Content.assemble((f"{symbol} ", style), (sentence, style if found == "no" else ""))
    if find.kind == "embedding":
        reads = f"texts of up to {_tokens(find.context_length)} each" if find.context_length else ""
        about = " · ".join(filter(None, ("embedding model, does not chat", reads)))
        return [verdict, Content.styled(about, "$foreground-muted"), Content.styled(sums, "$foreground-muted")]
    if find.context_length and context > find.context_length:
        limit = f"this model's context is {_tokens(find.context_length)}"
    return [
        verdict,
        Content.assemble(
            ("context ", "$foreground-muted"),
            (f"{keys[0]} ", "bold $text-accent"),
            (slider, "$text-primary"),
            (f" {keys[1]}", "bold $text-accent"),
            f" {_tokens(context)}",
            (f" · {limit}", "$foreground-muted"),
        ),
        Content.styled(sums, "$foreground-muted"),
    ]


def _tokens(number: int) -> str:
    return f"{figures.count(number)} tokens"
