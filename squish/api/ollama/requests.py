"""What clients of Ollama send. Structs only.

Ranges stand here for the OpenAPI document; options.py and SamplingParams enforce them. A number can come as a fraction,
because Ollama reads all of them so.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from squish.api.fields.documented import documented
from squish.api.openai.requests import JsonObject, Refused

Number = int | float
Taken = Annotated[Any, documented("Accepted; changes nothing.")]
Model = Annotated[str, documented("An installed model, like smollm2:135m; :latest can be left out.", minLength=1)]
Logprobs = Annotated[bool, documented("Send the log-probability of every token.")]
TopLogprobs = Annotated[int, documented("Likeliest tokens per place.", minimum=0, maximum=20)]
Stream = Annotated[bool, documented("false: the answer in one piece. The default is a stream.")]
Think = Annotated[bool | str, documented("Whether to think, or how much: low, medium, high, max.")]
KeepAlive = Annotated[
    int | float | str,
    documented('How long the model stays loaded afterwards: seconds, or "5m"; below 0 is forever, 0 unloads it.'),
]
AnswerFormat = Annotated[
    str | dict[str, Any], documented('"json", or a JSON schema that the answer is held to; "" is neither.')
]


class Options(msgspec.Struct):
    """How tokens are chosen, and when an answer ends. What is unknown is ignored, as Ollama does."""

    num_predict: Annotated[Number, documented("Longest answer in tokens; 0 and less: no limit.")] | None = None
    temperature: Annotated[float, documented("0 is greedy; default 0.7.", minimum=0, maximum=2)] | None = None
    top_p: Annotated[float, documented("Default 0.9; 1 is off, 0 is greedy.", minimum=0, maximum=1)] | None = None
    top_k: Annotated[Number, documented("0 and less are off.")] | None = None
    min_p: Annotated[float, documented("0 is off.", minimum=0, maximum=1)] | None = None
    seed: Annotated[Number, documented("The same seed gives the same answer; below 0 is none.")] | None = None
    stop: Annotated[str | list[str], documented("Up to 64 strings; empty ones are ignored.")] | None = None
    repeat_penalty: Annotated[float, documented("1 is off.", exclusiveMinimum=0, maximum=10)] | None = None
    repeat_last_n: (
        Annotated[
            Number,
            documented("Tokens that repeat_penalty sees; default 64; -1: all, 0: none.", minimum=-1),
        ]
        | None
    ) = None
    presence_penalty: Annotated[float, documented("0 is off.", minimum=-2, maximum=2)] | None = None
    frequency_penalty: Annotated[float, documented("0 is off.", minimum=-2, maximum=2)] | None = None
    penalize_newline: Annotated[bool, documented("false is refused beside a repeat_penalty.")] | None = None
    typical_p: Annotated[float, documented("Known and not supported: only 0 and 1.", enum=[None, 0, 1])] | None = None
    tfs_z: Annotated[float, documented("Known and not supported: only 1.", enum=[None, 1])] | None = None
    mirostat: Annotated[Number, documented("Known and not supported: only 0.", enum=[None, 0])] | None = None
    mirostat_tau: Taken = None
    mirostat_eta: Taken = None
    num_ctx: Annotated[Any, documented("Accepted; a conversation can always be as long as the model's context.")] = None
    num_keep: Taken = None
    num_batch: Taken = None
    num_gpu: Taken = None
    main_gpu: Taken = None
    num_thread: Taken = None
    numa: Taken = None
    low_vram: Taken = None
    f16_kv: Taken = None
    logits_all: Taken = None
    vocab_only: Taken = None
    use_mmap: Taken = None
    use_mlock: Taken = None
    embedding_only: Taken = None


class SentFunction(msgspec.Struct, gc=False):
    """arguments: an object; a JSON text is understood too."""

    name: str
    arguments: str | dict[str, Any] | None = None


class SentCall(msgspec.Struct, gc=False):
    """A call in an assistant's message."""

    function: SentFunction
    id: str | None = None


class ChatMessage(msgspec.Struct, gc=False):
    role: Annotated[str, documented("Who speaks.", enum=["system", "user", "assistant", "tool"])]
    content: str | None = None
    thinking: Annotated[str, documented("What an assistant thought; for templates that show it.")] | None = None
    tool_calls: list[SentCall] | None = None
    tool_name: Annotated[str, documented("The function whose result a tool message is.")] | None = None
    tool_call_id: Annotated[str, documented("The call whose result a tool message is.")] | None = None
    images: Refused = None


class Function(msgspec.Struct):
    name: Annotated[str, documented("Letters, digits, _ and -.", pattern="^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: JsonObject | None = None

    @property
    def strict(self) -> bool:
        """Ollama holds no call to its schema, so what cannot be held is not refused."""
        return False


class FunctionTool(msgspec.Struct):
    function: Function
    type: Annotated[str, documented("Only function.", enum=["function"])] | None = None


class CommonRequest(msgspec.Struct, kw_only=True):
    """The fields that chats and texts share."""

    model: Model
    stream: Stream | None = None
    format: AnswerFormat | None = None
    options: Options | None = None
    keep_alive: KeepAlive | None = None
    think: Think | None = None
    logprobs: Logprobs | None = None
    top_logprobs: TopLogprobs | None = None
    truncate: Annotated[bool, documented("Accepted; a prompt that is too long is refused either way.")] | None = None
    shift: Annotated[bool, documented("Accepted; an answer ends where the context does.")] | None = None


class ChatRequest(CommonRequest, kw_only=True):
    """POST /api/chat. Without messages the model is loaded, or with keep_alive 0 unloaded."""

    messages: Annotated[list[ChatMessage], documented("The conversation, oldest first.")] | None = None
    tools: Annotated[list[FunctionTool], documented("Functions that the model may call.")] | None = None


class GenerateRequest(CommonRequest, kw_only=True):
    """POST /api/generate. Without a prompt the model is loaded, or with keep_alive 0 unloaded."""

    prompt: str | None = None
    system: Annotated[str, documented("Said before the prompt.")] | None = None
    raw: Annotated[bool, documented("true: the prompt as it is, without the chat template.")] | None = None
    suffix: Refused = None
    template: Refused = None
    context: Refused = None
    images: Refused = None


class NamedModel(msgspec.Struct):
    """A body that names a model in `model`, or as older clients do in `name`."""

    model: str | None = None
    name: Annotated[str, documented("The same as model.")] | None = None


class PullRequest(NamedModel):
    """POST /api/pull, on a server that was started with --allow-pull."""

    stream: Annotated[bool, documented("false: one line when it is done, in place of progress.")] | None = None
    insecure: Taken = None


class CopyRequest(msgspec.Struct):
    """POST /api/copy, on a server that was started with --allow-pull."""

    source: str
    destination: str
