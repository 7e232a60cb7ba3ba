"""Whether to think: the many fields that clients switch it with, as the one value that the engine has for it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from squish.api.fields.efforts import DEGREES, thinks
from squish.api.openai.requests import ChatRequest, ReasoningSwitch
from squish.errors import InvalidInput
from squish.generation import Effort

_TYPES: Mapping[str, bool | None] = {"enabled": True, "disabled": False, "auto": None, "adaptive": None}


def asked(request: ChatRequest) -> bool | None:
    """Whether to think; None leaves it to the model. Raises InvalidInput for unknown words and for contradictions."""
    found: dict[str, bool] = {}
    for field, switch in _switches(request):
        if switch is None:
            continue
        for other, before in found.items():
            if before != switch:
                raise InvalidInput(f"{field} and {other} contradict each other; send one of them.", param=field)
        found[field] = switch
    return next(iter(found.values()), None)


def effort(request: ChatRequest) -> Effort | None:
    """How much to think, where a request says so. Raises InvalidInput for contradictions."""
    asked_for = [request.reasoning_effort, request.think, request.thinking, request.reasoning]
    if isinstance(request.reasoning, ReasoningSwitch):
        asked_for.append(request.reasoning.effort)
    found = {DEGREES[word] for word in asked_for if isinstance(word, str) and word in DEGREES}
    if len(found) > 1:
        raise InvalidInput(
            "reasoning_effort and another field ask for different efforts; send one of them.", param="reasoning_effort"
        )
    return found.pop() if found else None


def _switches(request: ChatRequest) -> Iterator[tuple[str, bool | None]]:
    yield "reasoning_effort", thinks(request.reasoning_effort, "reasoning_effort")
    yield "enable_thinking", request.enable_thinking
    yield "think", _switch(request.think, "think")
    if isinstance(request.thinking, bool | str | None):
        yield "thinking", _switch(request.thinking, "thinking")
    else:
        yield "thinking.type", thinks(request.thinking.type, "thinking.type", _TYPES)
    if isinstance(request.reasoning, bool | str | None):
        yield "reasoning", _switch(request.reasoning, "reasoning")
    else:
        yield "reasoning.enabled", request.reasoning.enabled
        yield "reasoning.effort", thinks(request.reasoning.effort, "reasoning.effort")
    if request.chat_template_kwargs is not None:
        yield "chat_template_kwargs.enable_thinking", request.chat_template_kwargs.enable_thinking
        yield "chat_template_kwargs.thinking", request.chat_template_kwargs.thinking


def _switch(given: bool | str | None, field: str) -> bool | None:
    return thinks(given, field) if isinstance(given, str) else given
