"""Structured output: which tokens a grammar allows next.

A grammar is compiled in the tokenizer thread, where an invalid one is refused before anything runs; the MLX thread
follows copies of it, one a row. While a model thinks the grammar waits. It knows nothing of logits.
"""

from __future__ import annotations

import copy
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from squish.errors import InvalidInput
from squish.generation import ResponseFormat
from squish.worker.structured.blame import blamed
from squish.worker.structured.schema import Holdable, Unheld

_REMEMBERED = 32
_REMEMBERED_SCHEMAS = 256  # more than one request can have tools
_COMPACT = {"whitespace_flexible": False}
_LENIENT = "With strict: false, what cannot be held to is left out."


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a model thinks before a grammar holds. inside: the prompt ends while it thinks. start: what opens a thought,
    if it may open one; end: what closes it. Both are token ids."""

    inside: bool
    start: tuple[int, ...]
    end: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A compiled grammar: a matcher at its beginning, not to be moved, the request's field, and what goes before.

    notes: places of a schema that the answer is not held to, because the request allows that.
    """

    matcher: LLMatcher
    field: str
    thinking: Thinking | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A schema that the engine takes. options: of the engine, for it; notes: places that it does not hold to."""

    schema: Mapping[str, Any]
    options: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def text(self, options: Mapping[str, Any]) -> str:
        """As JSON, with further options."""
        return json.dumps({**self.schema, "x-guidance": {**self.options, **options}})


class GrammarCompiler:
    """Compiles for one model. tokenizer: mlx_lm's TokenizerWrapper. It belongs to the tokenizer threads."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tables: LLTokenizer | None = None
        self._known: OrderedDict[tuple[str, str, bool], tuple[LLMatcher, tuple[str, ...]]] = OrderedDict()
        self._held: OrderedDict[tuple[str, bool], Held] = OrderedDict()
        self._compiling = threading.RLock()

    def compile(self, wanted: ResponseFormat, thinking: Thinking | None = None, notes: tuple[str, ...] = ()) -> Grammar:
        """notes: of the parts that it was put together from. Raises InvalidInput naming the field for a grammar that
        cannot be used."""
        key = (wanted.kind, wanted.text, wanted.lenient)
        with self._compiling:
            if key not in self._known or _dead_end(self._known[key][0]):
                self._known[key] = self._compiled(wanted)
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            matcher, own = self._known[key]
        return Grammar(matcher, wanted.field, thinking, notes + own)

    def hold(self, wanted: ResponseFormat) -> Held:
        """What an answer is held to for a JSON schema. Raises InvalidInput for what cannot be held, with its place."""
        key = (wanted.text, wanted.lenient)
        with self._compiling:
            if key not in self._held:
                self._held[key] = self._hold(wanted)
                if len(self._held) > _REMEMBERED_SCHEMAS:
                    self._held.popitem(last=False)
            self._held.move_to_end(key)
            return self._held[key]

    def _hold(self, wanted: ResponseFormat) -> Held:
        try:
            schema = json.loads(wanted.text)
        except (ValueError, RecursionError):
            schema = None
        if not isinstance(schema, dict):
            raise _unusable(wanted, "it must be a schema, an object.")
        self._vocabulary(wanted)
        holdable = Holdable(schema, self._why_not, lenient=wanted.lenient)
        try:
            held = Held(holdable.rewritten(), {}, tuple(holdable.notes))
        except Unheld as error:
            raise _unusable(wanted, _line(str(error)), hint=None if wanted.lenient else _LENIENT) from None
        if not (reason := self._why_not(held.schema)):
            return held
        lenient = {"lenient": True}  # the engine's own leniency, where it has one
        if wanted.lenient and not self._why_not({**held.schema, "x-guidance": lenient}):
            return Held(held.schema, lenient, (*held.notes, reason))
        definitions = {key: held.schema[key] for key in ("$defs", "definitions") if key in held.schema}
        place = blamed(held.schema, self._why_not, definitions)
        raise _unusable(wanted, f"{place}: {reason}" if place else reason)

    def _why_not(self, schema: Mapping[str, Any]) -> str:
        """Why no answer can be held to a schema; "" when one can."""
        try:
            source = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_COMPACT)
            return _fault(LLMatcher(self._tables, source, log_level=0))
        except ValueError as error:
            return _line(str(error))

    def _compiled(self, wanted: ResponseFormat) -> tuple[LLMatcher, tuple[str, ...]]:
        held = self.hold(wanted) if wanted.kind == "json_schema" else None
        try:
            matcher = LLMatcher(self._vocabulary(wanted), _source(wanted, held), log_level=0)
            reason = _fault(matcher)
        except ValueError as error:
            reason = _line(str(error))
        if reason:
            raise _unusable(wanted, reason)
        return matcher, held.notes if held else ()

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


def _fault(matcher: LLMatcher) -> str:
    """Why a matcher cannot be used, or "". Copies share a lexer: what the first look fills up the second finds full."""
    return _why(matcher) if matcher.is_error() else _dead_end(matcher) or _dead_end(matcher)


def _dead_end(matcher: LLMatcher) -> str:
    """Why nothing can be the first token, or "". Some grammars compile that allow nothing: {"$ref": "#"}, [^\\s\\S]."""
    beginning = matcher.deep_copy()
    allowed: bytes = beginning.compute_bitmask()
    if beginning.is_error():
        return _why(beginning)
    return "" if any(allowed) else _NOTHING


def _why(matcher: LLMatcher) -> str:
    """What a matcher says is wrong, without the dump that follows."""
    said = matcher.get_error().partition("<state>")[0].partition("<backtrace>")[0]
    for its_words, ours in _ITS_WORDS.items():
        said = said.replace(its_words, ours)
    return _line(said)


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


_NOTHING = "nothing at all fits it"
_ITS_WORDS = {
    "NoExtensionBias": _NOTHING,
    "panic: assertion failed: grammar.symbols.len() < u16::MAX as usize - 10": "it is too large.",
}
"""What llguidance says, and what it means."""
_NAMES = {"json_object": "format", "json_schema": "JSON schema", "regex": "regular expression", "lark": "grammar"}


def _unusable(wanted: ResponseFormat, reason: str, hint: str | None = None) -> InvalidInput:
    return InvalidInput(f"The {_NAMES[wanted.kind]} cannot be used: {reason}", hint=hint, param=wanted.field)


def _source(wanted: ResponseFormat, held: Held | None) -> str:
    if held is not None:
        return str(LLMatcher.grammar_from_json_schema(held.text({}), overrides=_COMPACT))
    match wanted.kind:
        case "regex":
            return str(LLMatcher.grammar_from_regex(wanted.text))
        case "lark":
            return str(LLMatcher.grammar_from_lark(wanted.text))
        case _:
            return str(LLMatcher.grammar_from_json_schema('{"type": "object"}', overrides=_COMPACT))
