"""Modules that take long to import, for the tests that use them: each process of pytest collects every test."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["ollama", "openai"]


class _Later:
    """Stands for a module, which is imported when the first of its names is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # pytest looks at everything that a module of tests has
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)


if TYPE_CHECKING:
    import ollama
    import openai
else:
    ollama, openai = _Later("ollama"), _Later("openai")
