"""What servers of OpenAI's API send, as far as it is read here. What they have besides is passed over.

So is a figure of the wrong type: the answer is worth more.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

Figures = TypeVar("Figures", bound=msgspec.Struct)


class ModelMeta(msgspec.Struct, frozen=True):
    """What llama-server says of a model."""

    n_ctx: int | None = None
    n_ctx_train: int | None = None
    n_params: int | None = None
    size: int | None = None


class ModelEntry(msgspec.Struct, frozen=True):
    """max_model_len is vLLM's, context_length OpenRouter's."""

    id: str
    owned_by: str | None = None
    meta: ModelMeta | None = None
    max_model_len: int | None = None
    context_length: int | None = None


class ModelEntries(msgspec.Struct, frozen=True):
    data: list[ModelEntry] | None = None


class FunctionPiece(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class CallPiece(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class DeltaPiece(msgspec.Struct, frozen=True):
    """reasoning_content and reasoning: two names that servers have for the same.

    content: text, or parts, see thoughts.parts_of.
    """

    role: str | None = None
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallPiece] | None = None


class ChoicePiece(msgspec.Struct, frozen=True):
    delta: DeltaPiece | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = None


class UsagePiece(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class TimingsPiece(msgspec.Struct, frozen=True):
    """llama-server's, of which Squish has some; milliseconds."""

    prompt_n: int | None = None
    prompt_ms: float | None = None
    cache_n: int | None = None
    predicted_n: int | None = None
    predicted_ms: float | None = None
    draft_n: int | None = None
    draft_n_accepted: int | None = None


class PromptProgress(msgspec.Struct, frozen=True):
    """How far llama-server or Squish is with the prompt, in tokens; what was cached counts as processed."""

    total: int
    cache: int = 0
    processed: int = 0


class ChunkPiece(msgspec.Struct, frozen=True):
    """One event of a streamed answer. usage, timings and prompt_progress: see figures."""

    choices: list[ChoicePiece] | None = None
    usage: Any = None
    timings: Any = None
    prompt_progress: Any = None
    error: Any = None


class ErrorPiece(msgspec.Struct, frozen=True):
    param: str | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """What an error says besides its words."""

    error: ErrorPiece


def figures(said: Any, kind: type[Figures]) -> Figures | None:
    """What can be read of an object of figures; None where it is none, or lacks one that it must have."""
    if not isinstance(said, dict):
        return None
    read = {name: said[name] for name in kind.__struct_fields__ if name in said and _reads(name, said[name], kind)}
    try:
        return msgspec.convert(read, kind)
    except msgspec.ValidationError:
        return None


def _reads(name: str, value: Any, kind: type[msgspec.Struct]) -> bool:
    others = {each.name: 0 for each in msgspec.structs.fields(kind) if each.required}
    try:
        msgspec.convert({**others, name: value}, kind)
    except msgspec.ValidationError:
        return False
    return True
