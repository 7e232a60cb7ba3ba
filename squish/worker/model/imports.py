"""Owns how mlx-lm is imported: the modules that serving needs, without transformers and without a client of the Hub.

`import mlx_lm` takes a second and a thousand modules, nearly all of it for names that mlx-lm mentions and serving never
uses. Here its modules are imported one by one, with stand-ins for those names; `with_transformers` brings in the real
ones for a tokenizer that needs them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from squish.worker.tokenizer.direct import DirectTokenizer

_PARTS = ("_version", "utils", "generate")


class _StandIn:
    """In the place of a class of transformers that is only mentioned."""

    @classmethod
    def register(cls, *_: object, **__: object) -> None:
        """AutoTokenizer.register: mlx-lm registers a class of its own."""


def _no_download(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("A worker downloads nothing.")


_STAND_INS: dict[str, dict[str, Any]] = {
    "transformers": dict.fromkeys(("AutoTokenizer", "PreTrainedTokenizer", "PreTrainedTokenizerFast"), _StandIn),
    "transformers.tokenization_utils_base": {"PreTrainedTokenizerBase": DirectTokenizer},
    "huggingface_hub": {"snapshot_download": _no_download},
}


def prepare() -> None:
    """Import what serving needs of mlx-lm. Call it before anything else imports mlx_lm; then that finds it done."""
    if "mlx_lm" in sys.modules:
        return
    spec = importlib.util.find_spec("mlx_lm")
    assert spec
    package = importlib.util.module_from_spec(spec)
    sys.modules["mlx_lm"] = package
    try:
        with _stand_ins():
            for part in _PARTS:
                importlib.import_module(f"mlx_lm.{part}")
    except ImportError:  # another version of mlx-lm, which mentions more: then all of it, slowly
        for name in [name for name in sys.modules if name.partition(".")[0] == "mlx_lm"]:
            del sys.modules[name]
        importlib.import_module("mlx_lm")


def with_transformers() -> ModuleType:
    """mlx_lm.tokenizer_utils on the real transformers."""
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    module = importlib.import_module("mlx_lm.tokenizer_utils")
    return importlib.reload(module) if module.AutoTokenizer is _StandIn else module


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Modules that have only the names that mlx-lm mentions, for as long as it is imported."""
    made = [name for name in _STAND_INS if name not in sys.modules]
    for name in made:
        module = ModuleType(name)
        module.__dict__.update(_STAND_INS[name])
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]
