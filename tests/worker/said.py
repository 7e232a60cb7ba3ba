"""A model whose weights know one answer by heart: a thought and a call, and after the call's result a sentence.

Each token of it has one successor, so that the whole way through the worker is the real one and the answer is known.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.llama import Model, ModelArgs
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from squish.models.manifest import Manifest
from squish.models.store import Store

THOUGHT, CITY, ENDING = "I look it up.", "Berlin", "It rains in Berlin."
_CALL = ("<tool_call>", '\n{"name": "weather", ', f'"arguments": {{"city": "{CITY}"}}}}', "\n", "</tool_call>")
_ASKED = ("[ask]", "<think>", "I look", " it up.", "</think>", *_CALL, "<end>")
_ANSWERED = ("[result]", "It rains", " in Berlin.", "<end>")
_SIZE = 288

TEMPLATE = """\
{%- for tool in tools or [] %}{{ tool.function.name }};{% endfor -%}
{%- for message in messages %}{{ message.role }}:
{%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}
{%- for each in message.tool_calls or [] %}{% set tool_call = each.function %}<tool_call>
{"name": "{{ tool_call.name }}", "arguments": {{ tool_call.arguments | tojson }}}
</tool_call>{% endfor %}|{% endfor -%}
{%- if add_generation_prompt %}{{ '[result]' if messages[-1].role == 'tool' else '[ask]' }}{% endif -%}
"""


def install(store: Store, id: str) -> None:
    """Put the model into a store, as a pull would."""
    tokenizer = _tokenizer()
    config: dict[str, Any] = {
        "model_type": "llama", "hidden_size": _SIZE, "num_hidden_layers": 1, "intermediate_size": 32,
        "num_attention_heads": 1, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "vocab_size": _SIZE,
        "max_position_embeddings": 2048, "tie_word_embeddings": False, "eos_token_id": tokenizer.token_to_id("<end>"),
    }  # fmt: skip
    with store.staging(id) as folder:
        mx.save_safetensors(str(folder / "model.safetensors"), _weights(config, tokenizer), {"format": "mlx"})
        tokenizer.save(str(folder / "tokenizer.json"))
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "chat_template": TEMPLATE}
        for name, value in (("config.json", config), ("tokenizer_config.json", about)):
            (folder / name).write_text(json.dumps(value), encoding="utf-8")
        now = datetime.now(UTC)
        store.commit(folder, Manifest(id, "file:/said", None, "llama", "float32", _SIZE**2 * 2, 2048, None, now))


def _tokenizer() -> Tokenizer:
    """One token a byte, and one for each piece of the answers."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    found = Tokenizer(BPE({letter: number for number, letter in enumerate(letters)}, []))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    pieces = dict.fromkeys((*_ASKED, *_ANSWERED))
    found.add_tokens([AddedToken(piece, normalized=False, special=piece == "<end>") for piece in pieces])
    return found


def _weights(config: dict[str, Any], tokenizer: Tokenizer) -> dict[str, mx.array]:
    """An embedding of one 1 a token, layers that add nothing, and a head that knows each token's successor."""
    model = Model(ModelArgs.from_dict(config))
    weights: Any = tree_map(mx.zeros_like, model.parameters())
    weights["model"]["embed_tokens"]["weight"] = mx.eye(_SIZE)
    weights["model"]["norm"]["weight"] = mx.ones(_SIZE)
    head = [[0.0] * _SIZE for _ in range(_SIZE)]
    for pieces in (_ASKED, _ANSWERED):
        ids: list[Any] = [tokenizer.token_to_id(piece) for piece in pieces]
        for before, after in pairwise(ids):
            head[after][before] = 10.0
    weights["lm_head"]["weight"] = mx.array(head)
    return dict(tree_flatten(weights))
