"""From a size to the bits of each matrix of a model: measured, rounded in every way that is possible, chosen.

What has been found is kept beside the compressed model until that is whole, so a worker that is killed loses the
matrix at hand, or the reading of the text. It writes no weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import msgspec
import numpy as np
from mlx.utils import tree_flatten

from squish.errors import CorruptModel, InvalidInput
from squish.files import move_whole, write_whole
from squish.ipc.frames import QuantizeShards
from squish.worker.jobs import sensitivity
from squish.worker.jobs.allocation import Choice, Harms, allocate, choices, harms, size
from squish.worker.jobs.calibrate import usual_text, windows
from squish.worker.jobs.lazy_model import Shards, writes_text
from squish.worker.jobs.rounding import Floats
from squish.worker.jobs.sensitivity import Dependence, Unmeasurable

_GROUPS = (32, 64)
_WINDOW = 128
_WINDOWS = 8
_DEPENDENCES = "dependences.safetensors"
_HARMS = "harms.json"
_REASON = "unmeasured"
_READING = 0.5  # of the time, about, that all of it takes


def mixture(
    job: QuantizeShards, shards: Shards, directory: Path, report: Callable[[str, float], None]
) -> tuple[dict[str, Choice], str]:
    """The bits of each matrix with which the model has the size of the recipe, and why they rest on no measurement of
    what it matters, "" where they do. All shards must be here.

    directory: for what has been found so far. Raises InvalidInput where the size is too small for this model.
    """
    known, reason = _measured(job, shards, directory, lambda part: report("score", part * _READING))
    model = shards.model()
    matrices = dict(_matrices(model))
    weights = {name: weight for name, (weight, _) in matrices.items()}
    sizes = {
        name: [size(weight.size, choice, weight.itemsize) for choice in allowed]
        for name, (weight, allowed) in matrices.items()
    }
    params: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    rest = sum(array.nbytes for name, array in params.items() if name.removesuffix(".weight") not in matrices)
    count = sum(array.size for array in params.values())
    allowed = {name: each for name, (_, each) in matrices.items()}
    del model, params, matrices  # they would keep in memory what was read
    found = _harms(weights, allowed, known, directory, lambda part: report("score", _READING + part * (1 - _READING)))
    assert job.recipe.size is not None
    chosen = allocate(found, sizes, int(job.recipe.size * count / 8) - rest)
    if chosen is None:
        least = 8 * (rest + sum(min(each) for each in sizes.values())) / count
        problem = f"This model has at least {least:.2f} bits a weight, so {job.recipe.size:g} are too few."
        raise InvalidInput(problem, hint="--bits takes more.", param="--bits")
    return chosen, reason


def commonest(chosen: dict[str, Choice]) -> Choice:
    """What config.json says of all matrices that it says nothing else of: the bits of most, and a group all have."""
    bits = Counter(each.bits for each in chosen.values()).most_common(1)[0][0]
    return Choice(bits, min(each.group_size for each in chosen.values()))


def as_config(choice: Choice) -> dict[str, Any]:
    """How config.json says it of one matrix."""
    return {"group_size": choice.group_size, "bits": choice.bits, "mode": "affine"}


def dependences(directory: Path) -> dict[str, list[Dependence]]:
    """What was measured of a model that is written to this directory; empty where nothing was."""
    path = directory / _DEPENDENCES
    return _kept(path)[0] if path.exists() else {}


def _kept(path: Path) -> tuple[dict[str, list[Dependence]], str]:
    """What was measured, and why nothing was, "" where it was."""
    arrays, metadata = cast(Any, mx.load(str(path), return_metadata=True))
    return _unflat(arrays), str(metadata.get(_REASON, ""))


def counts_of(known: Iterable[Dependence]) -> tuple[tuple[Floats, Floats], ...]:
    """How much the error of each weight of a matrix counts, by row and by column."""
    return tuple((np.array(each.rows), np.array(each.columns)) for each in known)


def forget(directory: Path) -> None:
    """Delete what was kept for a worker that takes over, and what one that was killed was writing."""
    for name in (_DEPENDENCES, _HARMS):
        for path in (directory / name, *directory.glob(f".{name}.*")):
            path.unlink(missing_ok=True)


def _matrices(model: Any) -> Iterator[tuple[str, tuple[mx.array, list[Choice]]]]:
    """Every matrix that can be quantized, and what it may get. What mlx-lm wants for a matrix, it gets."""
    wanted = getattr(model, "quant_predicate", None) or (lambda *_: True)
    for name, module in model.named_modules():
        if not hasattr(module, "to_quantized") or not (wish := wanted(name, module)):
            continue
        allowed = choices(module.weight.shape[-1], _GROUPS)
        if isinstance(wish, dict):
            allowed = [Choice(*each) for each in allowed if each == (wish["bits"], wish["group_size"])]
        if allowed:
            yield name, (module.weight, allowed)


def _measured(
    job: QuantizeShards, shards: Shards, directory: Path, report: Callable[[float], None]
) -> tuple[dict[str, list[Dependence]], str]:
    """How much each matrix counts; nothing, and why, for a model that cannot be measured."""
    path = directory / _DEPENDENCES
    if not path.exists():
        found: dict[str, list[Dependence]] = {}
        reason = "it writes no text"
        source = Path(job.source)
        if writes_text(source):
            tokens = windows(source, job.text or usual_text(), _WINDOW, _WINDOWS)
            try:
                found, reason = sensitivity.measure(shards.model, tokens, report), ""
            except Unmeasurable as error:
                reason = str(error)
            except RuntimeError as error:
                raise CorruptModel(f"A weight cannot be read from its shard: {error}.") from error
        partial = directory / f"new-{_DEPENDENCES}"
        mx.save_safetensors(str(partial), _flat(found) or {"none": mx.zeros((1,))}, metadata={_REASON: reason})
        move_whole(partial, path)
    return _kept(path)


def _harms(
    weights: dict[str, mx.array],
    allowed: dict[str, list[Choice]],
    known: dict[str, list[Dependence]],
    directory: Path,
    report: Callable[[float], None],
) -> dict[str, Harms]:
    """What each choice does to each matrix. weights: unread; they are taken out as they are read."""
    path = directory / _HARMS
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, Harms])
    except (OSError, ValueError, RecursionError):
        found = {}
    total, done = sum(weight.size for weight in weights.values()), 0
    for name in list(weights):
        weight = weights.pop(name)
        done += weight.size
        if name not in found:
            try:
                found[name] = harms(weight, allowed[name], known.get(name, []))
            except RuntimeError as error:
                raise CorruptModel(f"{name} cannot be read from its shard: {error}.") from error
            write_whole(path, msgspec.json.encode(found), durable=False)
        report(done / total)
    return found


def _flat(known: dict[str, list[Dependence]]) -> dict[str, mx.array]:
    """By names that say of which matrix, which of its dependences, and rows or columns."""
    parts = ((f"{name}:{number}", each) for name, found in known.items() for number, each in enumerate(found))
    return {f"{name}:{kind}": getattr(each, kind) for name, each in parts for kind in ("rows", "columns")}


def _unflat(arrays: dict[str, mx.array]) -> dict[str, list[Dependence]]:
    known: dict[str, list[Dependence]] = {}
    for key in sorted(arrays):
        if key.endswith(":rows"):
            part = key.removesuffix(":rows")
            known.setdefault(part.rpartition(":")[0], []).append(Dependence(arrays[key], arrays[f"{part}:columns"]))
    return known
