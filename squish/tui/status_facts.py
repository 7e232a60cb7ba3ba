"""What the status strip says about a conversation: its answer, or else the state of its model. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

from squish.sessions.model_status import ModelStatus
from squish.text import clean
from squish.tui.chat.answer_state import AnswerState, Phase
from squish.tui.chat.conversation import Conversation
from squish.tui.memory_readings import MemoryReadings
from squish.tui.widgets.status import StripFacts

_COMPILING = "compiling the engine (once)"
_LOADING = ("loading", _COMPILING)


def facts(
    conversation: Conversation, statuses: Iterable[ModelStatus], machine: MemoryReadings, unseen: int = 0,
    missing: str = "",
) -> StripFacts:  # fmt: skip
    """The figures, with the machine read now, of the model that answers, or else of the one that is asked next.

    unseen: requests that nobody waits for, such as for titles. missing: where the model is not, in words; empty where
    it can be asked.
    """
    turn = conversation.running or (conversation.turns[-1] if conversation.turns else None)
    running = conversation.running
    model = running.model if running else conversation.model
    status = next((each for each in statuses if each.serves(model)), None)
    if missing and not running and status is None:
        symbol, state, style = "○", missing, "$text-warning"
    elif running or status is None:
        symbol, state, style = _state(_doing(running.answer) if running else "", bool(model))
    else:
        symbol, state, style = _of_model(status, unseen)
    answer = turn.answer if turn and turn.model == model else None
    return StripFacts(
        model=clean(model),
        state=state,
        is_loading=state in _LOADING,
        symbol=symbol,
        style=style,
        weights=status.weights_bytes if status else 0,
        following=clean(conversation.model) if conversation.model != model else "",
        progress=answer.prefill_fraction if answer and answer.phase == "prefill" else None,
        speed=answer.speed if answer else 0.0,
        process=(machine.of_model(status) or 0) if status else 0,
        memory=machine.memory(),
    )


def _of_model(status: ModelStatus, unseen: int = 0) -> tuple[str, str, str]:
    """The same of a model by itself: one that writes for somebody else is not ready."""
    if status.state == "ready" and status.running + status.waiting > unseen:
        symbol, state, style = _state("busy", True)
        return symbol, f"{state}, {status.waiting} queued" if status.waiting else state, style
    return _state("compiling" if status.compiling else status.state, True)


def _doing(answer: AnswerState) -> str:
    """What an answer waits for, or does."""
    return ("compiling" if answer.compiling else "loading") if answer.is_loading else answer.phase


def _state(state: Phase | str, has_model: bool) -> tuple[str, str, str]:
    """Symbol, word and style of what a model is doing."""
    match state:
        case "waiting" | "queued":
            return "◌", "waiting", "$text-warning"
        case "loading":
            return "◌", "loading", "$text-warning"
        case "compiling":
            return "◌", _COMPILING, "$text-warning"
        case "preparing" | "prefill":
            return "◐", "prefill", "$text-secondary"
        case "thinking" | "writing" | "busy":
            return "▶", state, "$text-primary"
        case "reaching" | "calling":
            return "⚙", "tools", "$text-secondary"
        case "asking":
            return "⚙", "asks you", "$text-warning"
        case "served":
            return "●", "connected", "$text-success"
        case "ready":
            return "●", "ready", "$text-success"
        case "failed":
            return "✕", "failed", "$text-error"
        case _:
            return "○", "not loaded" if has_model else "no model", "$foreground-muted"


def of_models(statuses: Iterable[ModelStatus], machine: MemoryReadings) -> StripFacts:
    """The strip's figures where no conversation is on: the model that works, else the one that is loaded."""
    ranks = {"loading": 1, "ready": 2, "failed": 3, "served": 4}
    status = min(statuses, key=lambda each: 0 if each.running else ranks[each.state], default=None)
    if status is None:
        return StripFacts(state="no model loaded", memory=machine.memory())
    symbol, state, style = _of_model(status)
    return StripFacts(
        model=clean(status.name),
        state=state,
        is_loading=state in _LOADING,
        symbol=symbol,
        style=style,
        weights=status.weights_bytes,
        process=machine.of_model(status) or 0,
        memory=machine.memory(),
    )
