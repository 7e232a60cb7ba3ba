"""Which architectures the installed mlx-lm runs, told from its files, without importing it.

A file of mlx_lm/models that defines a `Model` is an architecture; MODEL_REMAPPING in mlx_lm/utils.py names some again.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

# What the GGUF import of the worker reads.
GGUF = frozenset({"llama", "qwen2", "qwen3"})


@cache
def supported() -> frozenset[str]:
    """Every model_type that can be run; empty when mlx-lm is not installed."""
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    root = Path(spec.submodule_search_locations[0])
    own = {path.stem for path in (root / "models").glob("*.py") if _defines_model(path)}
    return frozenset(own | {name for name, target in _remapping(root / "utils.py").items() if target in own})


def _defines_model(path: Path) -> bool:
    return "\nclass Model(" in path.read_text(encoding="utf-8")


def _remapping(path: Path) -> dict[str, str]:
    """The literal MODEL_REMAPPING."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(each) for each in node.targets] == ["MODEL_REMAPPING"]:
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    return {}
