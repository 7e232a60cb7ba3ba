"""Texts and token ids as OpenAI's fields have them: a string, strings, the ids of a text, or lists of ids. Pure."""

from __future__ import annotations

import msgspec

from squish.api.fields.limits import MAX_INT
from squish.errors import InvalidInput
from squish.generation import TextPrompt, TokenPrompt


def prompts(given: str | list[str | int | list[int]], field: str) -> list[TextPrompt | TokenPrompt]:
    """The values of a field. Raises InvalidInput naming the field, and the place in it, of what is empty or mixed."""
    if isinstance(given, str):
        return texts([given], field)
    if all(isinstance(item, int) for item in given):
        return [_tokens(given, field)]
    if all(isinstance(item, str) for item in given):
        return texts([item for item in given if isinstance(item, str)], field)
    if all(isinstance(item, list) for item in given):
        lists = [item for item in given if isinstance(item, list)]
        return [_tokens(item, f"{field}[{i}]") for i, item in enumerate(lists)]
    message = f"{field} must be a string, a list of strings, or one or more lists of token ids."
    raise InvalidInput(message, param=field)


def texts(given: list[str], field: str, *, one: bool = True) -> list[TextPrompt | TokenPrompt]:
    """The texts of a field. one: where there is a single text, the field itself is named. Raises InvalidInput."""
    if not given:
        raise InvalidInput(f"{field} must not be empty.", param=field)
    for i, text in enumerate(given):
        if not text:
            at = field if one and len(given) == 1 else f"{field}[{i}]"
            raise InvalidInput(f"{at} must not be empty.", param=at)
    return [TextPrompt(text) for text in given]


def _tokens(items: object, at: str) -> TokenPrompt:
    tokens = tuple(msgspec.convert(items, list[int]))
    if not tokens:
        raise InvalidInput(f"{at} must not be empty.", param=at)
    if not all(0 <= token <= MAX_INT for token in tokens):
        raise InvalidInput(f"{at} has numbers that are not token ids.", param=at)
    return TokenPrompt(tokens)
