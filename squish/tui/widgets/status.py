"""The strip on top: which model, what it is doing, and what that costs. Words carry the state; color only helps."""

from __future__ import annotations

import msgspec
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from squish import figures
from squish.tui.background import Background
from squish.tui.memory_readings import Memory
from squish.tui.short_names import short

_GAP = 3
_SHORT_WIDTH = 24
_NAME_WIDTH = 24
_DETAILS = 6  # 1 speed, 2 what goes on behind, 3 memory, 4 weights, 5 bars, 6 the worker's memory


class StripFacts(msgspec.Struct, frozen=True):
    """What the strip shows. state: a word or a few; symbol and style go with it; sizes in bytes, 0 when not known.

    following: the model that is asked next, where it is another one; progress: 0..1 of the prompt read, or None; speed:
    tokens per second; process: memory of the worker.
    """

    model: str = ""
    state: str = ""
    is_loading: bool = False
    symbol: str = "○"
    style: str = "$foreground-muted"
    following: str = ""
    weights: int = 0
    progress: float | None = None
    speed: float = 0.0
    process: int = 0
    memory: Memory | None = None

    @property
    def idle(self) -> bool:
        """Whether it says no more than that no model is loaded."""
        return self.symbol == "○"


class StatusStrip(Widget):
    """One row. When it is narrow, the least important pieces go first, and a long name is cut to what is left."""

    facts: reactive[StripFacts] = reactive(StripFacts(), repaint=False)
    background_work: reactive[tuple[Background, ...]] = reactive((), repaint=False)
    """What goes on behind the screen: downloads, the server; one without a text is nothing."""

    waited: reactive[int] = reactive(0, repaint=False)
    """Whole seconds that the model has been loading."""

    _shown = Content("")

    def watch_facts(self) -> None:
        self._show()

    def watch_background_work(self) -> None:
        self._show()

    def watch_waited(self) -> None:
        self._show()

    def _show(self) -> None:
        """Twice a second other figures come, most of which are rounded to what stands there."""
        if not self._shown.is_same(self._line()):
            self.refresh()

    def render(self) -> Content:
        self._shown = self._line()
        return self._shown

    def _line(self) -> Content:
        width, name = self.content_size.width, Content(short(self.facts.model)).cell_length
        for detail in range(_DETAILS, -1, -1):
            right = self._right(detail)
            fixed = self._left(detail, 0).cell_length + right.cell_length + (_GAP if right else 0)
            if fixed + min(name, _NAME_WIDTH) <= width or detail == 0:
                left = self._left(detail, max(width - fixed, 1))
                return left + Content(" " * max(width - left.cell_length - right.cell_length, 0)) + right
        return Content("")

    def _left(self, detail: int, room: int) -> Content:
        facts = self.facts
        pieces: list[Content | str | tuple[str, str]] = [("squish", "bold $text-accent"), "  "]
        if facts.model:
            name = Content.styled(short(facts.model), "bold")
            pieces += [name.truncate(room, ellipsis=True) if name.cell_length > room else name, "  "]
        waited = f" {figures.waited(self.waited)}" if self.waited and facts.is_loading else ""
        unknown = facts.idle and any(each.lost for each in self.background_work)
        state = "not connected" if unknown else facts.state
        pieces.append((f"{facts.symbol} {state}{waited}", facts.style))
        if facts.progress is not None:
            bar = f" {figures.bar(facts.progress, 8)}" if detail >= 5 else ""
            pieces.append((f" {figures.percent(facts.progress)}{bar}", facts.style))
        if facts.following and detail >= 2:
            pieces.append((f"  next {short(facts.following)}", "$text-secondary"))
        if facts.weights and detail >= 4:
            pieces.append((f"  weights {figures.size(facts.weights)}", "$foreground-muted"))
        if facts.speed and detail >= 1:
            pieces.append((f"  {figures.speed(facts.speed)}", "$foreground-muted"))
        return Content.assemble(*pieces)

    def _right(self, detail: int) -> Content:
        facts, pieces = self.facts, list[tuple[str, str]]()
        for work in (each for each in self.background_work if each.short):
            short = Content(work.short).truncate(_SHORT_WIDTH, ellipsis=True).plain
            pieces.append((f"{work if detail >= 2 else short}  ", "$text-secondary"))
        if facts.process and detail >= 6:
            pieces.append((f"process {figures.size(facts.process)}  ", "$foreground-muted"))
        if facts.memory and detail >= 3:
            used, total = facts.memory.used, facts.memory.total
            bar = f"{figures.bar(used / total, 6)} " if detail >= 5 else ""
            pieces.append((f"system {bar}{figures.of_total(used, total)}", "$foreground-muted"))
        return Content.assemble(*pieces)
