"""How full the model's context is, and what will happen at its end. Pure figures; knows no widget."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content

from squish import figures

_WIDTH = 8
_SCARCE = 256


@dataclass(frozen=True, slots=True)
class Context:
    """Tokens. used: the chat so far; draft: what the message that is being written adds; limit: 0 when not known."""

    used: int = 0
    draft: int = 0
    limit: int = 0

    @property
    def left(self) -> int:
        return self.limit - self.used - self.draft

    @property
    def too_long(self) -> bool:
        """Whether the model would refuse the message: at least one token must be left for its answer."""
        return bool(self.limit) and self.left < 1

    def label(self, width: int) -> Content:
        """`ctx ▰▰▱▱ 6.1k/16k +42`, with a warning in words when the end is near; no wider than asked."""
        if not self.limit or not (self.used or self.draft):
            return Content("")
        fraction = (self.used + self.draft) / self.limit
        counts = f"{figures.count(self.used)}/{figures.count(self.limit)}"
        counts += f" +{figures.count(self.draft)}" if self.draft else ""
        style = "$text-error" if self.too_long else "$text-warning" if self.left < _SCARCE else ""
        forms = (
            f"{self._warning}ctx {figures.bar(fraction, _WIDTH)} {counts}",
            f"{self._warning}ctx {counts}",
            f"ctx {counts}",
        )
        return Content.styled(next((form for form in forms if len(form) <= width), forms[-1]), style)

    @property
    def _warning(self) -> str:
        if self.too_long:
            return "too long to send · "
        return f"{figures.count(self.left)} left for the answer · " if self.left < _SCARCE else ""


def advice(context: Context) -> str:
    """What a message that does not fit is answered with."""
    total = figures.count(context.used + context.draft)
    return (
        f"Not sent: with it the chat has {total} tokens, and the model's context holds {figures.count(context.limit)}. "
        "Shorten it, edit an earlier message (alt+↑, e) into a shorter branch, or begin a new chat (ctrl+n)."
    )
