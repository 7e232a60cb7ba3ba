"""The text of a request and of its answer, for the window of a request: kept only while somebody has switched it on,
in memory only, and no more of it than can be read."""

from __future__ import annotations

from squish.embeddings import EmbeddingRequest
from squish.generation import ChatPrompt, GenerationEvent, GenerationRequest, ReasoningDelta, TextDelta, ToolCallDelta

MAX_TEXT = 16 * 1024
"""Characters of a prompt, and of an answer."""


class RequestTexts:
    """asked: the end of the prompt; answered: the beginning of the answer. Both are as they were sent: clean them."""

    def __init__(self, request: object) -> None:
        self.asked = _asked(request)
        self._parts: list[str] = []
        self._size = 0

    @property
    def answered(self) -> str:
        return "".join(self._parts)

    def see(self, event: GenerationEvent) -> None:
        match event:
            case TextDelta(text=text) | ReasoningDelta(text=text):
                self._add(text)
            case ToolCallDelta(arguments=text):
                self._add(text)

    def _add(self, text: str) -> None:
        room = MAX_TEXT - self._size
        if room > 0 and text:
            self._parts.append(text if len(text) <= room else f"{text[:room]}\n… the rest is not kept")
            self._size += len(text)


def _asked(request: object) -> str:
    match request:
        case GenerationRequest(prompts=prompts):
            text = "\n\n".join(_prompt(each) for each in prompts)
        case EmbeddingRequest(inputs=inputs):
            text = "\n\n".join(each if isinstance(each, str) else "(tokens)" for each in inputs)
        case _:
            return ""
    return text if len(text) <= MAX_TEXT else f"the beginning is not kept …\n{text[-MAX_TEXT:]}"


def _prompt(prompt: object) -> str:
    if isinstance(prompt, ChatPrompt):
        return "\n\n".join(f"{each.role}: {each.content}" for each in prompt.messages)
    text = getattr(prompt, "text", None)
    return text if isinstance(text, str) else "(tokens)"
