"""GGUF files that cannot be imported are refused by name, with nothing written, whatever their bytes are."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squish.errors import CorruptModel, ModelNotFound, SquishError, UnsupportedModel
from squish.format import architectures
from squish.worker.gguf.families.refused import REFUSED, RUN_FROM_SAFETENSORS
from squish.worker.gguf.importer import import_gguf, require_importable
from tests.worker.gguf.tiny import tiny_model
from tests.worker.gguf.writer import F16, F32, Q4_0, Q4_1, Q8_0, Blob, Value

HEADER = b"GGUF" + struct.pack("<I", 3)
HUGE = (1 << 63) - 1


def _refuse(source: Path, kind: type[SquishError], *words: str) -> None:
    """Both doors refuse `source` with `kind`, naming the file and `words`; the destination stays empty."""
    destination = source.parent / "out"
    destination.mkdir(exist_ok=True)
    for attempt in (require_importable, partial(import_gguf, destination=destination)):
        with pytest.raises(kind) as caught:
            attempt(source)
        assert type(caught.value) is kind
        for word in (source.name, *words):
            assert word in caught.value.message
    assert not list(destination.iterdir())


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("general.architecture", "bert", "bert"),
        ("tokenizer.ggml.pre", "brand-new", "brand-new"),
        ("tokenizer.ggml.pre", "default", "default"),
        ("tokenizer.ggml.model", "rwkv", "rwkv"),
        ("tokenizer.ggml.add_space_prefix", True, "add_space_prefix"),
        ("llama.expert_count", 8, "ffn_gate"),
        ("llama.rope.scaling.type", "brand-new", "brand-new"),
        ("llama.rope.dimension_count", 8, "partial_rotary_factor"),
        ("general.type", "mmproj", "projector"),
        ("llama.attention.sliding_window", 4096, "llama.attention.sliding_window"),
        ("llama.logit_scale", 0.5, "llama.logit_scale"),
        ("llama.attention.causal", False, "llama.attention.causal"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, key: str, value: Value, word: str) -> None:
    tiny, _ = tiny_model(Q8_0)
    tiny.metadata[key] = value
    _refuse(tiny.write(tmp_path / "tiny.gguf"), UnsupportedModel, word)


@pytest.mark.parametrize("key", ["general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre"])
def test_what_a_file_does_not_say_is_named(tmp_path: Path, key: str) -> None:
    tiny, _ = tiny_model(Q8_0)
    del tiny.metadata[key]
    _refuse(tiny.write(tmp_path / "tiny.gguf"), UnsupportedModel, key)
    with pytest.raises(UnsupportedModel) as refused:
        require_importable(tmp_path / "tiny.gguf")
    assert "None" not in refused.value.message and "''" not in refused.value.message


def test_a_tokenizer_of_rwkv_is_refused_without_advice_that_does_not_help(tmp_path: Path) -> None:
    tiny, _ = tiny_model(Q8_0)
    tiny.metadata["tokenizer.ggml.model"] = "rwkv"
    with pytest.raises(UnsupportedModel, match="its tokenizer 'rwkv' is not imported yet") as refused:
        require_importable(tiny.write(tmp_path / "tiny.gguf"))
    assert refused.value.hint is not None and "another family" in refused.value.hint


def test_an_unknown_tensor_is_refused_by_name(tmp_path: Path) -> None:
    tiny, _ = tiny_model(Q8_0)
    tiny.tensors["blk.0.attn_sinks.weight"] = Blob((64,), F32, bytes(256))
    _refuse(tiny.write(tmp_path / "tiny.gguf"), UnsupportedModel, "blk.0.attn_sinks.weight")


@pytest.mark.parametrize(("kind", "name"), [(9, "Q8_1"), (24, "I8"), (40, "NVFP4"), (999, "999")])
def test_an_unreadable_quantization_is_refused_by_name(tmp_path: Path, kind: int, name: str) -> None:
    tiny, _ = tiny_model(Q8_0)
    tiny.tensors["blk.0.ffn_up.weight"] = Blob((96, 64), kind, bytes(96 * 64))
    _refuse(tiny.write(tmp_path / "tiny.gguf"), UnsupportedModel, name, "blk.0.ffn_up.weight")


def test_other_rotary_frequencies_are_refused(tmp_path: Path) -> None:
    tiny, _ = tiny_model(Q8_0)
    tiny.tensors["rope_freqs.weight"] = Blob((8,), 0, struct.pack("<8f", 1, 2, 3, 4, 5, 6, 7, 8))
    _refuse(tiny.write(tmp_path / "tiny.gguf"), UnsupportedModel, "rotary frequencies")


@pytest.mark.parametrize("name", ["blk.1.attn_k.weight", "output_norm.weight", "token_embd.weight"])
def test_a_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    tiny, _ = tiny_model(Q8_0)
    del tiny.tensors[name]
    _refuse(tiny.write(tmp_path / "tiny.gguf"), CorruptModel, name)


def test_a_misshapen_tensor_is_named(tmp_path: Path) -> None:
    tiny, _ = tiny_model(Q8_0)
    tiny.tensors["blk.0.attn_k.weight"] = tiny.tensors["blk.0.attn_q.weight"]
    _refuse(tiny.write(tmp_path / "tiny.gguf"), CorruptModel, "blk.0.attn_k.weight")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", 4_000_000_000),
        ("llama.attention.head_count", 0),
        ("llama.embedding_length", "64"),
        ("general.license", 7),
        ("tokenizer.chat_template", 7),
        ("llama.attention.layer_norm_rms_epsilon", float("nan")),
        ("tokenizer.ggml.eos_token_id", 1 << 20),
        ("tokenizer.ggml.token_type", [1, 2, 3]),
        ("tokenizer.ggml.tokens", [1, 2, 3]),
    ],
)
def test_impossible_metadata_is_refused(tmp_path: Path, key: str, value: Value) -> None:
    tiny, _ = tiny_model(Q8_0)
    tiny.metadata[key] = value
    _refuse(tiny.write(tmp_path / "tiny.gguf"), CorruptModel)


@pytest.mark.parametrize("merges", [["hello"], ["h zz"], ["q q"]])
def test_merges_outside_the_vocabulary_are_refused(tmp_path: Path, merges: list[str]) -> None:
    tiny, _ = tiny_model(Q8_0)
    tiny.metadata["tokenizer.ggml.merges"] = merges
    _refuse(tiny.write(tmp_path / "tiny.gguf"), CorruptModel, merges[0])


def test_there_is_no_such_file(tmp_path: Path) -> None:
    _refuse(tmp_path / "absent.gguf", ModelNotFound)


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    tiny, _ = tiny_model(F16)
    source = tiny.write(tmp_path / "tiny.gguf")
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    _refuse(source, CorruptModel)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"G",
        b"GGUF",
        b"\0" * 4096,
        b"PK\x03\x04" * 1000,
        HEADER + struct.pack("<QQ", HUGE, 0),
        HEADER + struct.pack("<QQ", 0, HUGE),
        HEADER + struct.pack("<QQQ", 0, 1, HUGE),
        HEADER + struct.pack("<QQQ3sIQ", 0, 1, 3, b"key", 8, HUGE) + bytes(64),
        HEADER + struct.pack("<QQQ3sIIQ", 0, 1, 3, b"key", 9, 4, HUGE) + bytes(64),
        HEADER + struct.pack("<QQQ3sIIQ", 0, 1, 3, b"key", 9, 8, 1 << 22) + bytes(64),
        HEADER + struct.pack("<QQQ3sI", 0, 1, 3, b"key", 77) + bytes(64),
        HEADER + struct.pack("<QQQ3sI", 0, 1, 3, b"\xff\xfe\xfd", 4) + bytes(64),
        HEADER + struct.pack("<QQQ3sI", 1, 0, 3, b"key", 1 << 31) + bytes(64),
        HEADER + struct.pack("<QQQ3sIQQIQ", 1, 0, 3, b"key", 2, HUGE, HUGE, 0, 0) + bytes(64),
        HEADER + struct.pack("<QQQ3sIQIQ", 1, 0, 3, b"key", 1, 4, 0, HUGE - HUGE % 32) + bytes(64),
        HEADER + struct.pack("<QQQ3sIQIQ", 1, 0, 3, b"key", 1, 0, 0, 0) + bytes(64),
    ],
)
def test_garbage_and_huge_lengths_are_refused(tmp_path: Path, data: bytes) -> None:
    source = tmp_path / "bad.gguf"
    source.write_bytes(data)
    _refuse(source, CorruptModel)


@pytest.mark.parametrize("version", [1, 4])
def test_other_versions_of_the_format_are_refused(tmp_path: Path, version: int) -> None:
    source = tmp_path / "old.gguf"
    source.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 0, 0) + bytes(64))
    _refuse(source, UnsupportedModel, str(version))


def test_a_big_endian_file_is_refused_as_that(tmp_path: Path) -> None:
    source = tmp_path / "big.gguf"
    source.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64))
    _refuse(source, UnsupportedModel, "big-endian")


def test_tensors_that_share_bytes_are_refused(tmp_path: Path) -> None:
    entries = b"".join(struct.pack("<Q1sIQIQ", 1, name, 1, 8, 0, 0) for name in (b"a", b"b"))
    source = tmp_path / "bad.gguf"
    source.write_bytes(HEADER + struct.pack("<QQ", 2, 0) + entries + bytes(256))
    _refuse(source, CorruptModel, "overlap")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_header_never_ends_in_a_traceback(
    damaged: bytes, tmp_path: Path, hits: list[tuple[float, int]]
) -> None:
    data = bytearray(damaged)
    for place, byte in hits:
        data[int(place * len(data))] = byte
    source = tmp_path / "damaged.gguf"
    source.write_bytes(data + bytes(1 << 20))
    try:
        require_importable(source)
    except SquishError as error:
        assert "damaged.gguf" in error.message


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a good header, with zeros to come where the weights are."""
    tiny, _ = tiny_model(F16)
    data = tiny.write(tmp_path_factory.mktemp("good") / "good.gguf").read_bytes()
    weights = sum(len(blob.data) for blob in tiny.tensors.values())
    return data[: len(data) - weights - 1024]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("kind", [F32, F16, Q4_0, Q4_1, Q8_0])
def test_numbers_that_are_not_finite_are_refused_with_their_tensor(tmp_path: Path, kind: int, number: float) -> None:
    tiny, _ = tiny_model(kind)
    blob = tiny.tensors["blk.0.ffn_up.weight"]
    damaged = np.array(number, np.float32 if kind == F32 else np.float16).tobytes()
    tiny.tensors["blk.0.ffn_up.weight"] = Blob(blob.shape, kind, damaged + blob.content()[len(damaged) :])
    with pytest.raises(CorruptModel, match=r"tiny\.gguf.*blk\.0\.ffn_up\.weight.*not finite"):
        import_gguf(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "out")


@pytest.mark.parametrize(
    ("metadata", "helps"),
    [
        ({"general.architecture": "baichuan"}, False),  # mlx-lm has no code for it
        ({"general.architecture": "made_up"}, False),
        ({"general.type": "mmproj"}, False),
        ({"general.type": "adapter"}, False),
        ({"general.architecture": "recurrent_gemma"}, True),
        ({"general.architecture": "bert"}, True),
        ({"tokenizer.ggml.pre": "brand-new"}, True),
        ({"llama.logit_scale": 0.5}, True),
    ],
    ids=str,
)
def test_another_format_is_advised_only_where_it_runs(
    tmp_path: Path, metadata: dict[str, Value], *, helps: bool
) -> None:
    tiny, _ = tiny_model(Q8_0)
    tiny.metadata.update(metadata)
    with pytest.raises(UnsupportedModel) as refused:
        require_importable(tiny.write(tmp_path / "tiny.gguf"))
    assert ("safetensors" in (refused.value.hint or "")) is helps


def test_what_runs_in_another_format_is_run_by_mlx_lm() -> None:
    assert all(architectures.is_supported(name) for name in RUN_FROM_SAFETENSORS)
    without = [name for name, reason in REFUSED.items() if reason == "mlx-lm has no code for it"]
    assert without and not [name for name in without if architectures.is_supported(name)]
