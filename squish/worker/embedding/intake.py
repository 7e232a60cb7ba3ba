"""The way in of an embedding model: from frames to token ids, in a thread of its own.

A text that is too long is refused by its place in the request before anything is computed, or cut where that was asked.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from squish.embeddings import EmbeddingInput, TextPair
from squish.errors import ContextLengthExceeded, CorruptModel, EngineError, InvalidInput, SquishError
from squish.generation import ChatPrompt, TextPrompt, TokenPrompt
from squish.ipc.frames import Cancel, Counted, CountTokens, Embed, Failed, FromWorker, Generate, WireError
from squish.text import clean
from squish.worker.embedding.embedder import TokenizedText
from squish.worker.embedding.loading import LoadedEmbedder
from squish.worker.prompt.encoder import FOREIGN_TOKENIZER

_TOGETHER = 64  # texts that are tokenized before the next look at what was cancelled
_CHARACTERS = 128  # no token of a vocabulary is longer, so that a longer text has more tokens for sure

CHAT = "This is an embedding model: it turns texts into vectors, and writes no answers."
CANCELLED = EngineError("The request was cancelled.")


@dataclass(frozen=True, slots=True)
class PreparedTexts:
    """A request whose texts are tokenized."""

    request: int
    texts: tuple[TokenizedText, ...]
    dimensions: int | None


TextInbox = queue.SimpleQueue[PreparedTexts | Cancel | None]
"""None: the worker is to end."""


class TextIntake:
    """Tokenizes requests in their order. `take` and `cancel` belong to the reader thread."""

    def __init__(self, inbox: TextInbox, send: Callable[[FromWorker], None]) -> None:
        self._inbox, self._send = inbox, send
        self._waiting: queue.SimpleQueue[Embed | CountTokens] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending: set[int] = set()

    def take(self, frame: Generate | CountTokens | Embed) -> None:
        if isinstance(frame, Generate):
            self._send(Failed(frame.request, WireError.of(InvalidInput(CHAT, param="model"))))
            return
        if isinstance(frame, Embed):
            with self._lock:
                self._pending.add(frame.request)
        self._waiting.put(frame)

    def cancel(self, frame: Cancel) -> None:
        with self._lock:
            if frame.request in self._pending:
                self._pending.remove(frame.request)
                self._send(Failed(frame.request, WireError.of(CANCELLED)))
            else:
                self._inbox.put(frame)

    def run(self, encoder: TextEncoder) -> None:
        """Tokenize, without end."""
        while True:
            frame = self._waiting.get()
            try:
                self._prepare(encoder, frame)
            except SquishError as error:
                self._fail(frame, WireError.of(error))
            except Exception as error:  # noqa: BLE001 - a model's own tokenizer: its request fails, the thread lives on
                message = f"The model's tokenizer failed: {type(error).__name__}: {error}"
                self._fail(frame, WireError("engine_error", message))

    def _prepare(self, encoder: TextEncoder, frame: Embed | CountTokens) -> None:
        if isinstance(frame, CountTokens):
            self._send(Counted(frame.request, tuple(encoder.count(prompt) for prompt in frame.prompts)))
            return
        encoder.check(frame)
        texts: list[TokenizedText] = []
        for start in range(0, len(frame.inputs), _TOGETHER):
            if frame.request not in self._pending:
                return
            texts += encoder.encode(frame, start, frame.inputs[start : start + _TOGETHER])
        with self._lock:
            if frame.request in self._pending:
                self._pending.remove(frame.request)
                self._inbox.put(PreparedTexts(frame.request, tuple(texts), frame.dimensions))

    def _fail(self, frame: Embed | CountTokens, failure: WireError) -> None:
        with self._lock:
            if isinstance(frame, Embed):
                if frame.request not in self._pending:
                    return
                self._pending.remove(frame.request)
        self._send(Failed(frame.request, failure))


class TextEncoder:
    """From inputs to token ids, each text with the prompt that was asked for and the model's own marks."""

    def __init__(self, loaded: LoadedEmbedder) -> None:
        self._loaded, self._recipe = loaded, loaded.recipe
        self._tokenizer = loaded.tokenizer

    def check(self, frame: Embed) -> None:
        """Raises InvalidInput for what no text of the request can have."""
        if frame.dimensions is not None and frame.dimensions > self._loaded.dimensions:
            raise InvalidInput(
                f"dimensions is {frame.dimensions}, and the vectors of this model have {self._loaded.dimensions}.",
                param="dimensions",
            )
        if frame.prompt_name is not None and frame.prompt_name not in self._recipe.prompts:
            known = ", ".join(clean(each)[:40] for each in self._recipe.prompts) or "none"
            raise InvalidInput(
                f"This model has no prompt named {clean(frame.prompt_name)[:40]!r}; it has {known}.",
                param="prompt_name",
            )

    def count(self, prompt: ChatPrompt | EmbeddingInput) -> int:
        """Tokens of a text, however many. Raises InvalidInput for a conversation."""
        match prompt:
            case TextPrompt(text=text):
                return len(self._ids(text))
            case TokenPrompt(tokens=tokens):
                return len(tokens)
            case TextPair(query=query, text=text):
                return len(self._ids(query)) + len(self._ids(text))
            case _:
                raise InvalidInput(CHAT, param="model")

    def encode(self, frame: Embed, first: int, inputs: Sequence[EmbeddingInput]) -> list[TokenizedText]:
        """The texts of a part of a request. first: the place of its first input, for errors.

        Raises InvalidInput and ContextLengthExceeded naming the input, CorruptModel.
        """
        name = frame.prompt_name if frame.prompt_name is not None else self._recipe.default_prompt
        prompt = "" if name is None else self._recipe.prompts[name]
        own = 0 if not prompt or self._recipe.include_prompt else self._length_of(prompt)
        texts = []
        for index, each in enumerate(inputs, first):
            param = "input" if len(frame.inputs) == 1 else f"input[{index}]"
            if isinstance(each, TextPair):
                texts.append(self._pair(each, f"documents[{index}]", truncate=frame.truncate))
                continue
            if isinstance(each, TokenPrompt):
                tokens = self._checked(each.tokens, param)
            else:
                tokens = self._tokens(prompt + each.text, param, truncate=frame.truncate)
            if len(tokens) > self._loaded.longest:
                if not frame.truncate:
                    raise self._too_long(len(tokens), param)
                tokens = self._cut(tokens, marked=isinstance(each, TextPrompt))
            texts.append(TokenizedText(tokens, min(own, len(tokens) - 1) if isinstance(each, TextPrompt) else 0))
        return texts

    def _pair(self, pair: TextPair, param: str, *, truncate: bool) -> TokenizedText:
        """A query and a document with the model's marks around and between them. Of a document that is too long the
        beginning is taken, where that was asked. Raises ContextLengthExceeded, CorruptModel."""
        if len(pair.query) > (most := self._loaded.longest * _CHARACTERS):
            raise self._too_long(self._loaded.longest + 1, "query")
        end = self._marks_behind()
        start = self._ids("")[: -len(end) or None]
        head = start + self._bare(pair.query) + end * (2 if self._loaded.doubled else 1)
        document = self._bare(pair.text[: most + 1])
        room = self._loaded.longest - len(head) - len(end)
        if room < 1:
            raise self._too_long(len(head) + len(end), "query")
        if len(document) > room and not truncate:
            raise self._too_long(len(head) + len(document) + len(end), param)
        tokens = head + document[:room] + end
        if max(tokens) >= self._loaded.vocab_size:
            raise CorruptModel(FOREIGN_TOKENIZER, hint="Pull the model again, or another one.", param="tokenizer.json")
        return TokenizedText(tokens, second=len(head))

    def _bare(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _tokens(self, text: str, param: str, *, truncate: bool) -> list[int]:
        most = self._loaded.longest * _CHARACTERS
        if len(text) > most:
            if not truncate:
                raise self._too_long(self._loaded.longest + 1, param)
            text = text[:most]
        tokens = self._ids(text)
        if not tokens:
            raise InvalidInput(f"{param} has no tokens.", hint="Send some text.", param=param)
        if max(tokens) >= self._loaded.vocab_size:  # MLX would read whatever lies behind the embeddings
            raise CorruptModel(FOREIGN_TOKENIZER, hint="Pull the model again, or another one.", param="tokenizer.json")
        return tokens

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text.lower() if self._recipe.lower_case else text))

    def _checked(self, tokens: tuple[int, ...], param: str) -> list[int]:
        if not tokens:
            raise InvalidInput(f"{param} has no tokens.", param=param)
        bad = next((token for token in tokens if not 0 <= token < self._loaded.vocab_size), None)
        if bad is not None:
            raise InvalidInput(f"Token id {bad} is outside 0..{self._loaded.vocab_size - 1}.", param=param)
        return list(tokens)

    def _cut(self, tokens: list[int], *, marked: bool) -> list[int]:
        """The longest beginning that the model takes. marked: with the marks that it puts behind a text."""
        end = self._marks_behind() if marked else []
        return tokens[: self._loaded.longest - len(end)] + end

    def _marks_behind(self) -> list[int]:
        """What the tokenizer puts behind every text."""
        one, bare = self._ids("a"), list(self._tokenizer.encode("a", add_special_tokens=False))
        for start in range(len(one) - len(bare) + 1):
            if one[start : start + len(bare)] == bare:
                return one[start + len(bare) :]
        return []

    def _length_of(self, prompt: str) -> int:
        """Tokens of a prompt with the marks before it."""
        return len(self._ids(prompt)) - len(self._marks_behind())

    def _too_long(self, least: int, param: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"{param} has at least {least} tokens; this model takes {self._loaded.longest}.",
            hint="Cut it into shorter parts, or ask for truncate, which takes its beginning.",
            param=param,
        )
