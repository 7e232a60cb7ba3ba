"""A model in one GGUF file, or in several that are named `…-00001-of-00003.gguf`. It knows no tensor's meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from squish.errors import CorruptModel
from squish.worker.gguf.file import GgufHeader, TensorInfo, read_header

_COUNT, _NUMBER, _TENSORS = "split.count", "split.no", "split.tensors.count"
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)?", re.IGNORECASE)


def is_part(header: GgufHeader) -> bool:
    """Whether a file holds one part of a model."""
    return (header.integer(_COUNT) or 1) > 1


def read_model(source: Path) -> GgufHeader:
    """The header of a model, with the tensors of all of its parts; source: its only file, or any part of it.

    Raises what `read_header` raises, and CorruptModel naming a part that is missing or of another model.
    """
    found = read_header(source)
    if not is_part(found):
        return found
    count = found.integer(_COUNT) or 1
    named = _PART.fullmatch(source.name)
    if named is None or int(named["count"]) != count:
        raise found.unsupported(
            f"it is one of {count} parts, and its name does not say which, as …-00001-of-{count:05} would"
        )
    parts = [
        source.with_name(f"{named['stem']}-{number:05}-of-{count:05}{named['suffix'] or ''}")
        for number in range(1, count + 1)
    ]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise CorruptModel(
            f"{source.name} is one of {count} parts of a model, and {missing[0]} is not beside it.",
            hint="Put all parts into one directory.",
            param=str(source),
        )
    headers = [found if part == source else read_header(part) for part in parts]
    tensors: dict[str, TensorInfo] = {}
    for number, header in enumerate(headers):
        if header.integer(_COUNT) != count or header.integer(_NUMBER) != number or tensors.keys() & header.tensors:
            raise header.corrupt(f"it is not part {number + 1} of this model")
        tensors |= header.tensors
    _check_count(headers[0], tensors)
    return replace(headers[0], tensors=tensors)


def _check_count(first: GgufHeader, tensors: Mapping[str, TensorInfo]) -> None:
    stated = first.integer(_TENSORS)
    if stated is not None and stated != len(tensors):
        raise first.corrupt(f"its parts hold {len(tensors)} tensors, not {stated}")
