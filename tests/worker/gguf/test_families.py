"""A tiny random model of each family, written as llama.cpp's converter writes it, answers as its safetensors do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers.quantized import QuantizedLinear
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear
from mlx_lm.utils import _get_classes, load_model

from squish.format import architectures
from squish.format.config import normalized, text_of
from squish.worker.gguf.families.every import FAMILIES
from squish.worker.gguf.families.refused import REFUSED
from squish.worker.gguf.importer import import_gguf
from squish.worker.jobs.calibrate import calibrate
from squish.worker.model.load import tokenizer_of
from squish.worker.model.model_files import given, read_config
from tests.worker.gguf.cases import CONTEXT, LONG_FACTORS, Case, plain
from tests.worker.gguf.cases_dense import DENSE
from tests.worker.gguf.cases_early import EARLY
from tests.worker.gguf.cases_moe import MOE
from tests.worker.gguf.cases_sparse import SPARSE
from tests.worker.gguf.cases_state import STATE
from tests.worker.gguf.tiny import MERGES, tiny_vocabulary
from tests.worker.gguf.writer import F32, Blob, Value, pack, unpack, write_gguf

CASES = [*DENSE, *MOE, *EARLY, *STATE, *SPARSE]
PROMPT = mx.array([[72, 3, 200, 41, 5, 17, 99, 250, 11, 12]])
_KEYS = {
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length", "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon", "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length", "head_dim": "attention.key_length",
}  # fmt: skip


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    """Compiling a function for a CPU takes longer than all that is computed here."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_family_answers_as_its_safetensors_do(case: Case, tmp_path: Path) -> None:
    reference, metadata, tensors = made(case)
    ours = imported(write_gguf(tmp_path / "tiny.gguf", metadata, tensors))(PROMPT)
    theirs = reference(PROMPT)
    tokenizer = tokenizer_of(tmp_path / "tiny", None, None)
    assert tokenizer.decode(tokenizer.encode("hello wow")) == "hello wow"
    assert float(mx.abs(theirs).max()) > 0.1
    assert mx.allclose(ours, theirs, rtol=1e-4, atol=1e-4).item(), float(mx.abs(ours - theirs).max())


# One of each way to have experts, heads and a state.
REACHED = {"llama", "mixtral", "gpt-oss", "deepseek2", "gptneox", "dbrx", "mamba", "rwkv7", "qwen3next", "kimi-linear"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case.id in REACHED else pytest.mark.long) for case in CASES],
    ids=lambda case: case.id,
)
def test_random_tokens_reach_every_matrix_of_a_family(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `--search` knows its inputs; but for embeddings that are only looked up, and latent heads."""
    monkeypatch.setattr("squish.worker.jobs.calibrate._WINDOW", CONTEXT)  # so many positions have the models here
    model, seen = made(case)[0], set[str]()

    def take(name: str, weight: mx.array, x: mx.array, looked_up: bool) -> None:
        assert x.shape[-1] == weight.shape[-1] and mx.isfinite(x).all().item()
        seen.add(name)

    kinds = {name: type(module) for name, module in model.named_modules() if hasattr(module, "to_quantized")}
    calibrate(model, Path(), None, take)
    left_out = {name for name, kind in kinds.items() if kind.__name__ in ("Embedding", "MultiLinear")}
    assert len(seen) > 4 and kinds.keys() - seen <= left_out


# Of these the weights are joined, divided, reordered or stacked.
PACKED = [
    "llama", "mixtral", "gpt-oss", "deepseek2", "qwen3next", "gemma4 with experts", "gptneox", "dbrx", "deci",
    "plamo", "bailingmoe", "mistral4, gates with the rest", "mamba", "nemotron_h_moe", "rwkv7", "kimi-linear",
]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        *((label, "Q8_0") for label in PACKED),
        *(
            pytest.param(label, "MXFP4", marks=() if label in ("llama", "gpt-oss", "dbrx") else pytest.mark.long)
            for label in PACKED
        ),
    ],
)
def test_weights_stay_packed_through_what_is_done_to_them(label: str, kind: str, tmp_path: Path) -> None:
    """Joined, divided, reordered and stacked, they answer as the same weights do as plain numbers."""
    _, metadata, plain = made(next(case for case in CASES if case.id == label))
    number, packed = gguf.GGMLQuantizationType[kind], dict(plain)
    for name, blob in plain.items():
        if len(blob.shape) > 1 and blob.shape[-1] % 32 == 0 and "norm" not in name and "conv" not in name:
            blocks: Any = gguf.quants.quantize(unpack(blob), number)
            packed[name] = Blob(blob.shape, int(number), blocks.tobytes())
            plain[name] = pack(gguf.quants.dequantize(blocks, number).reshape(blob.shape), F32)
    ours, theirs = (
        imported(write_gguf(tmp_path / f"{name}.gguf", metadata, tensors))
        for name, tensors in (("packed", packed), ("plain", plain))
    )
    assert any(isinstance(each, QuantizedLinear | QuantizedSwitchLinear) for each in ours.modules())
    if kind == "Q8_0":  # embeddings are seldom MXFP4, and MLX looks those up in float32
        assert ours(PROMPT).dtype == mx.float16
    ours.set_dtype(mx.float32)
    # Norms and biases beside packed weights are float16; a row in a wrong place would move the logits by far more.
    assert mx.allclose(ours(PROMPT), theirs(PROMPT), rtol=2e-2, atol=3e-2).item()


def test_every_family_is_tried_and_looked_for_on_the_hub() -> None:
    assert {case.architecture for case in CASES} == set(FAMILIES) == architectures.GGUF


def test_every_architecture_that_gguf_names_is_imported_or_refused_with_a_reason() -> None:
    assert FAMILIES.keys() | REFUSED.keys() == set(gguf.MODEL_ARCH_NAMES.values())
    assert not FAMILIES.keys() & REFUSED.keys() and all(REFUSED.values())


def made(case: Case) -> tuple[Any, dict[str, Value], dict[str, Blob]]:
    """A random model, and the metadata and tensors of its GGUF file."""
    tokens, types = tiny_vocabulary()
    text = {"vocab_size": len(tokens), **plain(case.config)}
    outer = {key: text[key] for key in ("vocab_size", "tie_word_embeddings")}
    config = normalized({**outer, "model_type": case.wrapped, "text_config": text} if case.wrapped else text, "tiny")
    reference, config = _random(case, config), dict(text_of(config))
    arrays: Any = tree_flatten(reference.parameters())
    return reference, _metadata(case, config, tokens, types), _stored(case, config, arrays)


def imported(source: Path) -> Any:
    destination = source.with_suffix("")
    import_gguf(source, destination)
    with given(read_config(destination)):
        return load_model(destination)[0]


def _random(case: Case, config: dict[str, Any]) -> Any:
    model_class, arguments = _get_classes(config=config)
    model = model_class(arguments.from_dict(config))
    flat: Any = tree_flatten(model.parameters())
    if config["model_type"].startswith("gemma3"):  # it drops its output once it sees that there are no weights for it
        model.sanitize({name: array for name, array in flat if name != "lm_head.weight"})
        flat = tree_flatten(model.parameters())
    random = np.random.default_rng(7)
    seen = []
    for name, like in flat:
        if name.endswith(case.unstored):
            continue
        mean, spread = (case.norms, 0.1) if name.endswith("norm.weight") else (0.0, 0.2)
        seen.append((name, mx.array((mean + spread * random.standard_normal(like.shape)).astype(np.float32))))
    model.update(tree_unflatten(seen))
    model.eval()
    return model


def _stored(case: Case, config: dict[str, Any], arrays: list[tuple[str, mx.array]]) -> dict[str, Blob]:
    """The tensors under GGUF's names, as the converter leaves them."""
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == case.architecture)
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    found = {}
    if LONG_FACTORS in (config.get("rope_scaling") or {}).values():
        for end, factors in (("long", LONG_FACTORS), ("short", [1.0] * len(LONG_FACTORS))):
            found[f"rope_factors_{end}.weight"] = pack(np.array(factors, np.float32), F32)
    if case.architecture == "gemma4":
        found["rope_freqs.weight"] = pack(np.array([1.0] * 4 + [1e30] * 12, np.float32), F32)
    for name, array in _stacked(case, arrays):
        divided = case.split(name, np.array(array), config) if case.split else {name: np.array(array)}
        for theirs, values in divided.items():
            stored = _name(case, theirs, names)
            for end, change in case.changes.items():
                if stored.endswith(end):
                    values = change(values, config)
            found[stored] = pack(np.ascontiguousarray(values), F32)
    parts, whole, axis = case.joined or ((), "", 0)
    for name in [each for each in found if parts and parts[0] in each]:
        members = [unpack(found.pop(name.replace(parts[0], each))) for each in parts]
        found[name.replace(parts[0], whole)] = pack(np.concatenate(members, axis), F32)
    known = {gguf.TENSOR_NAMES[each] for each in gguf.MODEL_TENSORS[architecture]}
    others = {re.sub(r"blk\.\d+", "blk.{bid}", name).removesuffix(".weight").removesuffix(".bias") for name in found}
    assert others - known <= {name for name in others if name.endswith(".scale")}, "not tensors of this architecture"
    return found


def _name(case: Case, name: str, names: Any) -> str:
    """What GGUF calls a parameter; one that begins with "=" has its name in the layer already."""
    if name.startswith("="):
        return re.sub(r"^=.*?\.(\d+)\.", r"blk.\1.", name)
    for ours, theirs in case.names:
        name = name.replace(ours, theirs)
    stored: str | None = names.get_name(name, try_suffixes=(".weight", ".bias"))
    assert stored is not None, f"gguf has no name for {name}"
    return stored


def _stacked(case: Case, arrays: list[tuple[str, mx.array]]) -> list[tuple[str, mx.array]]:
    """With what is numbered below one of the case's names in one tensor."""
    found: dict[str, list[mx.array]] = {}
    for name, array in arrays:
        if name.endswith(case.unstored):
            continue
        whole = next((name[: name.index(each)] + each + ".weight" for each in case.stacked if each in name), name)
        for each in case.stacked:
            whole = re.sub(re.escape(each).replace(r"\*", r"\d+"), each.replace("*", "mlp"), whole)
        found.setdefault(whole, []).append(array)
    return [(name, parts[0] if len(parts) == 1 else mx.stack(parts)) for name, parts in found.items()]


def _metadata(case: Case, config: dict[str, Any], tokens: list[str], types: list[int]) -> dict[str, Value]:
    own = {f"{case.architecture}.{key}": config[name] for name, key in _KEYS.items() if config.get(name) is not None}
    own |= {f"{case.architecture}.{key}": value for key, value in case.settings.items()}
    return {
        "general.architecture": case.architecture,
        **{key: value for key, value in own.items() if value is not None},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
    }
