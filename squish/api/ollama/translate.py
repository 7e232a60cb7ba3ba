"""Bodies in Ollama's shapes to generation requests.

Pure: bytes in, values out, InvalidInput naming the field otherwise. It knows no HTTP and no engine.
Unknown fields are ignored; an explicit null is an absent field; a known field that would change the answer and that the
engine does not support is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from squish.api import bodies
from squish.api.dialect import Asked
from squish.api.fields import foreign, limits
from squish.api.fields.foreign import Level
from squish.api.ollama import conversation, options
from squish.api.ollama.foreign import CHAT, GENERATE
from squish.api.ollama.replies import LineReply, chat_line, text_line
from squish.api.ollama.requests import ChatRequest, CommonRequest, GenerateRequest, NamedModel
from squish.errors import InvalidInput
from squish.generation import GenerationRequest, Prompt, TextPrompt

RequestT = TypeVar("RequestT", bound=CommonRequest)
NamedT = TypeVar("NamedT", bound=NamedModel)


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A request that only loads a model, or with keep_alive 0 unloads it.

    reply: what says that it was done. keep_alive: seconds; None is the configured time.
    """

    model: str
    keep_alive: float | None
    reply: LineReply


def read_chat(body: bytes) -> Asked | LoadRequest:
    """A body of POST /api/chat. Raises InvalidInput naming the field."""
    request = _decode(body, ChatRequest, CHAT)
    reply = LineReply(request.model, chat_line)
    if not request.messages:
        return _load_request(request, reply)
    return _asked(request, conversation.chat_prompt(request), reply)


def read_generate(body: bytes) -> Asked | LoadRequest:
    """A body of POST /api/generate. Raises InvalidInput naming the field."""
    request = _decode(body, GenerateRequest, GENERATE)
    if request.raw and request.system:
        message = "raw sends the prompt as it is, so there is no place for system."
        raise InvalidInput(message, hint="Leave out one of them.", param="system")
    reply = LineReply(request.model, text_line)
    if not request.prompt:
        return _load_request(request, reply)
    prompt: Prompt = TextPrompt(request.prompt) if request.raw else conversation.text_prompt(request)
    return _asked(request, prompt, reply)


def read_named(body: bytes, kind: type[NamedT]) -> tuple[NamedT, str]:
    """A body that names a model, and the name. Raises InvalidInput naming the field."""
    request = bodies.decode(body, kind)
    name = (request.model or request.name or "").strip()
    if not name:
        raise InvalidInput("model is missing.", param="model")
    return request, name


def _decode(body: bytes, kind: type[RequestT], level: Level) -> RequestT:
    request = bodies.decode(body, kind)
    foreign.refuse(body, level)
    if not request.model.strip():
        raise InvalidInput("model must not be empty.", param="model")
    return request


def _load_request(request: CommonRequest, reply: LineReply) -> LoadRequest:
    return LoadRequest(request.model, limits.keep_alive(request.keep_alive), reply)


def _asked(request: CommonRequest, prompt: Prompt, reply: LineReply) -> Asked:
    keep_alive = limits.keep_alive(request.keep_alive)
    generation = GenerationRequest(request.model, (prompt,), options.sampling(request), keep_alive)
    return Asked(generation, reply, request.stream is not False)
