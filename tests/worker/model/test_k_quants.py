"""K-quants stay what they are in the file where the CPU's extension multiplies by them, and load everywhere else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers.linear import Linear

from squish.errors import CorruptModel
from squish.format import packed
from squish.worker.cpu import extension, layers
from squish.worker.gguf.blocks import decode_k_quant
from squish.worker.gguf.file import TensorInfo, read_header
from squish.worker.gguf.formats import FORMATS
from squish.worker.gguf.importer import GgufImport, import_gguf
from squish.worker.gguf.plan import make_plan
from squish.worker.jobs.convert import inspect
from squish.worker.model import k_quants, load
from squish.worker.model.model_files import read_config
from tests.worker.cpu.opened import native
from tests.worker.cpu.test_products import with_peaks
from tests.worker.gguf.tiny import tiny_model
from tests.worker.gguf.writer import Q8_0, Blob

ROWS, COLUMNS = 83, 768
NUMBERS = {"Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14}
HALVES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
BITS = {name: FORMATS[number].size * 8 / 256 for name, number in NUMBERS.items()}
linux = pytest.mark.skipif(sys.platform != "linux", reason="the extension is for Linux")


def blocks(name: str, rows: int = ROWS, columns: int = COLUMNS) -> bytes:
    """Random bits, with scales that are ordinary numbers."""
    kind, random = FORMATS[NUMBERS[name]], np.random.default_rng(NUMBERS[name])
    found = random.integers(0, 256, (rows * columns // 256, kind.size), np.uint8)
    for at in HALVES[name]:
        found[:, at : at + 2] = random.uniform(1e-4, 5e-4, (len(found), 1)).astype(np.float16).view(np.uint8)
    return found.tobytes()


def kept(name: str) -> tuple[k_quants.KQuant, mx.array]:
    """A layer of such weights, and what the `gguf` package says they are."""
    data = blocks(name)
    found = decode_k_quant(data, TensorInfo(Path("a"), "a", (ROWS, COLUMNS), FORMATS[NUMBERS[name]], 0, len(data)))
    layer = k_quants.KQuant(Linear(COLUMNS, ROWS, bias=False), k_quants.BITS[name])
    for key in layers.WEIGHTS:
        if (array := getattr(found, key)) is not None:
            assert (layer[key].shape, layer[key].dtype) == (array.shape, array.dtype)
            layer[key] = array
    values: Any = gguf.quants.dequantize(
        np.frombuffer(data, np.uint8).reshape(ROWS, -1), gguf.GGMLQuantizationType(NUMBERS[name])
    )
    return layer, mx.array(values.astype(np.float32))


@linux
@pytest.mark.parametrize("name", NUMBERS)
def test_every_kernel_multiplies_by_them_as_the_reference_does(name: str) -> None:
    layer, expected = kept(name)
    mx.random.seed(1)
    x = with_peaks(mx.random.normal((19, COLUMNS)))
    wanted = x @ expected.T
    kernel = native().kernel()
    try:
        exact, narrow = layers.pack(layer, exact=True), layers.pack(layer, exact=False)
        native().use_kernels("portable")
        reference = narrow(x)
        for each in native().kernels():
            native().use_kernels(each)
            assert mx.array_equal(exact.weight, expected), each
            assert mx.abs(exact(x) - wanted).max() < 1e-5 * mx.abs(wanted).max(), each
            for rows in (1, 2, 5, 7, 19):
                parts = [narrow(x[at : at + rows]) for at in range(0, len(x), rows)]
                assert mx.array_equal(mx.concatenate(parts), reference), (each, rows)
    finally:
        native().use_kernels(kernel)
    assert mx.abs(reference - wanted).max() < 0.02 * mx.abs(wanted).max()


@linux
@pytest.mark.parametrize("name", NUMBERS)
def test_they_take_no_more_memory_than_in_the_file(name: str) -> None:
    native()
    layer, _ = kept(name)
    taken = layers.packed_bytes(layer)
    assert taken == layers.pack(layer, exact=False).matrix.nbytes
    rows = -(-ROWS // 16) * 16
    assert taken <= 1.04 * BITS[name] / 8 * rows * COLUMNS


@pytest.mark.parametrize("name", NUMBERS)
def test_mlx_gets_the_same_weights_where_it_computes(name: str) -> None:
    layer, expected = kept(name)
    model = Linear(1, 1)
    model.inner = [layer]
    k_quants.to_mlx(model)
    made = model.inner[0]
    found = mx.dequantize(made.weight, made.scales, made.biases, group_size=made.group_size, bits=made.bits)
    group = mx.abs(expected).reshape(-1, 32).max(axis=1, keepdims=True)
    step = 2e-3 if name in ("Q4_K", "Q5_K") else 2e-3 + 2.2 / (2**made.bits - 1)  # MLX rounds ends by up to a step
    assert (mx.abs(found - expected).reshape(-1, 32) <= step * group).all()


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K"])
def test_an_imported_model_keeps_them_and_answers_alike_with_and_without_the_extension(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_k_model(name, tmp_path / "tiny.gguf")
    found = import_gguf(source, tmp_path / "kept", k_quants=True)
    bits = k_quants.BITS[name]
    assert found == GgufImport("llama", "Tiny", f"{name} ({bits}-bit, group 32)", bits, 32, 128, 855_296, None)
    import_gguf(source, tmp_path / "plain")
    config = json.loads((tmp_path / "kept" / "config.json").read_text(encoding="utf-8"))
    assert set(config[packed.K_QUANTS].values()) == {k_quants.BITS[name]}
    assert packed.K_QUANTS not in json.loads((tmp_path / "plain" / "config.json").read_text(encoding="utf-8"))
    ids = mx.array([[1, 5, 9, 2]])
    answers = [logits(tmp_path / "kept", ids), logits(tmp_path / "plain", ids)]
    monkeypatch.setattr(extension, "module", lambda: None)
    answers.append(logits(tmp_path / "kept", ids))
    for each in answers[1:]:
        assert mx.abs(each - answers[0]).max() < 0.05 * mx.abs(answers[0]).max()


def tiny_k_model(name: str, path: Path) -> Path:
    """A tiny model whose matrices are K-quants where their rows are long enough."""
    tiny, _ = tiny_model(Q8_0, hidden_size=256, intermediate_size=256, head_dim=64)
    tiny.metadata.update({"llama.embedding_length": 256, "llama.feed_forward_length": 256})
    for key, blob in tiny.tensors.items():
        if len(blob.shape) == 2 and blob.shape[1] == 256:
            tiny.tensors[key] = Blob(blob.shape, NUMBERS[name], blocks(name, *blob.shape))
    return tiny.write(path)


def logits(path: Path, ids: mx.array) -> mx.array:
    model: Any = load.build(path, read_config(path))
    load.place(model, path, 1 << 30, exact=True)
    return model(ids).astype(mx.float32)


@pytest.mark.parametrize("entry", [{"model.norm": 4}, {"model.layers.0.mlp.down_proj": 7}, {"no.such": 4}, [1]])
def test_a_forged_entry_is_refused(entry: object, tmp_path: Path) -> None:
    import_gguf(tiny_k_model("Q4_K", tmp_path / "tiny.gguf"), tmp_path / "kept", k_quants=True)
    path = tmp_path / "kept" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {packed.K_QUANTS: entry}))
    with pytest.raises(CorruptModel, match="squish_k_quants"):
        load.build(tmp_path / "kept", read_config(tmp_path / "kept"))


def test_numbers_of_a_k_quant_are_counted(tmp_path: Path) -> None:
    source = tiny_k_model("Q6_K", tmp_path / "tiny.gguf")
    import_gguf(source, tmp_path / "kept", k_quants=True)
    assert inspect(tmp_path / "kept").parameters == sum(t.count for t in make_plan(read_header(source)).targets)
