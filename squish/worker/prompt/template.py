"""A conversation in a model's own words: its chat template, whether it is to think, and what a template fails at.

A template is a program that comes with the model. Whatever it raises is the request's fault; only whether the template
can show any conversation at all is looked at. It knows no tokens.
"""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError
from msgspec.structs import replace

from squish.errors import InvalidInput
from squish.generation import ChatPrompt, Message
from squish.worker.prompt import tools

_DEGREES = "reasoning_effort"  # what templates call it that know how much to think
_HARMONY = "<|channel|>analysis"  # in templates of models that think in a channel of their own, always
_LONGEST = 300  # characters of what a template says


def render(tokenizer: Any, prompt: ChatPrompt) -> str:
    """The prompt as text. tokenizer: mlx_lm's TokenizerWrapper. Raises InvalidInput."""
    if not prompt.messages:
        raise InvalidInput("The conversation has no messages.", param="messages")
    if not tokenizer.has_chat_template:
        raise InvalidInput(
            "This model has no chat template: it continues text and does not chat.",
            hint="Use an instruct model, or POST /v1/completions.",
            param="messages",
        )
    if prompt.thinking is False and prompt.effort is None and _HARMONY in _source(tokenizer):
        message = "This model always thinks; how much is all that can be chosen."
        raise InvalidInput(message, hint="Use reasoning_effort: low.", param="reasoning_effort")
    offered = tools.for_template(tools.offered(prompt, tokenizer))
    if any(message.role == "system" for message in prompt.messages[1:]) and not _keeps_order(
        tokenizer, prompt, offered
    ):
        prompt = replace(prompt, messages=_without_late_systems(prompt.messages))
    try:
        text = _applied(tokenizer, prompt, offered)
    except Exception as error:  # a program of the model's: it fails with whatever programs fail with
        raise _refusal(tokenizer, error) from error
    if prompt.thinking is False and tokenizer.has_thinking and not prompt.continue_last:
        return _without_thoughts(tokenizer, prompt, offered, text)
    return text


def _source(tokenizer: Any) -> str:
    """The text of the model's template; empty where it has several, or a program of mlx-lm's."""
    found = tokenizer.chat_template if tokenizer._chat_template is None else None
    return found if isinstance(found, str) else ""


def _applied(tokenizer: Any, prompt: ChatPrompt, offered: list[dict[str, Any]]) -> str:
    extra: dict[str, Any] = {"tools": offered} if offered else {}
    if prompt.thinking is not None:
        extra["enable_thinking"] = prompt.thinking
        if tokenizer._chat_template is None:  # the model's own template may know it as this
            extra["thinking"] = prompt.thinking
    if _DEGREES in _source(tokenizer) and (prompt.effort or prompt.thinking is False):
        extra[_DEGREES] = prompt.effort or "none"
    text: str = tokenizer.apply_chat_template(
        [tools.message_for_template(message) for message in prompt.messages],
        tokenize=False,
        add_generation_prompt=not prompt.continue_last,
        continue_final_message=prompt.continue_last,
        **extra,
    )
    return text


def _keeps_order(tokenizer: Any, prompt: ChatPrompt, offered: list[dict[str, Any]]) -> bool:
    """Whether the template shows what a system says later where it says it. Many know one system message, the first:
    they fail, leave the others out, or move them to the beginning, where each would change all that follows."""
    try:
        text, at = _applied(tokenizer, prompt, offered), 0
    except Exception:  # noqa: BLE001 - as in render
        return False
    before = ""  # what was said last that is not known to stand before `at`
    for i, message in enumerate(prompt.messages):
        said = message.content.strip()
        if i == 0 or message.role != "system":
            before = said or before
            continue
        found = text.find(said, at)
        if found < 0 or text.find(before, at, found) < 0:
            return False
        at, before = found + len(said), ""
    return True


def _without_late_systems(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """What a system says later as the user's words, or behind what a tool gave back: templates want speakers to take
    turns."""
    turns: list[tuple[Message, list[str]]] = []
    for message in messages:
        before = turns[-1][0].role if turns else None
        late = before is not None and message.role == "system"
        if before in ("user", "tool") and (late or message.role == before == "user"):
            turns[-1][1].append(message.content)
        else:
            turns.append((Message("user", "") if late else message, [message.content]))
    return tuple(replace(first, content="\n\n".join(texts)) for first, texts in turns)


def _without_thoughts(tokenizer: Any, prompt: ChatPrompt, offered: list[dict[str, Any]], text: str) -> str:
    """A prompt after which the model does not think. A template without a switch gets an empty thought, as others
    write it themselves when they are switched off."""
    start, end, shown = tokenizer.think_start, tokenizer.think_end, text.rstrip()
    if shown.endswith(end):
        return text
    if shown.endswith(start):
        return f"{shown}\n\n{end}\n\n"
    if text != _applied(tokenizer, replace(prompt, thinking=True), offered):
        return text
    return f"{text}{start}\n\n{end}\n\n"


def _refusal(tokenizer: Any, error: Exception) -> InvalidInput:
    said = " ".join(f"{error}".split())[:_LONGEST].rstrip(".")
    if not isinstance(error, TemplateError):
        said = f"{type(error).__name__}: {said}"
    try:
        _applied(tokenizer, ChatPrompt((Message("user", "Hi"),)), [])
    except Exception:  # noqa: BLE001 - as above
        message = f"This model's chat template fails for every conversation: {said}."
        return InvalidInput(message, hint="Use another model, or POST /v1/completions.", param="model")
    return InvalidInput(f"This model's chat template refuses this conversation: {said}.", param="messages")
