"""Which architectures are run: those of the installed mlx-lm, as its files say, without importing it, and our encoders.

A file of mlx_lm/models that defines a `Model` is an architecture; MODEL_REMAPPING in mlx_lm/utils.py names some again.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

# What the GGUF import of the worker reads: the names of its families.
GGUF = frozenset({
    "afmoe", "apertus", "bailingmoe", "bailingmoe2", "cohere2", "command-r", "dbrx", "deci", "deepseek",
    "deepseek2", "dots1", "ernie4_5", "ernie4_5-moe", "exaone", "exaone-moe", "exaone4", "falcon-h1", "gemma",
    "gemma2", "gemma3", "gemma3n", "gemma4", "glm-dsa", "glm4", "glm4moe", "gpt-oss", "gpt2", "gptneox",
    "granite", "granitehybrid", "granitemoe", "hunyuan-dense", "hunyuan-moe", "internlm2", "jamba",
    "kimi-linear", "lfm2", "lfm2moe", "llama", "llama4", "mamba", "mamba2", "mimo2", "minicpm", "minicpm3",
    "minimax-m2", "mistral3", "mistral4", "nemotron", "nemotron_h", "nemotron_h_moe", "olmo", "olmo2", "olmoe",
    "openelm", "phi2", "phi3", "phimoe", "plamo", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen35",
    "qwen35moe", "qwen3moe", "qwen3next", "qwen3vl", "qwen3vlmoe", "rwkv7", "seed_oss", "smollm3", "stablelm",
    "starcoder", "starcoder2", "step35",
})  # fmt: skip
# Models that read a text in both directions and make vectors of it: worker/embedding has their code, mlx-lm none.
ENCODERS = frozenset({"bert", "roberta", "xlm-roberta"})
# Modules of mlx_lm/models whose KV cache can have 16 or 8 bits on a CPU: what worker/cpu/fusion.py puts together.
WITH_KV_BITS = frozenset({"gemma3", "gemma3_text", "llama", "qwen2", "qwen3", "smollm3"})
USUAL_KV_BITS = 16  # of a number there, unless the user chooses others


@cache
def is_supported(kind: str) -> bool:
    """Whether this model_type can be run: `kind in supported()`, with one file read instead of all."""
    if kind in ENCODERS:
        return True
    root, module = models_directory(), module_of({"model_type": kind})
    path = None if root is None or Path(module).name != module else root / f"{module}.py"
    return path is not None and path.is_file() and _defines_model(path)


@cache
def supported() -> frozenset[str]:
    """Every model_type that can be run; none when mlx-lm is not installed."""
    root = models_directory()
    if root is None:
        return frozenset()
    own = {path.stem for path in root.glob("*.py") if _defines_model(path)}
    return ENCODERS | own | {name for name, target in _literal("MODEL_REMAPPING").items() if target in own}


def module_of(config: Mapping[str, Any]) -> str:
    """The module of mlx_lm/models that runs a model with this config.json. It need not exist."""
    kind, named = str(config.get("model_type")), config.get("architectures") or ()
    others = _literal("MODEL_ARCHITECTURE_REMAPPING")
    for architecture in [named] if isinstance(named, str) else named if isinstance(named, list) else ():
        if isinstance(architecture, str) and (kind, architecture) in others:
            return str(others[kind, architecture])
    return str(_literal("MODEL_REMAPPING").get(kind, kind))


@cache
def models_directory() -> Path | None:
    """Where the architectures of the installed mlx-lm lie; None when it is not installed."""
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "models"


def _defines_model(path: Path) -> bool:
    return "\nclass Model(" in path.read_text(encoding="utf-8")


@cache
def _literal(name: str) -> Mapping[Any, str]:
    """A table that stands literally in mlx_lm/utils.py; empty where it does not.

    Only its lines are parsed: all of the file takes longer than the rest of `squish list`."""
    root = models_directory()
    source = "" if root is None else (root.parent / "utils.py").read_text(encoding="utf-8")
    found = re.search(rf"^{name} = (\{{.*?\}})$", source, re.MULTILINE | re.DOTALL)
    table: dict[Any, str] = ast.literal_eval(found[1]) if found else {}
    return table
