"""Structured output: which tokens a grammar allows next.

A grammar is compiled in the tokenizer thread, where an invalid one is refused before anything runs; the MLX thread
follows copies of it, one a row. While a model thinks the grammar waits. It knows nothing of logits.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from squish.errors import InvalidInput
from squish.generation import ResponseFormat

_REMEMBERED = 32
_COMPACT = {"whitespace_flexible": False}


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a model thinks before a grammar holds. inside: the prompt ends while it thinks. start: what opens a thought,
    if it may open one; end: what closes it. Both are token ids."""

    inside: bool
    start: tuple[int, ...]
    end: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A compiled grammar: a matcher at its beginning, not to be moved, the request's field, and what goes before."""

    matcher: LLMatcher
    field: str
    thinking: Thinking | None = None


class GrammarCompiler:
    """Compiles for one model. tokenizer: mlx_lm's TokenizerWrapper. It belongs to the tokenizer thread."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tables: LLTokenizer | None = None
        self._known: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()

    def compile(self, wanted: ResponseFormat, thinking: Thinking | None = None) -> Grammar:
        """Raises InvalidInput naming the field for a grammar that cannot be used."""
        key = (wanted.kind, wanted.text)
        if key not in self._known or _dead_end(self._known[key]):
            self._known[key] = self._compiled(wanted)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return Grammar(self._known[key], wanted.field, thinking)

    def _compiled(self, wanted: ResponseFormat) -> LLMatcher:
        try:
            matcher = LLMatcher(self._vocabulary(wanted), _source(wanted), log_level=0)
            # Copies share a lexer: what the first look fills up is found full by the second.
            reason = _why(matcher) if matcher.is_error() else _dead_end(matcher) or _dead_end(matcher)
        except ValueError as error:
            reason = _line(str(error))
        if reason:
            raise InvalidInput(f"The {_NAMES[wanted.kind]} cannot be used: {reason}", param=wanted.field)
        return matcher

    def _vocabulary(self, wanted: ResponseFormat) -> LLTokenizer:
        """The tables of the model's tokens. They take a second to make, so they are made when first needed."""
        if self._tables is None:
            ends = sorted(self._tokenizer.eos_token_ids)
            try:
                self._tables = LLTokenizer(self._as_json(), eos_token=ends or None)
            except (ValueError, AttributeError) as error:
                message = f"This model's tokenizer cannot be held to a format: {error}"
                raise InvalidInput(message, param=wanted.field) from error
        return self._tables

    def _as_json(self) -> str:
        """The tokenizer as the `tokenizers` library writes it. Raises AttributeError for one of another library."""
        backend = copy.copy(self._tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.no_truncation()
        text: str = backend.to_str()
        return text


class GrammarState:
    """Where one row is in its grammar. Tokens are taken in the order in which they are generated."""

    def __init__(self, grammar: Grammar, eos: frozenset[int]) -> None:
        self._matcher = grammar.matcher.deep_copy()
        self._field = grammar.field
        self._eos = eos
        self._thinking = grammar.thinking
        self._begun = False
        self._thought: list[int] | None = [] if grammar.thinking and grammar.thinking.inside else None

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing can follow."""
        return bool(self._matcher.is_stopped())

    @property
    def thinks(self) -> bool:
        """Whether anything but an end is allowed now, because the grammar does not hold yet."""
        return self._thought is not None

    def take(self, token: int) -> None:
        """Go on by one token. Raises InvalidInput where the grammar cannot follow: it grew beyond its limits."""
        if self._thought is not None:
            assert self._thinking
            self._thought.append(token)
            if tuple(self._thought[-len(self._thinking.end) :]) == self._thinking.end:
                self._thought = None
            return
        if not self._begun and self._thinking and token in self._thinking.start[:1]:
            self._begun, self._thought = True, []
            return
        self._begun = True
        if token in self._eos and (self._matcher.is_stopped() or self._matcher.is_accepting()):
            return
        if not self._matcher.consume_token(token):
            raise InvalidInput(f"The answer cannot be held to its format: {_why(self._matcher)}", param=self._field)

    def allowed(self, size: int) -> np.ndarray:
        """(size,) bool: the tokens that may come next, at least one. Raises InvalidInput when the grammar gave up."""
        packed: bytes = self._matcher.compute_bitmask()
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")[:size].astype(bool)
        allowed = bits if len(bits) == size else np.pad(bits, (0, size - len(bits)))
        if self._matcher.is_error() or not allowed.any():
            reason = _why(self._matcher) or _NOTHING
            raise InvalidInput(f"The answer cannot be held to its format: {reason}", param=self._field)
        if not self._begun and self._thinking:
            allowed[list(self._thinking.start[:1])] = True
        return allowed


def _dead_end(matcher: LLMatcher) -> str:
    """Why nothing can be the first token, or "". Some grammars compile that allow nothing: {"$ref": "#"}, [^\\s\\S]."""
    beginning = matcher.deep_copy()
    allowed: bytes = beginning.compute_bitmask()
    if beginning.is_error():
        return _why(beginning)
    return "" if any(allowed) else _NOTHING


def _why(matcher: LLMatcher) -> str:
    """What a matcher says is wrong, without the dump of its state that follows."""
    return _line(matcher.get_error().partition("<state>")[0]).replace("NoExtensionBias", _NOTHING)


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


_NOTHING = "nothing at all fits it"
_NAMES = {"json_object": "format", "json_schema": "JSON schema", "regex": "regular expression", "lark": "grammar"}


def _source(wanted: ResponseFormat) -> str:
    match wanted.kind:
        case "json_object":
            return str(LLMatcher.grammar_from_json_schema('{"type": "object"}', overrides=_COMPACT))
        case "json_schema":
            return str(LLMatcher.grammar_from_json_schema(wanted.text, overrides=_COMPACT))
        case "regex":
            return str(LLMatcher.grammar_from_regex(wanted.text))
        case "lark":
            return str(LLMatcher.grammar_from_lark(wanted.text))
