"""A tiny random model that reads and writes bytes, with markers for thoughts and calls, on a bench of its own."""

from __future__ import annotations

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, TokenizerWrapper
from mlx_lm.tool_parsers import json_tools
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from squish.generation import Prompt, SamplingParams
from squish.worker.prompt.encoder import PromptEncoder
from squish.worker.rows import Prepared
from squish.worker.runner import Runner
from tests.worker.test_runner import Bench, tiny_llama

MARKERS = ("<end>", "<think>", "</think>", "<tool_call>", "</tool_call>")
VOCABULARY = 256 + len(MARKERS)

TEMPLATE = """\
{%- for tool in tools or [] %}T:{{ tool.function.name }};{% endfor -%}
{%- for message in messages -%}
{{ message.role }}:{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function.name }}={{ call.function.arguments.x }}
{{- '</tool_call>' -}}
{%- endfor -%}
{%- if message.tool_call_id %}#{{ message.tool_call_id }}{% endif -%}|
{%- endfor -%}
{%- if add_generation_prompt %}A:{% if think %}<think>\n{% endif %}{% endif -%}
"""


def tokenizer(*, thinks: bool = False) -> TokenizerWrapper:
    """One token a byte, and the markers. thinks: the template opens a thought."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(BPE({letter: number for number, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<end>", special=True)])
    inner.add_tokens([AddedToken(marker, normalized=False) for marker in MARKERS[1:]])
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    fast.chat_template = TEMPLATE.replace("{% if think %}", "{% if true %}" if thinks else "{% if false %}")
    return TokenizerWrapper(
        fast,
        BPEStreamingDetokenizer,
        tool_call_start=json_tools.tool_call_start,
        tool_call_end=json_tools.tool_call_end,
        tool_parser=json_tools.parse_tool_call,
    )


class ByteBench(Bench):
    """A runner over that model, and the encoder that belongs to it."""

    def __init__(self, *, thinks: bool = False, lookup: bool = False) -> None:
        super().__init__(tiny_llama(VOCABULARY))
        self.tokenizer = tokenizer(thinks=thinks)
        self.encoder = PromptEncoder(self.tokenizer, 2048, VOCABULARY)
        self._runner = Runner(self, self.tokenizer, 2048, self.prefix, self._inbox, self._take, lookup=lookup)

    def prepare(self, request: int, prompt: Prompt, sampling: SamplingParams) -> Prepared:
        tokens, plan = self.encoder.prepare(prompt, sampling)
        return Prepared(request, [tokens], sampling, 0.0, (plan,))
