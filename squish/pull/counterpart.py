"""The same model in a format that can be run: what to pull in place of a GGUF file that cannot be imported. Pure."""

from __future__ import annotations

import re

from squish.errors import UnsupportedModel
from squish.models import catalog

# Words of a name that say how a model is stored, or who stored it, and not which it is.
_STORAGE = re.compile(
    r"gguf|mlx|ggml|\d+bit|ud|i1|iq?\d|q\d|tq\d|[ksmlx]|x?xs|xl|nl|0|1|b?fp?(?:16|32)|mxfp4|imat(?:rix)?|dwq|qat"
    r"|meta|google|hf|of|\d{5}"
)
_LEAST = 2  # words that two names must share, so that "model" is nothing


def advised(error: UnsupportedModel, *names: str) -> UnsupportedModel:
    """The same error, with the name in the catalog of the same model, where it knows one.

    names: of the repository and the file that was refused.
    """
    wanted = {words for name in names if len(words := _words(name)) >= _LEAST}
    entry = next((entry for entry in catalog.entries() if _words(entry.repo) in wanted), None)
    if entry is None:
        return error
    hint = f"The same model can be run as {entry.id} ({entry.repo}): squish pull {entry.id}"
    return UnsupportedModel(error.message, hint=hint, param=error.param)


def _words(name: str) -> frozenset[str]:
    """What a name says of the model itself: of org/Llama-3.2-1B-Instruct-GGUF llama, 3.2, 1b and instruct."""
    own = name.rpartition("/")[2].lower()
    found = re.findall(r"[a-z]+\d+(?:\.\d+)?[a-z]*|\d+(?:\.\d+)?[a-z]*|[a-z]+", own)
    return frozenset("instruct" if word == "it" else word for word in found if not _STORAGE.fullmatch(word))
