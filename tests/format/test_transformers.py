"""config.json as transformers writes it: every architecture that mlx-lm runs computes the same, or is refused by name.

Models are built in full size, which costs nothing as long as no weight is looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mlx.nn.layers.positional_encoding import RoPE
from mlx_lm.utils import _get_classes

from squish.errors import UnsupportedModel
from squish.format.config import normalized
from tests.format import written

THETA, SLIDING_THETA = 123_456.0, 6_543.0
# What each kind of scaling is given. longrope gets as many factors as there are pairs.
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 2.0},
    "llama3": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 1024, "beta_fast": 24.0, "beta_slow": 2.0},
    "longrope": {"original_max_position_embeddings": 1024},
}  # fmt: skip
# Refused as transformers writes it by default: the key that mlx-lm's code has no place for.
REFUSED = {
    "glm": "partial_rotary_factor",
    "olmo3": "rope_parameters.sliding_attention.rope_theta",  # with another base for windowed layers
    "recurrent_gemma": "rope_theta",
}
# Not built from what transformers writes: mlx-lm wants keys that stand nowhere in it, and says which.
LACKING = {
    "bailing_hybrid": "group_norm_size",
    "kimi_linear": "linear_attn_config",
    "mamba2": "intermediate_size",
    "mimo_v2_flash": "hybrid_layer_pattern",
}
# Its code belongs to a package that mlx-lm does not bring.
ABSENT = {"olmo"}
WITHOUT = {"falcon_mamba", "gpt2", "gpt_bigcode", "gptj", "jamba", "kimi_linear", "mamba", "mamba2", "nemotron_h"}


def build(config: dict[str, Any]) -> Any:
    model_class, arguments = _get_classes(config)
    model: Any = model_class(arguments.from_dict(config))
    return model


def ropes(model: Any) -> Iterator[tuple[int, Any]]:
    """The rotary embedding of each layer that has one, with the layer's number."""
    for name, module in model.named_modules():
        number = re.search(r"(?:layers|blocks|h)\.(\d+)\.", f"{name}.")
        is_rope = isinstance(module, RoPE) or hasattr(module, "_freqs") or type(module).__name__.endswith("RoPE")
        if (number and is_rope and "vision" not in name and type(module).__name__ != "NoPE") or (
            number and hasattr(module, "_rope_freqs")
        ):
            yield int(number[1]), module


def wavelengths(module: Any) -> list[float]:
    if hasattr(module, "_rope_freqs"):
        return [abs(each) for each in module._rope_freqs.tolist()]
    if hasattr(module, "_freqs") and module._freqs is not None:
        found: list[float] = module._freqs.tolist()
        return [each for each in found if each != float("inf")]
    size, scale = getattr(module, "dims", 0), getattr(module, "scale", 1.0)
    return [module.base ** (2 * i / size) / scale for i in range(size // 2)]


@cache
def changes(kind: str, scaling: str) -> dict[str, Any]:
    found: dict[str, Any] = {"rope_theta": THETA}
    if kind == "minimax_m3_vl":  # an example contradicts itself: half of a head here, all of it there
        found |= {"partial_rotary_factor": 0.5}
    if scaling == "default":
        return found
    found |= {"rope_type": scaling} | SCALINGS[scaling]
    if scaling == "dynamic" and kind == "hunyuan_v1_dense":
        found |= {"alpha": 50.0}
    if scaling == "longrope":
        text = written.default(kind)
        pairs = written.rotated(text, 0) // 2
        found |= {"short_factor": [1.0 + i / pairs for i in range(pairs)]}
        found |= {"long_factor": [2.0 + i / pairs for i in range(pairs)]}
    return found


def outcome(kind: str, scaling: str) -> str:
    """ "same" when the model has the rotary embedding that was written; otherwise the key that is refused."""
    own = changes(kind, scaling)
    config, text = written.write(kind, own, sliding={"rope_theta": SLIDING_THETA})
    try:
        found = normalized(config, kind)
    except UnsupportedModel as error:
        assert error.param == "config.json"
        key = re.search(r" sets (\S+) to ", error.message)
        assert key is not None, error.message
        return key[1]
    assert set(config) <= set(found), "something was removed"
    assert normalized(found, kind) == found, "normalizing twice is not normalizing once"
    compared: set[str] = set()  # most layers are alike, and comparing takes long
    for layer, module in ropes(build(found)):
        rope, rotated, got = written.rope_of(text, layer), written.rotated(text, layer), wavelengths(module)
        alike = f"{rope} {rotated} {got}"
        if alike not in compared:
            assert got == pytest.approx(written.wavelengths(rope, rotated), rel=1e-3), f"layer {layer}"
            compared.add(alike)
    assert compared, "there is no rotary embedding to look at"
    return "same"


ROTARY = [kind for kind in written.shared() if kind not in WITHOUT | ABSENT | set(LACKING)]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if number % 4 == 0 or kind in REFUSED else pytest.mark.long)
        for number, kind in enumerate(ROTARY)
    ],
)
def test_the_base_is_the_one_that_transformers_wrote(kind: str) -> None:
    assert outcome(kind, "default") == REFUSED.get(kind, "same")


def test_every_shared_architecture_is_accounted_for() -> None:
    """New ones of either library come into the table of docs/models.md by way of this test."""
    kinds = written.shared()
    assert ABSENT | WITHOUT | set(LACKING) | set(REFUSED) <= set(kinds)
    same = set(ROTARY) - set(REFUSED)
    page = Path("docs/models.md").read_text(encoding="utf-8")
    assert f"{len(same)} of the {len(kinds)}" in page


# What transformers itself does not write for these: it refuses the values.
UNWRITTEN = {
    "linear": {"phi3", "phimoe"},
    "dynamic": {"phi3", "phimoe"},
    "llama3": {"phi3", "phimoe", "recurrent_gemma"},
    "yarn": {"phi3", "phimoe", "recurrent_gemma"},
    # phimoe wants more; the rest writes no length of the context by default, or heads that differ in size
    "longrope": {
        "gemma4", "gemma4_text", "gemma4_unified", "gpt_oss", "hunyuan_v1_dense", "minimax", "minimax_m3_vl", "mixtral",
        "phimoe", "recurrent_gemma",
    },
}  # fmt: skip
REFUSABLE = ("rope_type", "partial_rotary_factor", "rope_parameters.sliding_attention.rope_theta")
SCALED = {"linear": 43, "dynamic": 44, "llama3": 42, "yarn": 43, "longrope": 42}


@pytest.mark.parametrize("scaling", sorted(SCALINGS))
def test_scaling_of_one_in_nine_is_what_transformers_wrote_or_is_refused_by_name(scaling: str) -> None:
    found = Counter(outcome(kind, scaling) for kind in ROTARY[::9] if kind not in UNWRITTEN[scaling])
    assert found["same"] > 2
    assert all(key == "same" or key.endswith(REFUSABLE) for key in found), found


@pytest.mark.long
@pytest.mark.parametrize("scaling", sorted(SCALINGS))
def test_scaling_is_what_transformers_wrote_or_is_refused_by_name(scaling: str) -> None:
    found = Counter(outcome(kind, scaling) for kind in ROTARY if kind not in UNWRITTEN[scaling])
    assert found.pop("same") == SCALED[scaling]
    assert all(key.endswith(REFUSABLE) for key in found), found


@pytest.mark.parametrize(("kind", "key"), sorted(LACKING.items()))
def test_what_transformers_does_not_write_is_missed_aloud(kind: str, key: str) -> None:
    config, _ = written.write(kind)
    with pytest.raises(TypeError, match=key):
        build(normalized(config, kind))


def test_the_part_of_a_head_that_is_rotated_is_the_one_that_was_written() -> None:
    partial = [k for k in ROTARY if "partial_rotary_factor" in str(written.write(k)[0].get("rope_parameters"))]
    assert partial
    for kind in partial:
        check_part(kind)


def check_part(kind: str) -> None:
    part = {"rope_theta": THETA, "partial_rotary_factor": 0.5}
    config, text = written.write(kind, part)
    try:
        model = build(normalized(config, kind))
    except UnsupportedModel as error:
        assert "partial_rotary_factor" in error.message or kind in REFUSED, kind
        return
    for layer, module in ropes(model):
        assert len(wavelengths(module)) == written.rotated(text, layer) // 2 or "proportional" in str(config), kind
