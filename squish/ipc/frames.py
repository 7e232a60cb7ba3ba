"""The frames between a front process and a worker, and how they are put on a socket.

A frame is a 4-byte big-endian length and a msgpack body, a tagged union: `ToWorker` one way, `FromWorker` the other.
It knows neither asyncio nor threads: both ends bring their own reading and writing.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from squish.embeddings import EmbeddingInput, Embeddings
from squish.errors import SquishError, from_wire
from squish.generation import GenerationEvent, Prompt, ResponseFormat, SamplingParams
from squish.ipc.group import Rank

HEADER = struct.Struct(">I")
MAX_FRAME = 256 * 1024 * 1024
HEARTBEAT = 2.0


class WireError(msgspec.Struct, frozen=True):
    """An error of errors.py on the wire."""

    code: str
    message: str
    hint: str | None = None
    param: str | None = None

    @classmethod
    def of(cls, error: SquishError) -> WireError:
        return cls(error.code, error.message, error.hint, error.param)

    def to_error(self) -> SquishError:
        return from_wire(self.code, self.message, self.hint, self.param)


# ---- front → worker


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load the MLX model directory at path. Answered by Loaded or Failed(None).

    cpu_precision: of products with weights, where MLX computes on the CPU. wire_weights: never swap them, where a GPU
    shares the memory. prompt_lookup: answers may be guessed from what stands in their prompts. draft: the
    directory of a model that guesses them. group: what rank 0 of several is; None where this process holds the model.
    kv_bits: of a number in the KV cache, 32, 16 or 8; None takes what is best here.
    """

    path: str
    cpu_precision: Literal["int8", "float32"] = "int8"
    wire_weights: bool = False
    prompt_lookup: bool = True
    draft: str | None = None
    group: Rank | None = None
    kv_bits: int | None = None


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """adapter: the directory of one that answers in the model's place, None for the model as it is. account: whose it
    is, for taking turns. background: nobody waits for it."""

    request: int
    prompts: tuple[Prompt, ...]
    sampling: SamplingParams
    adapter: str | None = None
    account: str = ""
    background: bool = False


class CountTokens(msgspec.Struct, frozen=True, tag="count_tokens"):
    """Count the tokens of chats as the model's own template and tokenizer make them. Answered by Counted or Failed.

    held_to: also look whether an answer could be held to a format; Failed where it could not.
    """

    request: int
    prompts: tuple[Prompt, ...]
    held_to: ResponseFormat | None = None


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """Turn each input into a vector; fields as of EmbeddingRequest. Answered by Embedded or Failed."""

    request: int
    inputs: tuple[EmbeddingInput, ...]
    dimensions: int | None = None
    prompt_name: str | None = None
    truncate: bool = False


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """The rows of this request leave the batch at the next step. An unknown request is not an error.

    Of a Generate each row finishes; an Embed is answered by Failed.
    """

    request: int


class ImportGguf(msgspec.Struct, frozen=True, tag="import_gguf"):
    """Job: write a GGUF file as an MLX model into an empty directory.

    Answered by JobProgress…, then Imported or Failed(None).
    """

    source: str
    destination: str


class InspectModel(msgspec.Struct, frozen=True, tag="inspect_model"):
    """Job: read what an MLX model directory is, refusing what we cannot run. Answered by Imported or Failed(None)."""

    path: str


class InspectStart(msgspec.Struct, frozen=True, tag="inspect_start"):
    """Job: judge a GGUF file of which only these ranges of bytes are there. Answered by Judged or Failed(None).

    size: of the whole file; part: it is not the first of several files of a model.
    """

    path: str
    size: int
    present: tuple[tuple[int, int], ...]
    part: bool = False


class InspectGguf(msgspec.Struct, frozen=True, tag="inspect_gguf"):
    """Job: judge a GGUF file, and the parts beside it, by their headers. Answered by Verdict."""

    path: str


class InspectAdapter(msgspec.Struct, frozen=True, tag="inspect_adapter"):
    """Job: check an adapter's directory against the model directory that it is for. Answered by Imported or
    Failed(None)."""

    path: str
    base: str


class FuseAdapter(msgspec.Struct, frozen=True, tag="fuse_adapter"):
    """Job: write a model with an adapter's changes in its weights into an empty directory. Answered by Imported or
    Failed(None)."""

    path: str
    base: str
    destination: str


class Recipe(msgspec.Struct, frozen=True):
    """How weights are compressed. mode: affine, mxfp4, …; mixed: a recipe of mlx-lm by which some layers get more.

    search: scales and offsets are searched for; calibrated: rounded for what a text brings; both affine only.
    size: bits a weight of the whole model, scales included, met by choosing bits and groups matrix by matrix; bits and
    group_size mean nothing then. fit: the size is to be the largest that fits this machine, and is not known yet.
    """

    bits: int
    group_size: int
    mode: str = "affine"
    mixed: str | None = None
    search: bool = False
    calibrated: bool = False
    size: float | None = None
    fit: bool = False


class QuantizeShards(msgspec.Struct, frozen=True, tag="quantize_shards"):
    """Job: compress what the arrived shards of a model make possible; repeated with every shard until all is written.

    source: directory with config.json and the arrived shards; headers: directory with the safetensors header of every
    shard, as NAME.json; destination: a directory that keeps its own account of what is written; text: to calibrate with
    where the recipe is calibrated, "" for the usual one. For such a recipe all shards must have arrived.
    Answered by JobProgress…, then Quantized or Failed(None).
    """

    source: str
    headers: str
    destination: str
    arrived: tuple[str, ...]
    recipe: Recipe
    text: str = ""


class MeasurePerplexity(msgspec.Struct, frozen=True, tag="measure_perplexity"):
    """Job: load the MLX model directory at path and read a text with it. Answered by Measured or Failed(None).

    keep: a file that gets what the model predicts; against: such a file of the original, to compare with.
    """

    path: str
    text: str
    keep: str | None = None
    against: str | None = None


Job = (
    ImportGguf
    | InspectModel
    | InspectStart
    | InspectGguf
    | InspectAdapter
    | FuseAdapter
    | QuantizeShards
    | MeasurePerplexity
)
ToWorker = Load | Generate | CountTokens | Embed | Cancel | Job

# ---- worker → front


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """context_length in tokens; weights_bytes as they lie in memory; backend: one line for people.

    kv_bits: of a number in the KV cache; 0 where there is none. kv_choice: whether it can be loaded with other bits.
    kernel: what multiplies by weights on a CPU, and precision: how; "" on a GPU.
    """

    context_length: int
    weights_bytes: int
    backend: str
    warnings: tuple[str, ...] = ()
    kv_bits: int = 0
    kv_choice: bool = False
    kernel: str = ""
    precision: str = ""


class Compiling(msgspec.Struct, frozen=True, tag="compiling"):
    """Between Load and Loaded: the engine is compiled for this machine, once. under_way: False at its end."""

    under_way: bool


class Events(msgspec.Struct, frozen=True, tag="events"):
    """All that happened in one step, over all requests."""

    items: tuple[tuple[int, GenerationEvent], ...]


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """tokens: one count a prompt, also of one that is longer than the context."""

    request: int
    tokens: tuple[int, ...]


class Embedded(msgspec.Struct, frozen=True, tag="embedded"):
    request: int
    embeddings: Embeddings


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A request's only and last word, or, with request None, the load's or the job's."""

    request: int | None
    failure: WireError


class Warned(msgspec.Struct, frozen=True, tag="warned"):
    """Something that the user of the program should hear of, and that fails no request."""

    message: str


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """Sent every HEARTBEAT seconds by a thread of its own: a worker that is only slow still sends it."""


class JobProgress(msgspec.Struct, frozen=True, tag="job_progress"):
    """fraction in 0..1."""

    phase: str
    fraction: float


class Imported(msgspec.Struct, frozen=True, tag="imported"):
    """What a finished import knows about its model."""

    architecture: str
    quantization: str
    context_length: int
    parameters: int
    license: str | None = None
    kind: Literal["chat", "completion", "embedding", "rerank"] = "chat"


class Judged(msgspec.Struct, frozen=True, tag="judged"):
    """needed: the range of bytes without which a file cannot be judged, None where it can be imported."""

    needed: tuple[int, int] | None = None


class Verdict(msgspec.Struct, frozen=True, tag="verdict"):
    """problem: why a file cannot be imported, "" where it can. A worker that says so goes on to the next file."""

    problem: str = ""


class Quantized(msgspec.Struct, frozen=True, tag="quantized"):
    """consumed: shards that are not needed any more; complete: the model is whole; peak_memory: of the process.

    unmeasured: why the bits of each matrix were chosen without knowing what it matters; "" where they were not.
    """

    consumed: tuple[str, ...]
    complete: bool
    peak_memory: int
    unmeasured: str = ""


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """perplexity over so many predicted tokens; peak_memory: bytes that the worker had at most.

    divergence: the mean KL divergence from the original, in nats a token, None where there was nothing to compare with.
    """

    perplexity: float
    tokens: int
    peak_memory: int
    divergence: float | None = None


JobResult = Imported | Judged | Verdict | Quantized | Measured
FromWorker = Alive | Warned | Compiling | Loaded | Events | Counted | Embedded | Failed | JobProgress | JobResult


def encode(frame: ToWorker | FromWorker) -> bytes:
    """Header and body. Raises ValueError when the body is larger than MAX_FRAME."""
    body = msgspec.msgpack.encode(frame)
    if len(body) > MAX_FRAME:
        raise ValueError(f"a frame of {len(body)} bytes is too large")
    return HEADER.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Bytes of the body that follows. Raises ValueError when it is larger than MAX_FRAME."""
    length: int = HEADER.unpack(header)[0]
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes is announced")
    return length


def decode_to_worker(body: bytes) -> ToWorker:
    frame: ToWorker = msgspec.msgpack.decode(body, type=ToWorker)
    return frame


def decode_from_worker(body: bytes) -> FromWorker:
    frame: FromWorker = msgspec.msgpack.decode(body, type=FromWorker)
    return frame
