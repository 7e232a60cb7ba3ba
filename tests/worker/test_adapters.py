"""Adapters beside the models that they change: the same as merged weights, whoever wrote them, in any company."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from squish.errors import CorruptModel, SquishError, UnsupportedModel
from squish.worker.adapters.files import read
from squish.worker.adapters.layers import Adapters
from squish.worker.adapters.rows import Tag
from squish.worker.cpu.fusion import caches_by_row
from squish.worker.cpu.install import prepare_model
from squish.worker.jobs.adapter import fuse
from squish.worker.model.load import build, load
from squish.worker.model.model_files import read_config
from tests.worker.model.test_load import PROMPT, write_model

MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
RANK, ALPHA = 4, 6.0
TOKENS = [[5, 6, 7, 8]]


def arrays_of(path: Path) -> dict[str, mx.array]:
    return cast(dict[str, mx.array], mx.load(str(path)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapters") / "base"
    write_model(path)
    return path


def changes(base: Path, seed: int) -> dict[str, tuple[mx.array, mx.array]]:
    """A random change of some layers: (rank, inputs) and (outputs, rank)."""
    weights = arrays_of(base / "model.safetensors")
    mx.random.seed(seed)
    found = {}
    for layer in range(2):
        for name in MODULES:
            path = f"model.layers.{layer}.{name}"
            outputs, inputs = weights[f"{path}.weight"].shape
            found[path] = mx.random.normal((RANK, inputs)) * 0.1, mx.random.normal((outputs, RANK)) * 0.1
    return found


def peft(path: Path, given: dict[str, tuple[mx.array, mx.array]], magnitudes: Any = None, **config: Any) -> Path:
    path.mkdir()
    tensors = {}
    for module, (a, b) in given.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
        if magnitudes:
            tensors[f"base_model.model.{module}.lora_magnitude_vector"] = magnitudes[module]
    mx.save_safetensors(str(path / "adapter_model.safetensors"), tensors)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_dora": bool(magnitudes), "bias": "none"}
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
    return path


def of_mlx(path: Path, given: dict[str, tuple[mx.array, mx.array]], magnitudes: Any = None, **config: Any) -> Path:
    path.mkdir()
    tensors: dict[str, mx.array] = {}
    for module, (a, b) in given.items():
        tensors |= {f"{module}.lora_a": mx.contiguous(a.T), f"{module}.lora_b": mx.contiguous(b.T)}
        if magnitudes:
            tensors[f"{module}.m"] = magnitudes[module]
    mx.save_safetensors(str(path / "adapters.safetensors"), tensors)
    parameters = {"rank": RANK, "scale": ALPHA / RANK, "dropout": 0.0}
    settings = {"fine_tune_type": "dora" if magnitudes else "lora", "num_layers": 2, "lora_parameters": parameters}
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
    return path


def magnitudes_of(base: Path, given: Any) -> dict[str, mx.array]:
    weights = arrays_of(base / "model.safetensors")
    return {module: mx.linalg.norm(weights[f"{module}.weight"].astype(mx.float32), axis=1) * 1.25 for module in given}


class Served:
    """The model with adapters, as a worker has it."""

    def __init__(self, base: Path, *adapters: Path) -> None:
        loaded = load(base, exact=True)
        prepare_model(loaded.model)
        self.model, self.adapters = loaded.model, Adapters(loaded.model)
        for path in adapters:
            self.adapters.load(str(path))

    def logits(self, tokens: list[list[int]], rows: list[Path | None], cut: int | None = None) -> mx.array:
        """Of each row's last token; with `cut`, the tokens are processed in two parts."""
        caches = []
        for row in rows:
            own = caches_by_row(self.model, None) or make_prompt_cache(self.model)
            caches.append([*own, Tag(str(row) if row else None)])
        merged = [caches[0][at].merge([each[at] for each in caches]) for at in range(len(caches[0]))]
        given = mx.array(tokens)
        if cut:
            mx.eval(self.adapters.tagged(given[:, :cut], cache=merged))
        found: mx.array = self.adapters.tagged(given[:, cut or 0 :], cache=merged)[:, -1]
        mx.eval(found)
        return found


def close(one: mx.array, other: mx.array) -> bool:
    return bool(mx.allclose(one.astype(mx.float32), other.astype(mx.float32), rtol=1e-3, atol=1e-3))


def same(one: mx.array, other: mx.array) -> bool:
    return bool((one == other).all())


@pytest.fixture(scope="module")
def two(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("two")
    return peft(folder / "one", changes(base, 1)), of_mlx(folder / "other", changes(base, 2))


def test_an_adapter_gives_what_merged_weights_give(base: Path, two: tuple[Path, Path], tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    write_model(merged)
    weights = arrays_of(merged / "model.safetensors")
    for module, (a, b) in changes(base, 1).items():
        weights[f"{module}.weight"] = weights[f"{module}.weight"].astype(mx.float32) + ALPHA / RANK * (b @ a)
    mx.save_safetensors(str(merged / "model.safetensors"), weights, {"format": "mlx"})
    served = Served(base, *two)
    adapted = served.logits(TOKENS, [two[0]])
    assert close(adapted, Served(merged).logits(TOKENS, [None]))
    assert not close(adapted, served.logits(TOKENS, [None]))


@pytest.mark.parametrize("dora", [False, True])
def test_peft_and_mlx_lm_mean_the_same(base: Path, tmp_path: Path, dora: bool) -> None:
    given = changes(base, 3)
    magnitudes = magnitudes_of(base, given) if dora else None
    one, other = peft(tmp_path / "one", given, magnitudes), of_mlx(tmp_path / "other", given, magnitudes)
    served = Served(base, one, other)
    assert close(served.logits(TOKENS, [one]), served.logits(TOKENS, [other]))


def test_mlx_lm_computes_the_same_of_its_own_adapters(base: Path, tmp_path: Path) -> None:
    from mlx_lm.tuner.utils import load_adapters

    given = changes(base, 4)
    for dora in (False, True):
        keys = {"lora_parameters": {"rank": RANK, "scale": ALPHA / RANK, "dropout": 0.0, "keys": list(MODULES)}}
        magnitudes = magnitudes_of(base, given) if dora else None
        path = of_mlx(tmp_path / f"adapter-{dora}", given, magnitudes, **keys)
        theirs = load_adapters(build(base, read_config(base)), str(path))
        theirs.set_dtype(mx.float32)
        assert close(theirs(PROMPT)[:, -1], Served(base, path).logits(TOKENS, [path]))


def test_rows_of_a_mixed_batch_are_what_they_are_alone(base: Path, two: tuple[Path, Path]) -> None:
    served = Served(base, *two)
    prompts = [[5, 6, 7, 8], [9, 8, 7, 6], [5, 6, 7, 8], [20, 21, 22, 23]]
    rows = [two[0], None, two[1], two[0]]
    together = served.logits(prompts, rows)
    in_parts = served.logits(prompts, rows, cut=3)
    for at, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        alone = served.logits([prompt], [row])
        assert same(together[at], alone[0]), at
        assert same(in_parts[at], alone[0]), at


def test_a_model_without_active_adapters_computes_as_before(base: Path, two: tuple[Path, Path]) -> None:
    assert same(Served(base).logits(TOKENS, [None]), Served(base, *two).logits(TOKENS, [None]))


def test_a_quantized_model_takes_adapters_too(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    write_model(plain)
    write_model(packed, bits=8)
    path = peft(tmp_path / "one", changes(plain, 1))
    difference = mx.abs(Served(plain, path).logits(TOKENS, [path]) - Served(packed, path).logits(TOKENS, [path]))
    assert float(difference.max()) < 0.1


def test_patterns_and_root_scaling_are_honored(base: Path, tmp_path: Path) -> None:
    given = changes(base, 5)
    plain = peft(tmp_path / "plain", given, alpha_pattern={"v_proj": 12.0})
    scaled = {key: (a, b * 2 if key.endswith("v_proj") else b) for key, (a, b) in given.items()}
    other = peft(tmp_path / "other", scaled)
    root = peft(tmp_path / "root", given, use_rslora=True, lora_alpha=ALPHA / 2, alpha_pattern={"v_proj": ALPHA})
    served = Served(base, plain, other, root)
    for path in (plain, root):
        assert close(served.logits(TOKENS, [path]), served.logits(TOKENS, [other]))


def rewritten(path: Path, change: Callable[[dict[str, mx.array]], dict[str, mx.array]]) -> None:
    file = str(path / "adapter_model.safetensors")
    tensors = {name: mx.array(array) for name, array in arrays_of(Path(file)).items()}
    mx.eval(list(tensors.values()))
    mx.save_safetensors(file, change(tensors))


FIRST = "base_model.model.model.layers.0.self_attn.q_proj"


def configured(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def to_pickle(path: Path) -> None:
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (configured(peft_type="IA3"), UnsupportedModel, "peft_type 'IA3'"),
        (configured(r=0), UnsupportedModel, "rank from 1"),
        (configured(r=8), CorruptModel, "does not fit"),
        (configured(lora_alpha="much"), UnsupportedModel, "lora_alpha"),
        (configured(bias="all"), UnsupportedModel, "sets bias"),
        (configured(modules_to_save=["lm_head"]), UnsupportedModel, "modules_to_save"),
        (configured(fan_in_fan_out=True), UnsupportedModel, "fan_in_fan_out"),
        (configured(use_dora=True), CorruptModel, "lacks a part"),
        (to_pickle, UnsupportedModel, "can run code"),
        (lambda path: (path / "adapter_model.safetensors").unlink(), CorruptModel, "has no adapter_model"),
        (lambda path: (path / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle"), CorruptModel, "safetensors"),
        (lambda path: (path / "adapter_config.json").write_text("["), CorruptModel, "cannot be read"),
        (lambda path: (path / "adapter_config.json").write_text("{}"), UnsupportedModel, "neither PEFT's"),
        (lambda path: rewritten(path, lambda found: found | {"odd": mx.zeros((1,))}), UnsupportedModel, "'odd'"),
        (lambda path: rewritten(path, lambda found: {FIRST.replace("q_proj", "z_proj") + ".lora_A.weight":
            mx.zeros((RANK, 64))}), UnsupportedModel, "z_proj"),
        (lambda path: rewritten(path, lambda found: found | {f"{FIRST}.lora_A.weight": mx.zeros((RANK, 32))}),
         CorruptModel, "does not fit"),
        (lambda path: rewritten(path, lambda found: found | {f"{FIRST}.lora_A.weight": mx.full((RANK, 64), math.nan)}),
         CorruptModel, "not finite"),
        (lambda path: rewritten(path, lambda found: {f"{FIRST}.lora_A.weight": found[f"{FIRST}.lora_A.weight"]}),
         CorruptModel, "lacks a part"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(
    base: Path, tmp_path: Path, spoil: Callable[[Path], object], kind: type[SquishError], said: str
) -> None:
    path = peft(tmp_path / "adapter", changes(base, 1))
    model = build(base, read_config(base))
    assert len(read(path, model, "mine")) == 6
    spoil(path)
    with pytest.raises(kind, match=said):
        read(path, model, "mine")


@pytest.mark.parametrize(("bits", "dora"), [(None, False), (None, True), (8, False), (8, True)])
def test_a_fused_model_computes_what_the_model_with_its_adapter_does(
    tmp_path: Path, bits: int | None, dora: bool
) -> None:
    plain, base, fused = tmp_path / "plain", tmp_path / "base", tmp_path / "fused"
    write_model(plain)
    write_model(base, bits=bits)
    given = changes(plain, 6)
    path = peft(tmp_path / "adapter", given, magnitudes_of(plain, given) if dora else None)
    fused.mkdir()
    fuse(path, base, fused)
    difference = mx.abs(Served(fused).logits(TOKENS, [None]) - Served(base, path).logits(TOKENS, [path]))
    assert float(difference.max()) < (0.1 if bits else 0.02)
    assert {file.name for file in fused.iterdir()} == {file.name for file in base.iterdir()}
