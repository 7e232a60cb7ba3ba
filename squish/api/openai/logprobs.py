"""Log-probabilities in the two shapes that OpenAI has for them. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from squish.api.openai.responses import ChatLogprobs, ContentLogprob, TextLogprobs, TopLogprob
from squish.generation import TokenLogprob


def of_chat(tokens: Sequence[TokenLogprob]) -> ChatLogprobs | None:
    """None where nobody asked for them."""
    if not tokens:
        return None
    return ChatLogprobs(
        [
            ContentLogprob(
                each.token,
                each.logprob,
                list(each.bytes),
                [TopLogprob(other.token, other.logprob, list(other.bytes)) for other in each.top],
            )
            for each in tokens
        ]
    )


def of_text(tokens: Sequence[TokenLogprob], offset: int) -> TextLogprobs | None:
    """offset: characters of the choice before the first of these tokens, which begins a character."""
    if not tokens:
        return None
    offsets = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for each in tokens:
        offsets.append(offset)
        offset += len(decoder.decode(each.bytes))
    return TextLogprobs(
        [each.token for each in tokens],
        [each.logprob for each in tokens],
        [{other.token: other.logprob for other in each.top} for each in tokens],
        offsets,
    )
