"""A tokenizer of the `tokenizers` library with the part of transformers' interface that mlx-lm and the worker use."""

from __future__ import annotations

from typing import Any

import tokenizers

from squish.worker.tokenizer.facts import TokenizerFacts
from squish.worker.tokenizer.templates import Templates

_SPACES = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"))
_SHORT = (" n't", " 'm", " 's", " 've", " 're")


class DirectTokenizer:
    """Does what transformers' tokenizer does of which these facts were taken."""

    def __init__(self, facts: TokenizerFacts) -> None:
        self.backend_tokenizer = tokenizers.Tokenizer.from_str(facts.backend)
        self.backend_tokenizer.encode_special_tokens = facts.split_special_tokens
        self.chat_template = facts.chat_template
        self.eos_token_id = facts.special_ids.get("eos_token")
        self.bos_token_id = facts.special_ids.get("bos_token")
        self._special = facts.special_tokens
        self._clean_up = facts.clean_up
        self._templates = Templates()
        self._vocabulary: dict[str, int] | None = None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        # A batch of one, because only for batches other threads go on meanwhile.
        [encoding] = self.backend_tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        return ids

    def decode(self, ids: int | list[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        wanted = [ids] if isinstance(ids, int) else list(ids)
        text: str = self.backend_tokenizer.decode(wanted, skip_special_tokens=skip_special_tokens)
        if self._clean_up:
            for before, after in _SPACES:
                text = text.replace(before, after)
            for short in _SHORT:
                text = text.replace(short, short[1:])
        return text

    def convert_ids_to_tokens(self, ids: int | list[int]) -> Any:
        """The tokens as the vocabulary spells them; None for ids that it lacks."""
        to_token = self.backend_tokenizer.id_to_token
        if isinstance(ids, int):
            return to_token(ids)
        vocabulary = self.get_vocab() if len(ids) >= len(self) else {}
        tokens = dict(zip(vocabulary.values(), vocabulary, strict=True))
        # Of two tokens with one id the library knows which it means; else to turn the vocabulary around is quicker.
        every = tokens.get if tokens and len(tokens) == len(vocabulary) else to_token
        return [every(each) for each in ids]

    def get_vocab(self) -> dict[str, int]:
        """Every token, the added ones too, with its id. Not to be changed."""
        if self._vocabulary is None:
            self._vocabulary = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return self._vocabulary

    def forget_vocabulary(self) -> None:
        """Give back the memory of `get_vocab`, which mlx-lm calls several times while a tokenizer is opened."""
        self._vocabulary = None

    def __len__(self) -> int:
        size: int = self.backend_tokenizer.get_vocab_size(with_added_tokens=True)
        return size

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, tokenize: bool = True, return_dict: bool = False, **kwargs: Any
    ) -> Any:
        """A conversation in the model's own words, as text or as token ids.

        Raises ValueError for a conversation that the template cannot show, and jinja2's TemplateError.
        """
        assert not return_dict
        text = self._templates.render(self.chat_template, conversation, self._special, **kwargs)
        return self.encode(text, add_special_tokens=False) if tokenize else text
