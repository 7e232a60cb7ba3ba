"""A tokenizer that is opened without transformers does what transformers would do, or is opened with it."""

from __future__ import annotations

import json
import random
import shutil
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from squish.worker.tokenizer import opening
from squish.worker.tokenizer.direct import DirectTokenizer
from squish.worker.tokenizer.facts import Shelf, TokenizerFacts, key_of
from squish.worker.tokenizer.opening import facts_of, open_directly, open_tokenizer
from squish.worker.tokenizer.proof import CONVERSATIONS, TEXTS, TOOLS, same_behavior
from tests.worker.tokenizer import made


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


Pair = tuple[Any, Any]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """`both` of a kind, opened once."""

    @cache
    def opened(kind: str) -> Pair:
        folder = tmp_path_factory.mktemp("kind")
        return both(made.KINDS[kind](folder / "model"), Shelf(folder / "shelf"))

    return opened


def both(model: Path, shelf: Shelf) -> Pair:
    """The tokenizer as transformers opens it, and as the worker opens it from then on."""
    first = open_tokenizer(model, [2], shelf)
    second = open_tokenizer(model, [2], shelf)
    assert not isinstance(first._tokenizer, DirectTokenizer)
    return first, second


def alphabet() -> list[str]:
    """Letters of every category, weighted towards what breaks tokenizers."""
    every = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    by_category: dict[str, list[str]] = {}
    for letter in every:
        by_category.setdefault(unicodedata.category(letter), []).append(letter)
    return [
        letter for letters in by_category.values() for letter in random.Random(1).sample(letters, min(40, len(letters)))
    ]


@cache
def texts() -> list[str]:
    """Other texts than those that decide, drawn at random."""
    source, letters = random.Random(0), alphabet()
    words = [*TEXTS, *made.LINES, *made.SPECIAL, " ", "  ", "\n", "<|im_end|", "▁", " odd ", "odd", "<tool_call>"]
    return [
        "".join(source.choice(letters if source.random() < 0.5 else words) for _ in range(source.randrange(1, 12)))
        for _ in range(200)
    ]


@pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", made.KINDS)
def test_every_text_has_the_same_tokens_and_comes_back_the_same(
    kind: str, count: int, pair: Callable[[str], Pair]
) -> None:
    theirs, ours = pair(kind)
    assert isinstance(ours._tokenizer, DirectTokenizer)
    for text in texts()[:count]:
        ids = ours.encode(text, add_special_tokens=False)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
        pieces = []
        for each in (theirs.detokenizer, ours.detokenizer):
            pieces.append([each.add_token(id) or each.last_segment for id in ids] + [each.finalize() or each.text])
        assert pieces[0] == pieces[1]
    for token in ("<unk>", "<s>", "nothing like it"):
        assert ours.get_vocab().get(token) == theirs.get_vocab().get(token)
    assert (ours.eos_token_id, ours.bos_token_id) == (theirs.eos_token_id, theirs.bos_token_id)
    assert ours.eos_token_ids == theirs.eos_token_ids


@pytest.mark.parametrize("count", [8, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", [kind for kind in made.KINDS if "no template" not in kind])
def test_every_conversation_is_shown_the_same(kind: str, count: int, pair: Callable[[str], Pair]) -> None:
    theirs, ours = pair(kind)
    more = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1], "thinking": "t"}]
        for text in texts()[:count]
    ]
    refused = 0
    for conversation in (*CONVERSATIONS, *more):
        for extra in ({}, {"tools": TOOLS}, {"continue_final_message": True}, {"add_generation_prompt": True}):
            shown = [outcome(each, conversation, extra) for each in (theirs, ours)]
            assert shown[0] == shown[1]
            refused += shown[0].startswith("TemplateError: Unknown role")
    assert refused


def outcome(wrapper: Any, conversation: list[dict[str, Any]], extra: dict[str, Any]) -> str:
    try:
        text: str = wrapper.apply_chat_template(conversation, tokenize=False, enable_thinking=False, **extra)
        assert wrapper.apply_chat_template(conversation, enable_thinking=False, **extra) == wrapper.encode(
            text, add_special_tokens=False
        )
    except Exception as error:  # noqa: BLE001 - whatever a template raises, both have to
        return f"{type(error).__name__}: {error}" if "Template" in type(error).__name__ else type(error).__name__
    return text


def test_a_tokenizer_with_python_of_its_own_is_opened_with_transformers(tmp_path: Path, shelf: Shelf) -> None:
    model = made.byte_level(tmp_path / "model", tokenizer_class="NewlineTokenizer")
    first, again = both(model, shelf)
    assert not isinstance(again._tokenizer, DirectTokenizer)
    assert again.encode("a\nb") == first.encode("a\nb") == first.encode("a<n>b")
    assert shelf.find(key_of(model, [2])) == TokenizerFacts(direct=False)


def test_code_that_a_tokenizer_brings_is_never_run(tmp_path: Path, shelf: Shelf) -> None:
    model = made.byte_level(
        tmp_path / "model",
        tokenizer_class="Own",
        auto_map={"AutoTokenizer": ["own.Own", "own.Own"]},
    )
    (model / "own.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nclass Own: pass\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="trust_remote_code"):
            open_tokenizer(model, [2], shelf)
    assert not (tmp_path / "run").exists()


def test_any_change_of_the_files_makes_other_facts(tmp_path: Path) -> None:
    model = made.byte_level(tmp_path / "model")
    keys = {key_of(model, [2]), key_of(model, [2, 3]), key_of(model, None)}
    config = model / "tokenizer_config.json"
    config.write_text(config.read_text().replace("</s>", "<|im_end|>"))
    keys.add(key_of(model, [2]))
    (model / "chat_template.jinja").write_text("x")
    keys.add(key_of(model, [2]))
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tool_use.jinja").write_text("y")
    keys.add(key_of(model, [2]))
    assert len(keys) == 6
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "manifest.toml").write_text("name = 1")
    assert key_of(model, [2]) in keys
    config = model / "config.json"
    known = json.loads(config.read_text()) if config.exists() else {}
    for packing in ({}, {"quantization": {"bits": 4}}, {"quantization_config": {"bits": 8}}):
        config.write_text(json.dumps(known | {"model_type": "other"} | packing))
        keys.add(key_of(model, [2]))
    assert len(keys) == 7, "compressed in another way it is the same tokenizer"
    for other in ("[]", "{", json.dumps({"model_type": "qwen2"})):
        config.write_text(other)
        keys.add(key_of(model, [2]))
    assert len(keys) == 10
    moved = tmp_path / "elsewhere"
    shutil.move(model, moved)
    assert key_of(moved, [2]) in keys


def test_damaged_facts_are_never_used(tmp_path: Path, shelf: Shelf) -> None:
    model = made.byte_level(tmp_path / "model")
    expected = both(model, shelf)[0].encode("The quick brown fox")
    [kept] = (tmp_path / "shelf").iterdir()
    whole = kept.read_bytes()
    for damaged in (b"", whole[:-1], whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:], whole + b"x"):
        kept.write_bytes(damaged)
        assert shelf.find(kept.name) is None
        assert not kept.exists()
        assert open_tokenizer(model, [2], shelf).encode("The quick brown fox") == expected
        assert kept.read_bytes() == whole


def test_the_shelf_keeps_the_most_recent(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    for number in range(40):
        shelf.keep(f"key{number}", TokenizerFacts(direct=False))
    assert len(list((tmp_path / "shelf").iterdir())) == 32
    assert shelf.find("key39")


def test_a_shelf_that_takes_no_files_changes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = made.byte_level(tmp_path / "model")
    for _ in range(2):
        assert open_tokenizer(model, [2], Shelf(tmp_path / "file" / "shelf")).encode("a", add_special_tokens=False)


CHANGES: list[dict[str, Any]] = [
    {"clean_up": True},
    {"split_special_tokens": True},
    {"chat_template": made.TEMPLATE.replace("strftime_now", "lower")},
    {"chat_template": made.TEMPLATE.replace("trim", "").replace("    ", "  x")},
    {"chat_template": None},
    {"special_tokens": {"bos_token": "<s>"}},
    {"detokenizer": "SPMStreamingDetokenizer"},
    {"detokenizer": "NaiveStreamingDetokenizer"},
    {"eos": (1,)},
    {"tool_module": None},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(change))
def test_a_difference_is_noticed(change: dict[str, Any], tmp_path: Path) -> None:
    template = made.TEMPLATE.replace("call.function.name", "tool_call.name").replace("for call in", "for tool_call in")
    model = made.byte_level(tmp_path / "model", chat_template=template.replace("call.function", "tool_call.function"))
    theirs = open_tokenizer(model, [2])
    facts = facts_of(theirs)
    assert facts.direct
    assert facts.tool_module
    assert same_behavior(theirs, open_directly(facts))
    assert not same_behavior(theirs, open_directly(msgspec.structs.replace(facts, **change)))


def test_another_vocabulary_is_noticed(tmp_path: Path) -> None:
    theirs = open_tokenizer(made.byte_level(tmp_path / "model"), [2])
    facts = facts_of(theirs)
    backend = json.loads(facts.backend)
    backend["model"]["merges"] = backend["model"]["merges"][:20]
    other = msgspec.structs.replace(facts, backend=json.dumps(backend))
    assert not same_behavior(theirs, open_directly(other))
    assert opening.facts_of(theirs) == facts
