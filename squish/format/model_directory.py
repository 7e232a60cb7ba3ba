"""The small files of a model directory, read as what they are: files that somebody else wrote.

Only regular files are opened, through links too (a Hub cache is made of them), never waited for, and up to a size. A
byte order mark is taken for what it is. Pure: both processes use it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from squish.errors import CorruptModel

CONFIG, GENERATION, TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"
_LARGEST = 64 << 20  # an index of the largest models has a tenth of that
# transformers writes numbers that JSON cannot say as {"__float__": "Infinity"}.
_FLOAT = "__float__"
_FLOATS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}


def read_bytes(path: Path, most: int = _LARGEST) -> bytes:
    """A regular file of at most so many bytes. Raises OSError, also for a FIFO, a device and a larger file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, and {most:,} are read at most", str(path))
        return file.read(most + 1)


def parse_object(content: bytes, file: str) -> dict[str, Any]:
    """The object of a JSON file. file: its name and whose it is, for the error. Raises CorruptModel."""
    try:
        found = json.loads(content.decode("utf-8-sig"), object_hook=_number)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise CorruptModel(f"{file} cannot be read: {reason}.", param=file.split(" ")[0]) from error
    if not isinstance(found, dict):
        raise CorruptModel(f"{file} is not a JSON object.", param=file.split(" ")[0])
    return found


def read_object(path: Path, name: str) -> dict[str, Any]:
    """The object of a JSON file of the model called `name`. Raises FileNotFoundError, CorruptModel."""
    file = f"{path.name} of {name}"
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptModel(f"{file} cannot be read: {error.strerror or error}.", param=path.name) from error
    return parse_object(content, file)


def read_config(directory: Path, name: str) -> dict[str, Any]:
    """config.json, with the ids that end an answer as generation_config.json says them. Raises CorruptModel."""
    try:
        config = read_object(directory / CONFIG, name)
    except FileNotFoundError as error:
        raise CorruptModel(f"{name} has no config.json, so it is not an MLX model.", param=CONFIG) from error
    try:
        ends = read_object(directory / GENERATION, name).get("eos_token_id")
    except (FileNotFoundError, CorruptModel):  # a model answers without
        ends = None
    return config | {"eos_token_id": ends} if ends else config


def _number(found: dict[str, Any]) -> Any:
    value = found.get(_FLOAT)
    return _FLOATS[value] if len(found) == 1 and isinstance(value, str) and value in _FLOATS else found
