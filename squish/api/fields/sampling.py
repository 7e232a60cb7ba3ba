"""How tokens are chosen, as clients write it, as SamplingParams. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from squish.api.fields.limits import MAX_INT, check_range
from squish.generation import SamplingParams


def sampling(given: Mapping[str, Any], limit: int | None, limit_field: str, default: int) -> SamplingParams:
    """given: fields of SamplingParams; None is absent, and stop can be one text. limit: the longest answer, in tokens.

    -1 as a limit is as many as the context holds; as top_k it is off, as 0 is. Raises InvalidInput naming the field.
    """
    if limit == -1:
        limit = MAX_INT  # the engine ends at the end of the context
    check_range(limit, limit_field, 1, note="; -1 is as many as the context holds")
    check_range(given.get("top_k"), "top_k", -1)
    bias, stop = given.get("logit_bias") or {}, given.get("stop") or ()
    for token in bias:
        check_range(token, "logit_bias")
    values = dict(given) | {
        "max_tokens": default if limit is None else limit,
        "logit_bias": tuple(bias.items()),
        "stop": tuple(filter(None, [stop] if isinstance(stop, str) else stop)),
    }
    if values.get("top_k") == -1:
        values["top_k"] = 0
    return msgspec.structs.replace(SamplingParams(), **{k: v for k, v in values.items() if v is not None})
