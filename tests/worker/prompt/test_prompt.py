"""From prompts to tokens: what the model's template and tokenizer make of them, on a tokenizer of whole words."""

from __future__ import annotations

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from squish.errors import ContextLengthExceeded, CorruptModel, InvalidInput
from squish.generation import ChatPrompt, Message, SamplingParams, TextPrompt, TokenPrompt
from squish.worker.prompt.encoder import PromptEncoder

WORDS = "<s> </s> system user assistant be brief and kind hello there bye".split()  # noqa: SIM905 - reads as a sentence
TEMPLATE = """{%- for m in messages -%}
{%- if not m.content and m.role == 'assistant' -%}{{ raise_exception('an empty answer') }}{%- endif -%}
{{ '<s> ' + m.role + ' ' + m.content + ' </s> ' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<s> assistant ' }}{%- endif -%}"""


def encoder_of(vocab_size: int) -> PromptEncoder:
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="bye"))
    words.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", chat_template=TEMPLATE)
    return PromptEncoder(TokenizerWrapper(fast), context_length=20, vocab_size=vocab_size, snapshots=True)


@pytest.fixture
def encoder() -> PromptEncoder:
    return encoder_of(len(WORDS))


def chat(*turns: tuple[str, str], continue_last: bool = False) -> ChatPrompt:
    messages = tuple(Message(role, content) for role, content in turns)  # type: ignore[arg-type]
    return ChatPrompt(messages, continue_last)


def test_what_conversations_with_one_system_prompt_share_ends_where_they_part(encoder: PromptEncoder) -> None:
    tokens, plan = encoder.prepare(chat(("system", "be brief and kind"), ("user", "hello there")), SamplingParams())
    assert " ".join(WORDS[token] for token in tokens[: plan.shared]) == "<s> system be brief and kind </s> <s> user"
    _, alone = encoder.prepare(chat(("user", "hello")), SamplingParams())
    assert alone.shared == 0


def test_an_answer_that_goes_on_is_not_closed(encoder: PromptEncoder) -> None:
    tokens, plan = encoder.prepare(
        chat(("user", "hello"), ("assistant", "hello there"), continue_last=True), SamplingParams()
    )
    assert [WORDS[token] for token in tokens[-2:]] == ["hello", "there"]
    assert plan.continues


def test_what_the_template_or_the_context_does_not_take_is_refused(encoder: PromptEncoder) -> None:
    with pytest.raises(InvalidInput, match="an empty answer"):
        encoder.encode(chat(("user", "hello"), ("assistant", "")))
    with pytest.raises(ContextLengthExceeded, match="20"):
        encoder.encode(TextPrompt("hello " * 20))
    with pytest.raises(InvalidInput, match="12"):
        encoder.encode(TokenPrompt((12,)))
    with pytest.raises(InvalidInput, match="no tokens"):
        encoder.encode(TextPrompt(" "))


def test_a_request_can_limit_its_context_further_than_the_model(encoder: PromptEncoder) -> None:
    prompt = TextPrompt("hello " * 9)
    tokens, _ = encoder.prepare(prompt, SamplingParams(context=10))
    assert len(tokens) == 9
    for text in (prompt, TextPrompt("hello " * 100_000)):
        with pytest.raises(ContextLengthExceeded, match="the context limit of this request is 9, and at least one"):
            encoder.prepare(text, SamplingParams(context=9))
    with pytest.raises(ContextLengthExceeded, match="this model's context holds 20"):
        encoder.prepare(TextPrompt("hello " * 20), SamplingParams(context=5000))
    with pytest.raises(InvalidInput, match="between 2"):
        SamplingParams(context=1)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    encoder = encoder_of(len(WORDS) - 1)
    assert encoder.encode(TextPrompt("hello there"))
    with pytest.raises(CorruptModel, match="tokens that this model does not have"):
        encoder.encode(TextPrompt("hello bye"))


def test_of_a_prompt_that_is_far_too_long_only_the_beginning_is_read(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = PreTrainedTokenizerFast.encode

    def counted(self: PreTrainedTokenizerFast, text: str, **options: bool) -> list[int]:
        read.append(len(text))
        return list(original(self, text, **options))

    monkeypatch.setattr(PreTrainedTokenizerFast, "encode", counted)
    for prompt in (TextPrompt("hello " * 100_000), chat(("user", "hello " * 100_000))):
        with pytest.raises(ContextLengthExceeded, match="at least"):
            encoder.encode(prompt)
    assert sum(read) < 1000
    assert encoder.count(TextPrompt("hello " * 100_000)) == 100_000
