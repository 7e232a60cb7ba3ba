"""The judge of a model directory: hostile headers, small files and configurations are one clear error, never a wait."""

from __future__ import annotations

import json
import math
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from squish.errors import CorruptModel, SquishError, UnsupportedModel
from squish.format import architectures, config, model_directory, safetensors
from squish.memory import fit
from squish.models.manifest import directory_name, read_json
from squish.models.unfinished import model_id
from squish.pull import eligible
from squish.text import clean

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96,
    "rope_theta": 1e4, "max_position_embeddings": 512,
}  # fmt: skip


def shard(entries: dict[str, Any], data: bytes) -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(start: int, stop: int, dtype: str = "F32", shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(stop - start) // 4] if shape is None else shape, "data_offsets": [start, stop]}


WHOLE = shard({"a": entry(0, 16), "b": entry(16, 24)}, bytes(24))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(WHOLE)
    return tmp_path


def test_a_whole_directory_says_what_lies_in_it(directory: Path) -> None:
    found = model_directory.require_directory(directory, "mine")
    assert [(each.name, each.count, each.size) for each in found["model.safetensors"]] == [("a", 4, 16), ("b", 2, 8)]


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "no length": b"\x08\0",
    "a length beyond the file": struct.pack("<Q", 1 << 40) + b"{}",
    "a length just beyond the file": struct.pack("<Q", 99) + b"{}",
    "not JSON": struct.pack("<Q", 2) + b"{]",
    "not UTF-8": struct.pack("<Q", 4) + b'"\xff"\xff',
    "a list": struct.pack("<Q", 2) + b"[]",
    "nested": struct.pack("<Q", 20_006) + b'{"a":' + b"[" * 20_000 + b"}",
    "overlapping": shard({"a": entry(0, 16), "b": entry(8, 24)}, bytes(24)),
    "a gap": shard({"a": entry(0, 8), "b": entry(16, 24)}, bytes(24)),
    "the same twice": shard({"a": entry(0, 24), "b": entry(0, 24)}, bytes(24)),
    "a start in the middle": shard({"a": entry(8, 24)}, bytes(24)),
    "more than there is": shard({"a": entry(0, 1 << 50)}, bytes(24)),
    "less than there is": shard({"a": entry(0, 16)}, bytes(24)),
    "negative offsets": shard({"a": entry(-8, 16)}, bytes(24)),
    "negative sizes": shard({"a": entry(0, 24, shape=(-2, -3))}, bytes(24)),
    "another size than the dtype's": shard({"a": entry(0, 24, shape=(7,))}, bytes(24)),
    "sizes beyond any number": shard({"a": entry(0, 24, shape=(2**62, 2**62))}, bytes(24)),
    "no offsets": shard({"a": {"dtype": "F32", "shape": [6]}}, bytes(24)),
    "offsets of another kind": shard({"a": {"dtype": "F32", "shape": [6], "data_offsets": ["0", None]}}, bytes(24)),
    "no tensors but bytes": shard({}, bytes(24)),
    "cut off": WHOLE[:-1],
    "something behind it": WHOLE + b"x",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_a_header_that_does_not_describe_its_file_is_damage(directory: Path, content: bytes) -> None:
    (directory / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptModel, match=r"^model\.safetensors of mine is damaged\.$"):
        model_directory.require_directory(directory, "mine")


@given(st.binary(max_size=64), st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)))
def test_any_bytes_are_a_file_or_damage(noise: bytes, start: int, stop: int) -> None:
    content = WHOLE[:start] + noise + WHOLE[stop:]
    try:
        length = safetensors.header_length(content[: safetensors.PREFIX], "x")
        found = safetensors.parse(content[safetensors.PREFIX :][:length], "x", len(content))
    except CorruptModel:
        return
    assert sum(each.size for each in found) == len(content) - safetensors.PREFIX - length


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        there = os.open(path.parent, os.O_RDONLY)
        try:  # an address has room for a hundred characters only
            listening.bind(f"/proc/self/fd/{there}/{path.name}")
        finally:
            os.close(there)


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room


STRANGE = (fifo, device, folder, unix_socket, endless)


@pytest.mark.parametrize("make", STRANGE)
def test_config_json_that_is_not_a_small_file_is_damage_and_nothing_is_waited_for(
    directory: Path, make: Callable[[Path], None]
) -> None:
    (directory / "config.json").unlink()
    make(directory / "config.json")
    with pytest.raises(CorruptModel, match=r"config\.json of mine cannot be read") as error:
        model_directory.read_config(directory, "mine")
    assert error.value.param == "config.json"
    assert read_json(directory / "config.json") == {}


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "tokenizer.json"])
@pytest.mark.parametrize("make", STRANGE[:4])
def test_other_files_that_are_not_files_are_damage_too(
    directory: Path, name: str, make: Callable[[Path], None]
) -> None:
    (directory / name).unlink(missing_ok=True)
    make(directory / name)
    if name == "model.safetensors.index.json":  # it is no part of the model
        if make is not device:
            assert model_directory.require_directory(directory, "mine")
        return
    with pytest.raises(CorruptModel):
        model_directory.require_directory(directory, "mine")


def test_links_are_followed_as_a_hub_cache_needs_it(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    blobs = tmp_path_factory.mktemp("blobs")
    for path in list(directory.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    assert model_directory.read_config(directory, "mine") == LLAMA
    assert model_directory.require_directory(directory, "mine")


def test_a_byte_order_mark_changes_nothing(directory: Path) -> None:
    (directory / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8-sig")
    (directory / "generation_config.json").write_text('{"eos_token_id": [7, 8]}', encoding="utf-8-sig")
    found = model_directory.read_config(directory, "mine")
    assert found == LLAMA | {"eos_token_id": [7, 8]}
    assert read_json(directory / "config.json") == LLAMA


def test_numbers_that_json_cannot_say_are_read_as_transformers_writes_them() -> None:
    found = model_directory.parse_object(b'{"a": {"__float__": "-Infinity"}, "b": {"__float__": "x"}}', "x", "mine")
    assert found == {"a": float("-inf"), "b": {"__float__": "x"}}


NESTED = b'{"a": ' + b"[" * 100_000


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{}", b"[1]", b"null", b'{"a": 1', NESTED, b'{"a": ' + b"9" * 9999])
def test_what_is_not_a_json_object_says_so(content: bytes) -> None:
    with pytest.raises(CorruptModel, match=r"^config\.json of org/repo cannot be read: .{5,200}$"):
        model_directory.parse_object(content, "config.json", "org/repo")


# ---- the two processes judge alike

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model_type": None}, "does not name a model_type"),
    ({"model_type": ["llama"]}, "does not name a model_type"),
    ({"model_type": "zebra"}, "'zebra' of .* is not one that Squish runs"),
    ({"model_type": "../llama"}, "is not one that Squish runs"),
    ({"model_type": "base"}, "is not one that Squish runs"),
    ({"model_type": "zebra", "auto_map": {"A": "b.C"}}, "needs code of its own"),
    ({"model_type": "\x1b]52;c;eA==\x07"}, "is not one that Squish runs"),
    ({"model_file": "\x1b[31mevil.py"}, "needs code of its own"),
    ({"num_hidden_layers": 10**9}, "1,000,000,000 layers"),
    ({"logits_scaling": 3.0}, "logits_scaling"),
]


@pytest.mark.parametrize(("changed", "reason"), REFUSED)
def test_a_repository_and_a_directory_are_refused_for_the_same_reason(changed: dict[str, Any], reason: str) -> None:
    changed = LLAMA | changed
    with pytest.raises((UnsupportedModel, CorruptModel), match=reason) as here:
        model_directory.require_config(changed, "org/repo")
    with pytest.raises(UnsupportedModel, match=reason) as there:
        eligible.require(changed, "org/repo")
    assert here.value.message == there.value.message
    assert here.value.message == clean(here.value.message)
    assert there.value.hint is not None
    assert "None of its weights were downloaded" in there.value.hint


@pytest.mark.parametrize("kind", sorted(architectures.supported()))
def test_what_can_be_run_is_told_from_one_file_as_from_all(kind: str) -> None:
    """Also of architectures whose name is not an identifier, such as lfm2-vl."""
    assert architectures.is_supported(kind)


NAMES = frozenset({"config.json", "model.safetensors", "tokenizer.json"})


@pytest.mark.parametrize(
    ("names", "index", "reason"),
    [
        (NAMES - {"model.safetensors"}, None, "has no weights"),
        (NAMES, b"[]", "cannot be read"),
        (NAMES, b'{"weight_map": []}', "cannot be read"),
        (NAMES, b'{"weight_map": {"a": 3}}', "cannot be read"),
        (NAMES, b'{"weight_map": {"a": "../model.safetensors"}}', "cannot be read"),
        (NAMES, b'{"weight_map": {"a": "/etc/passwd"}}', "cannot be read"),
        (NAMES, b'{"weight_map": {"a": "model-2.safetensors"}}', r"model-2\.safetensors of .* is missing"),
    ],
)
def test_weights_are_complete_or_what_is_missing_is_named(
    names: frozenset[str], index: bytes | None, reason: str
) -> None:
    with pytest.raises(CorruptModel, match=reason) as here:
        model_directory.require_shards(names, index, "org/repo")
    with pytest.raises(UnsupportedModel, match=reason) as there:
        eligible.require_shards(index, names, "org/repo")
    assert here.value.message == there.value.message


@pytest.mark.parametrize(
    ("files", "own", "reason"),
    [
        (set(), False, "has no tokenizer"),
        ({"tiktoken.model"}, True, "needs code of its own"),
        ({"tiktoken.model"}, False, None),
        ({"tokenizer.json"}, True, None),
        ({"vocab.json"}, False, None),
    ],
)
def test_a_tokenizer_is_data(files: set[str], own: bool, reason: str | None) -> None:
    content = json.dumps({"auto_map": {"AutoTokenizer": ["t.T", None]}} if own else {}).encode()
    if reason is None:
        model_directory.require_tokenizer(files, content, "org/repo")
        return
    with pytest.raises((UnsupportedModel, CorruptModel), match=reason) as here:
        model_directory.require_tokenizer(files, content, "org/repo")
    with pytest.raises(UnsupportedModel, match=reason) as there:
        eligible.require_tokenizer(content, files, "org/repo")
    assert here.value.message == there.value.message


@pytest.mark.parametrize("id", ["llama3.2:3b", "org/repo", "org/repo:q8_0", "org/re-po.x:8bit"])
def test_a_directory_stands_for_one_id_in_both_processes(id: str) -> None:
    name = directory_name(id)
    assert model_id(name) == id
    assert model_directory.display_name(Path("/models") / name) == id
    assert model_directory.display_name(Path("/models/.partial") / f"{name}~abc") == id
    assert model_directory.display_name(Path("/models/.partial") / name / "files") == id


# ---- configurations that nobody foresaw

SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SIMPLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "layer_types",
    "sliding_window",
    "head_dim",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_size",
    "num_hidden_layers",
    "max_position_embeddings",
    "text_config",
    "attn_config",
    "per_layer_config",
    "mlp_layer_types",
    "hidden_act",
    "logits_scaling",
    "vocab_size",
    "no_rope_layers",
    "attention_multiplier",
    "tie_word_embeddings",
    "dtype",
    "architectures",
    "quantization",
    "sliding_window_pattern",
    "rotary_dim",
    "use_sliding_window",
    "original_max_position_embeddings",
]
ROPE = st.dictionaries(
    st.sampled_from([
        "rope_theta", "rope_type", "type", "factor", "attention_factor", "partial_rotary_factor", "beta_fast",
        "original_max_position_embeddings", "full_attention", "sliding_attention", "mscale", "long_factor",
    ]),
    VALUES | st.sampled_from(["default", "linear", "yarn", "longrope", "llama3", "su", "mrope"]),
    max_size=6,
)  # fmt: skip
KINDS = (
    "llama",
    "gemma3_text",
    "gemma3",
    "gemma4_text",
    "mistral3",
    "deepseek_v2",
    "exaone4",
    "minimax",
    "dbrx",
    "phi3",
)
CONFIGS = st.dictionaries(st.sampled_from(KEYS), VALUES | ROPE, max_size=10)


@given(st.sampled_from(KINDS), CONFIGS, CONFIGS | st.none())
@example("llama", {"sliding_window": math.nan}, None)
@example("gemma3", {"sliding_window_pattern": math.inf}, {"head_dim": -math.inf})
def test_any_config_is_read_or_refused(kind: str, changed: dict[str, Any], inner: dict[str, Any] | None) -> None:
    found = LLAMA | changed | {"model_type": kind} | ({} if inner is None else {"text_config": LLAMA | inner})
    fit.shape_of(found, 10**6)
    assert config.context_length(found) > 0
    try:
        read = config.normalized(found, "org/repo")
    except SquishError as error:
        assert error.message == clean(error.message)
        return
    assert set(found) <= set(read)
