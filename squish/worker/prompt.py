"""From a prompt to token ids: chat template, tokenization, and the checks that belong to them.

It runs in the tokenizer thread and owns the tokenizer there; it knows nothing of batches or caches.
"""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from squish.errors import ContextLengthExceeded, InvalidInput
from squish.generation import ChatPrompt, Prompt, TextPrompt, TokenPrompt


class PromptEncoder:
    """Encodes prompts for one model.

    tokenizer: mlx_lm's TokenizerWrapper. context_length in tokens. vocab_size: rows of the model's embedding.
    """

    def __init__(self, tokenizer: Any, context_length: int, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._vocab_size = vocab_size

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids, at least one and fewer than the context. Raises InvalidInput and ContextLengthExceeded."""
        match prompt:
            case ChatPrompt():
                tokens = self._chat(prompt)
                param = "messages"
            case TextPrompt(text=text):
                tokens = list(self._tokenizer.encode(text))
                param = "prompt"
            case TokenPrompt(tokens=ids):
                tokens = self._checked(ids)
                param = "prompt"
        if not tokens:
            raise InvalidInput("The prompt has no tokens.", hint="Send some text.", param=param)
        if len(tokens) >= self._context_length:
            raise ContextLengthExceeded(
                f"The prompt has {len(tokens)} tokens; this model's context holds {self._context_length}, "
                "and at least one must be left for the answer.",
                hint="Shorten the prompt or the conversation.",
                param=param,
            )
        return tokens

    def _chat(self, prompt: ChatPrompt) -> list[int]:
        if not prompt.messages:
            raise InvalidInput("The conversation has no messages.", param="messages")
        if not self._tokenizer.has_chat_template:
            raise InvalidInput(
                "This model has no chat template: it continues text and does not chat.",
                hint="Use an instruct model, or POST /v1/completions.",
                param="messages",
            )
        extra: dict[str, Any] = {} if prompt.thinking is None else {"enable_thinking": prompt.thinking}
        try:
            tokens = self._tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in prompt.messages],
                tokenize=True,
                return_dict=False,
                add_generation_prompt=not prompt.continue_last,
                continue_final_message=prompt.continue_last,
                **extra,
            )
        except (TemplateError, ValueError) as error:
            raise InvalidInput(
                f"The model's chat template refuses this conversation: {error}.", param="messages"
            ) from error
        return list(tokens)

    def _checked(self, tokens: tuple[int, ...]) -> list[int]:
        bad = next((token for token in tokens if not 0 <= token < self._vocab_size), None)
        if bad is not None:
            raise InvalidInput(f"Token id {bad} is outside 0..{self._vocab_size - 1}.", param="prompt")
        return list(tokens)
