"""The values of text embeddings: what is asked for, and the vectors that come back.

Values only, as in generation.py. It does not know who asks, nor how vectors are made.
"""

from __future__ import annotations

from array import array
from typing import Literal

import msgspec

from squish.errors import InvalidInput
from squish.generation import TextPrompt, TokenPrompt

MAX_INPUTS = 2048
_FLOAT = 4


class TextPair(msgspec.Struct, frozen=True, tag="pair"):
    """A query and a text that may answer it, for a model that scores how well it does: a vector of one number."""

    query: str
    text: str


EmbeddingInput = TextPrompt | TokenPrompt | TextPair


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """Texts, or the token ids of texts, to turn into vectors; each has a vector of its own.

    dimensions: numbers of a vector, which is cut to them and scaled to length 1; None leaves it whole. prompt_name: of
    the model's own prompts, the one that is put before each text; None takes the model's default. truncate: what is too
    long is cut, and not refused. keep_alive: seconds that the model stays loaded afterwards. client, account,
    background: as of a GenerationRequest.
    """

    model: str
    inputs: tuple[EmbeddingInput, ...]
    dimensions: int | None = None
    prompt_name: str | None = None
    truncate: bool = False
    keep_alive: float | None = None
    client: str = ""
    account: str = ""
    background: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.inputs) <= MAX_INPUTS:
            raise InvalidInput(f"A request has 1 to {MAX_INPUTS} inputs, not {len(self.inputs)}.", param="input")
        if self.dimensions is not None and self.dimensions < 1:
            raise InvalidInput(f"dimensions must be 1 or more, not {self.dimensions}.", param="dimensions")

    @property
    def kind(self) -> Literal["embedding", "rerank"]:
        """Which models can answer it."""
        return "rerank" if isinstance(self.inputs[0], TextPair) else "embedding"

    @property
    def rows(self) -> int:
        """Places that it takes in a model's queue."""
        return 1


class Embeddings(msgspec.Struct, frozen=True):
    """vectors: float32, little-endian, one vector after the other; dimensions: numbers in each.

    tokens: how many each input had, the model's own marks counted. model: the installed id, once that is known.
    """

    vectors: bytes
    dimensions: int
    tokens: tuple[int, ...]
    model: str = ""

    def row(self, index: int) -> bytes:
        """The vector of an input as float32, little-endian."""
        size = self.dimensions * _FLOAT
        return self.vectors[index * size : (index + 1) * size]

    def floats(self, index: int) -> list[float]:
        """The vector of an input as numbers."""
        numbers = array("f")
        numbers.frombytes(self.row(index))
        return numbers.tolist()
