"""Opens a model's tokenizer: directly where what transformers made of it is known, else with transformers.

Which class transformers takes, what it adds to tokenizer.json and what it replaces is its own business, and differs
from model to model. So it opens each tokenizer once; what came out is written down and compared, and later workers go
by that. A tokenizer for which the comparison fails is opened with transformers each time.
"""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path
from typing import Any

from squish.worker.model.imports import with_transformers
from squish.worker.tokenizer.direct import DirectTokenizer
from squish.worker.tokenizer.facts import Shelf, TokenizerFacts, key_of
from squish.worker.tokenizer.proof import same_behavior, same_methods

_GENERAL = ("PreTrainedTokenizerFast", "TokenizersBackend")
_DETOKENIZERS = ("NaiveStreamingDetokenizer", "SPMStreamingDetokenizer", "BPEStreamingDetokenizer")


def open_tokenizer(model: Path, eos: list[int] | None, shelf: Shelf | None = None) -> Any:
    """mlx_lm's TokenizerWrapper for the tokenizer in this directory. It never runs code that a model brings.

    eos: the ids that end a text, by config.json. shelf: where facts are kept; without one transformers opens it.
    Raises whatever transformers and the `tokenizers` library raise.
    """
    if shelf is None:
        return _opened_by_transformers(model, eos)
    key = key_of(model, eos)
    facts = shelf.find(key)
    if facts is None:
        wrapper = _opened_by_transformers(model, eos)
        shelf.keep(key, facts_of(wrapper))
        return wrapper
    return open_directly(facts) if facts.direct else _opened_by_transformers(model, eos)


def _opened_by_transformers(model: Path, eos: list[int] | None) -> Any:
    load = with_transformers().load
    defaults = importlib.import_module("mlx_lm.utils")._tokenizer_defaults(model)
    safe = {"trust_remote_code": False}
    try:
        return load(model, safe, eos_token_ids=eos, defaults=defaults)
    except Exception:  # transformers' class for this config.json raises what it likes, and few tokenizers need one
        if not _is_general(model):
            raise
        nothing_said = importlib.import_module("transformers").PreTrainedConfig()
        return load(model, {**safe, "config": nothing_said}, eos_token_ids=eos, defaults=defaults)


def _is_general(model: Path) -> bool:
    """Whether tokenizer_config.json asks for tokenizer.json as it is, whatever the model."""
    try:
        found = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("tokenizer_class") in _GENERAL and "auto_map" not in found


def open_directly(facts: TokenizerFacts) -> Any:
    """mlx_lm's TokenizerWrapper around a DirectTokenizer."""
    library = importlib.import_module("mlx_lm.tokenizer_utils")
    detokenizer = getattr(library, facts.detokenizer)
    if facts.detokenizer == "SPMStreamingDetokenizer":
        detokenizer = functools.partial(detokenizer, trim_space=facts.trim_space)
    tool = importlib.import_module(facts.tool_module) if facts.tool_module else None
    tokenizer = DirectTokenizer(facts)
    wrapper = library.TokenizerWrapper(
        tokenizer,
        detokenizer,
        eos_token_ids=facts.eos,
        tool_call_start=tool.tool_call_start if tool else None,
        tool_call_end=tool.tool_call_end if tool else None,
        tool_parser=tool.parse_tool_call if tool else None,
    )
    # Where transformers is imported too, mlx-lm takes a class that is not of it for one with a template of its own.
    wrapper.has_chat_template = facts.chat_template is not None
    tokenizer.forget_vocabulary()
    return wrapper


def facts_of(wrapper: Any) -> TokenizerFacts:
    """What a DirectTokenizer has to know to do the same as the tokenizer in this wrapper, if it can."""
    other = TokenizerFacts(direct=False)
    if wrapper._chat_template is not None or not same_methods(wrapper._tokenizer):
        return other
    facts = _read_off(wrapper)
    if facts.detokenizer not in _DETOKENIZERS:
        return other
    return facts if same_behavior(wrapper, open_directly(facts)) else other


def _read_off(wrapper: Any) -> TokenizerFacts:
    tokenizer, detokenizer = wrapper._tokenizer, wrapper._detokenizer
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    special = tokenizer.special_tokens_map
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in special.items()}
    is_bpe = type(tokenizer.backend_tokenizer.model).__name__ == "BPE"
    return TokenizerFacts(
        direct=True,
        backend=backend.to_str(),
        special_tokens=special,
        special_ids={name: id for name, id in ids.items() if id is not None},
        chat_template=tokenizer.chat_template,
        split_special_tokens=bool(tokenizer.split_special_tokens),
        clean_up=bool(tokenizer.clean_up_tokenization_spaces) and not is_bpe,
        detokenizer=type(detokenizer).__name__,
        trim_space=bool(getattr(detokenizer, "trim_space", True)),
        tool_module=wrapper.tool_parser.__module__ if wrapper.tool_parser else None,
        eos=tuple(sorted(wrapper.eos_token_ids)),
    )
