"""The tokens in a GGUF file: their texts, kinds, scores and merges, each checked. It builds no tokenizer."""

from __future__ import annotations

import math

from squish.worker.gguf.file import GgufHeader

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
TOKENS, TYPES, SCORES, MERGES = (f"tokenizer.ggml.{key}" for key in ("tokens", "token_type", "scores", "merges"))


def token_types(header: GgufHeader, count: int) -> list[int]:
    types = header.integers(TYPES)
    if len(types) != count:
        raise header.corrupt(f"it has {count} tokens but {len(types)} token types")
    return types


def numbered(header: GgufHeader, tokens: list[str]) -> dict[str, int]:
    """Each token's id."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or not tokens:
        raise header.corrupt("its vocabulary is empty or has the same token twice")
    return vocabulary


def scores(header: GgufHeader, count: int) -> list[float]:
    found = header.metadata.get(SCORES)
    numbers = [float(each) for each in found if isinstance(each, int | float)] if isinstance(found, list) else []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise header.corrupt(f"it has {count} tokens but {len(numbers)} usable scores")
    return numbers


def merges(header: GgufHeader, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges that the file lists."""
    found: list[tuple[str, str]] = []
    for merge in header.strings(MERGES):
        # Byte-level tokens hold no space, so the first one after the first character divides the pair.
        at = merge.find(" ", 1)
        left, right = merge[:at], merge[at + 1 :]
        if at < 0 or left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise header.corrupt(f"its merge {merge!r} does not fit its vocabulary")
        found.append((left, right))
    return found


def merges_by_score(tokens: list[str], types: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """The merges that SentencePiece's scores mean: every pair of tokens that makes a third, the best one first."""
    mergeable = {token: i for i, token in enumerate(tokens) if types[i] in (NORMAL, USER_DEFINED, UNUSED)}
    found = []
    for token, i in mergeable.items():
        for at in range(1, len(token)):
            left, right = mergeable.get(token[:at]), mergeable.get(token[at:])
            if left is not None and right is not None:
                found.append((-scores[i], i, left, right))
    found.sort()
    return [(tokens[left], tokens[right]) for _, _, left, right in found]
