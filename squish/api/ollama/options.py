"""`options` and `format` as what the engine understands. Pure."""

from __future__ import annotations

import math
from typing import Any

from squish.api.fields import sampling as fields
from squish.api.fields.limits import MAX_INT, check_range
from squish.api.ollama.requests import CommonRequest, Number, Options
from squish.errors import InvalidInput
from squish.format import schemas
from squish.generation import ResponseFormat, SamplingParams

MOST_LOGPROBS = 20
LOOKED_BACK = 64
"""Tokens that a repeat_penalty looks back on where nothing else is said, as with Ollama."""

_SAME = ("temperature", "top_p", "min_p", "stop", "presence_penalty", "frequency_penalty")
"""Fields that SamplingParams has under the same name, where absent means its default."""

_THEIRS = {"max_tokens": "num_predict", "repetition_penalty": "repeat_penalty"}
"""What Ollama calls fields of SamplingParams."""


def sampling(request: CommonRequest) -> SamplingParams:
    """How tokens are chosen. Raises InvalidInput naming the field."""
    options = request.options or Options()
    _refuse_unsupported(options)
    given: dict[str, Any] = {name: getattr(options, name) for name in _SAME}
    given["top_k"] = None if options.top_k is None else max(0, _whole(options.top_k, "top_k"))
    given["seed"] = _seed(options.seed)
    given["response_format"] = answer_format(request.format)
    given |= _repetition(options)
    check_range(request.top_logprobs, "top_logprobs", 0, MOST_LOGPROBS)
    given["logprobs"] = bool(request.logprobs)
    given["top_logprobs"] = request.top_logprobs if request.logprobs else None
    limit = _limit(options.num_predict)
    try:
        return fields.sampling(given, limit, "num_predict", MAX_INT)
    except InvalidInput as error:
        name = error.param or ""
        field = f"options.{_THEIRS.get(name, name)}"
        message = f"{field}{error.message.removeprefix(name)}"
        raise InvalidInput(message, hint=error.hint, param=field) from None


def answer_format(asked: str | dict[str, Any] | None) -> ResponseFormat | None:
    """What the answer has to match, if anything. Ollama's grammars leave out what they do not know, and so do these."""
    if asked is None or asked == "":
        return None
    if isinstance(asked, dict):
        return schemas.answer_format(asked, "format", lenient=True)
    if asked == "json":
        return ResponseFormat("json_object", field="format")
    raise InvalidInput('format must be "json" or a JSON schema, an object.', param="format")


def _limit(asked: Number | None) -> int:
    """Ollama's clients set no limit as a rule; the engine ends at the end of the context."""
    if asked is None:
        return MAX_INT
    limit = _whole(asked, "num_predict")
    if limit < -2:
        raise InvalidInput("options.num_predict must be at least -2.", param="options.num_predict")
    return limit if limit > 0 else MAX_INT


def _seed(asked: Number | None) -> int | None:
    if asked is None or asked < 0:
        return None
    return _whole(asked, "seed", 2**63)


def _repetition(options: Options) -> dict[str, Any]:
    penalty, last = options.repeat_penalty, LOOKED_BACK
    if options.repeat_last_n is not None:
        last = _whole(options.repeat_last_n, "repeat_last_n")
        if last < -1:
            raise InvalidInput("options.repeat_last_n must be at least -1.", param="options.repeat_last_n")
    if penalty is None or last == 0:
        return {}
    if penalty != 1 and options.penalize_newline is False:
        message = "options.penalize_newline: a line break is a token like every other to repeat_penalty here."
        raise InvalidInput(message, hint="Leave it out.", param="options.penalize_newline")
    return {"repetition_penalty": penalty, "repetition_window": max(0, last)}


def _refuse_unsupported(options: Options) -> None:
    for name, neutral in (("typical_p", (0, 1)), ("tfs_z", (1,)), ("mirostat", (0,))):
        value = getattr(options, name)
        if value is not None and value not in neutral:
            message = f"options.{name} is not supported by this server."
            raise InvalidInput(message, hint="Use top_p or min_p.", param=f"options.{name}")


def _whole(value: Number, name: str, most: int = MAX_INT) -> int:
    """A number as Ollama takes it, its fraction cut off."""
    if not math.isfinite(value) or abs(value) > most:
        raise InvalidInput(f"options.{name} must be at most {most}.", param=f"options.{name}")
    return int(value)
