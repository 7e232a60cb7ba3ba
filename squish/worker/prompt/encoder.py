"""From a prompt to token ids: chat template, tokenization, and the checks that belong to them.

It runs in the tokenizer threads; it knows nothing of batches or caches.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from msgspec.structs import replace

from squish.errors import ContextLengthExceeded, CorruptModel, InvalidInput
from squish.generation import ChatPrompt, Message, Prompt, ResponseFormat, SamplingParams, TextPrompt, TokenPrompt
from squish.worker.output.markers import edges_of
from squish.worker.output.row_output import Reading
from squish.worker.prompt import template, tools
from squish.worker.rows import OutputPlan
from squish.worker.structured.grammar import GrammarCompiler, Thinking

FOREIGN_TOKENIZER = "The tokenizer makes tokens that this model does not have."

_CHARACTERS = 16  # of a token, at the most in most texts
_SLICE = 16_384  # characters
_CUT = 16  # tokens that a slice may have more than its part of the whole text

Proceed = Callable[[], None]


def _always() -> None:
    """Nobody can call this off."""


class PromptEncoder:
    """Encodes prompts for one model.

    tokenizer: mlx_lm's TokenizerWrapper. context_length in tokens. vocab_size: rows of the model's embedding.
    snapshots: its caches cannot be trimmed, so the runner wants to know where prompts part.
    """

    def __init__(self, tokenizer: Any, context_length: int, vocab_size: int, *, snapshots: bool = False) -> None:
        self._snapshots = snapshots
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._vocab_size = vocab_size
        self._grammars = GrammarCompiler(tokenizer)

    def prepare(
        self, prompt: Prompt, sampling: SamplingParams, proceed: Proceed = _always
    ) -> tuple[list[int], OutputPlan]:
        """Token ids, and how the answer is to be read and shaped. Raises InvalidInput and ContextLengthExceeded.

        proceed: called between slices of a text that may be too long; what it raises calls everything off.
        """
        for token, _ in sampling.logit_bias:
            if token >= self._vocab_size:
                message = f"Token id {token} is outside 0..{self._vocab_size - 1}."
                raise InvalidInput(message, param="logit_bias")
        tokens = self.encode(prompt, proceed, sampling.context_in(self._context_length))
        wanted = sampling.response_format
        if not isinstance(prompt, ChatPrompt):
            return tokens, OutputPlan(grammar=self._grammars.compile(wanted) if wanted else None, continues=True)
        return tokens, self._plan(prompt, tokens, wanted)

    def _plan(self, prompt: ChatPrompt, tokens: list[int], wanted: ResponseFormat | None) -> OutputPlan:
        offered = tools.offered(prompt, self._tokenizer)
        notes: tuple[str, ...] = ()
        if offered:
            wanted, notes = tools.grammar_with_tools(prompt, self._tokenizer, wanted, self._grammars.hold)
        thinking = self._thinking(prompt, tokens)
        edges = edges_of(self._tokenizer, tools=bool(offered))
        reading = Reading(
            edges,
            "reasoning" if thinking and thinking.inside else "normal",
            self._tokenizer.tool_parser if offered else None,
            tools.for_template(offered),
        )
        grammar = self._grammars.compile(wanted, thinking, notes) if wanted else None
        return OutputPlan(reading if edges else None, grammar, prompt.continue_last, self._shared(prompt, tokens))

    def _shared(self, prompt: ChatPrompt, tokens: list[int]) -> int:
        """How many tokens another conversation with the same system prompt and tools begins with."""
        if not self._snapshots or prompt.messages[0].role != "system" or len(prompt.messages) < 2:
            return 0
        other = replace(prompt, messages=(prompt.messages[0], Message("user", "")), continue_last=False)
        try:
            return sum(
                1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(tokens, self._tokens(other), strict=False))
            )
        except InvalidInput:  # a template that takes no empty message
            return 0

    def _thinking(self, prompt: ChatPrompt, tokens: list[int]) -> Thinking | None:
        """How the model thinks after this prompt; None when it does not, or has done so already."""
        if not self._tokenizer.has_thinking:
            return None
        start, end = self._tokenizer.think_start_tokens, self._tokenizer.think_end_tokens
        if self._ends_with(tokens, self._tokenizer.rfind_think_start(tokens), start) or _left_open(
            prompt, self._tokenizer.think_start, self._tokenizer.think_end
        ):
            return Thinking(True, (), end)
        if prompt.continue_last or self._ends_with(tokens, self._tokenizer.rfind_think_end(tokens), end):
            return None
        return Thinking(False, start, end)

    def _ends_with(self, tokens: list[int], at: int, marker: tuple[int, ...]) -> bool:
        """Whether only white space follows the marker at this place. One in a message has more behind it."""
        return at >= 0 and not self._tokenizer.decode(tokens[at + len(marker) :]).strip()

    def encode(self, prompt: Prompt, proceed: Proceed = _always, context: int | None = None) -> list[int]:
        """Token ids, at least one and fewer than the context, all known to the model.

        context: tokens that a request limits itself to; None is what the model holds.
        Raises InvalidInput, ContextLengthExceeded, and CorruptModel for a tokenizer that is another model's.
        """
        param = "messages" if isinstance(prompt, ChatPrompt) else "prompt"
        context = context or self._context_length
        text = self._text(prompt)
        if text is not None and len(text) > context * _CHARACTERS:
            self._refuse_too_long(text, param, proceed, context)
        tokens = self._ids(prompt, text)
        if not tokens:
            raise InvalidInput("The prompt has no tokens.", hint="Send some text.", param=param)
        if len(tokens) >= context:
            raise self._too_long(len(tokens), param, context)
        if max(tokens) >= self._vocab_size:  # MLX would read whatever lies behind the embeddings
            raise CorruptModel(FOREIGN_TOKENIZER, hint="Pull the model again, or another one.", param="tokenizer.json")
        return tokens

    def _refuse_too_long(self, text: str, param: str, proceed: Proceed, context: int) -> None:
        """Raises ContextLengthExceeded as soon as so many tokens are sure. A whole text can take minutes to be read."""
        least, size = 0, min(_SLICE, context * _CHARACTERS)
        for start in range(0, len(text), size):
            proceed()
            tokens = self._tokenizer.encode(text[start : start + size], add_special_tokens=False)
            least += max(len(tokens) - (_CUT if start else 0), 0)
            if least >= context:
                raise self._too_long(least, param, context)

    def _too_long(self, least: int, param: str, context: int) -> ContextLengthExceeded:
        own = context < self._context_length
        holds = "the context limit of this request is" if own else "this model's context holds"
        return ContextLengthExceeded(
            f"The prompt has at least {least} tokens; {holds} {context}, and at least one must be left for the answer.",
            hint=f"Shorten the prompt or the conversation{', or raise the limit' if own else ''}.",
            param=param,
        )

    def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt, however many. Raises InvalidInput for one that is not a prompt."""
        return len(self._tokens(prompt))

    def require_holdable(self, wanted: ResponseFormat) -> None:
        """Raises InvalidInput for a format that no answer can be held to. What is compiled for it is kept."""
        self._grammars.compile(wanted)

    def _tokens(self, prompt: Prompt) -> list[int]:
        return self._ids(prompt, self._text(prompt))

    def _text(self, prompt: Prompt) -> str | None:
        """What is tokenized; None where the client did that."""
        match prompt:
            case ChatPrompt():
                return template.render(self._tokenizer, prompt)
            case TextPrompt(text=text):
                return text
            case TokenPrompt():
                return None

    def _ids(self, prompt: Prompt, text: str | None) -> list[int]:
        if isinstance(prompt, TokenPrompt):
            return self._checked(prompt.tokens)
        return list(self._tokenizer.encode(text, add_special_tokens=isinstance(prompt, TextPrompt)))

    def _checked(self, tokens: tuple[int, ...]) -> list[int]:
        bad = next((token for token in tokens if not 0 <= token < self._vocab_size), None)
        if bad is not None:
            raise InvalidInput(f"Token id {bad} is outside 0..{self._vocab_size - 1}.", param="prompt")
        return list(tokens)


def _left_open(prompt: ChatPrompt, start: str, end: str) -> bool:
    """Whether the answer that is to be continued breaks off in a thought."""
    if not prompt.continue_last or not prompt.messages:
        return False
    text = prompt.messages[-1].content
    return text.rfind(start) > text.rfind(end)
