"""Whether two models mean the same by the same token ids, without which one cannot guess for the other."""

from __future__ import annotations

from typing import Any

from squish.errors import ConfigError

_SHOWN = 40  # characters of a token in a message


def require_same_tokens(tokenizer: Any, draft: Any, name: str, draft_name: str) -> None:
    """tokenizer, draft: mlx_lm's TokenizerWrapper of each. Raises ConfigError naming the first difference."""
    own, other = _table(tokenizer), _table(draft)
    difference = ""
    if differing := [number for number in own.keys() | other.keys() if own.get(number) != other.get(number)]:
        token = min(differing)
        theirs, ours = _shown(other.get(token)), _shown(own.get(token))
        difference = f"{len(differing):,} do; {token} is {theirs} there and {ours} here"
    elif (ends := set(tokenizer.eos_token_ids)) != set(draft.eos_token_ids) and ends.isdisjoint(draft.eos_token_ids):
        # Ends are never guessed, but a model with other ends was taught another form of conversation.
        difference = "other ones end an answer"
    if difference:
        raise ConfigError(
            f"{draft_name} cannot guess for {name}, because their tokens differ: {difference}.",
            hint="Take a smaller one of its family, or a more compressed copy: --draft, or [draft] in config.toml.",
            param="draft",
        )


def _table(tokenizer: Any) -> dict[int, str]:
    """The text of each token id, special tokens included."""
    return {number: token for token, number in tokenizer.get_vocab().items()}


def _shown(token: str | None) -> str:
    return "missing" if token is None else repr(token[:_SHOWN])
