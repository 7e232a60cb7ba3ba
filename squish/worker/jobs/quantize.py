"""Compresses a model shard by shard, as its shards arrive.

The whole model is built each time as a graph of unevaluated arrays: shards that are here are read lazily, those still
to come are stand-ins of the right shape. So mlx-lm's own `sanitize` and quantization see a complete model, whatever
they rename, stack or split. The graph says which shards a weight is made of; what can be made is made, written and
forgotten. Memory is that of one output file and one tensor, and a shard can be deleted once nothing needs it.

destination/progress.json is the account: which weights lie in which file. A process killed at any point loses at most
the file it was writing. It knows neither downloads nor the store.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.convert import mixed_quant_predicate_builder
from mlx_lm.utils import quantize_model, save_config

from squish.errors import CorruptModel, StoreError, UnsupportedModel
from squish.files import alone_in, move_whole, write_whole
from squish.ipc.frames import Quantized, QuantizeShards, Recipe
from squish.system.host import HOST
from squish.worker.jobs.allocation import Choice
from squish.worker.jobs.calibrate import calibrate, usual_text
from squish.worker.jobs.compensate import Inputs, also_looked_up, compensated, inputs, squares
from squish.worker.jobs.graph import dependencies
from squish.worker.jobs.lazy_model import Shards, original, writes_text
from squish.worker.jobs.mixture import as_config, commonest, counts_of, dependences, forget, mixture
from squish.worker.jobs.rounding import Floats, is_searched, searched

Progress = Callable[[str, float], None]

_ACCOUNT = "progress.json"
_OUTPUT_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class _Dense:
    """A weight before it is quantized, unevaluated, and how it is to be. counts: of its errors, as for `searched`."""

    weight: mx.array
    bits: int
    group_size: int
    counts: tuple[tuple[Floats, Floats], ...] = ()


class _Account(msgspec.Struct):
    """files: output file → bytes of its arrays; places: weight → output file; bits: of matrices that differ in them;
    unmeasured: as in `Quantized`."""

    files: dict[str, int] = {}
    places: dict[str, str] = {}
    bits: dict[str, Choice] = {}
    unmeasured: str = ""


def quantize_shards(job: QuantizeShards, report: Progress) -> Quantized:
    """Write what the arrived shards make possible; with the last shard also config.json and the index.

    Raises UnsupportedModel (an architecture mlx-lm does not have, a recipe that does not fit it), CorruptModel (weights
    that do not fit config.json), StoreError.
    """
    mx.set_cache_limit(0)
    destination = Path(job.destination)
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with alone_in(destination):  # the worker of a front process that was just killed may still be writing here
            return _Conversion(job, destination, report).run()
    except OSError as error:
        raise StoreError(f"The compressed model cannot be written: {error.strerror or error}.") from error


class _Conversion:
    """One step: the account so far, and the arrived shards."""

    def __init__(self, job: QuantizeShards, destination: Path, report: Progress) -> None:
        self._job, self._destination, self._report = job, destination, report
        self._account = _read_account(destination)
        headers = {path.name.removesuffix(".json"): path for path in sorted(Path(job.headers).glob("*.json"))}
        self._shards = Shards(Path(job.source), headers, frozenset(job.arrived))

    def run(self) -> Quantized:
        recipe, here = self._job.recipe, self._shards.arrived
        if recipe.size is not None and not self._account.bits:
            if not self._shards.complete:
                self._shards.model()  # what does not fit together is refused before all of it is here
                return Quantized((), False, HOST.peak())
            found = mixture(self._job, self._shards, self._destination, self._report)
            self._account.bits, self._account.unmeasured = found
            self._save_account()
        weights, origin = self._shards.weights()
        params, config, dense = _graph(Path(self._job.source), weights, recipe, self._account.bits)
        total = sum(array.nbytes for array in params.values())
        waiting = {name: array for name, array in params.items() if name not in self._account.places}
        needs = _needed_shards(waiting, weights, origin)
        del weights, params
        if recipe.calibrated or (recipe.search and writes_text(Path(self._job.source))):
            if not all(needs[name] <= here for name in waiting):
                return Quantized((), False, HOST.peak())
            if left := {name: each for name, each in dense.items() if f"{name}.weight" in waiting}:
                self._calibrate(left, total)
            waiting = {name: array for name, array in waiting.items() if name not in self._account.places}
        ready = [name for name in waiting if needs[name] <= here]
        searches = recipe.search or recipe.calibrated or recipe.size is not None
        known = dependences(self._destination) if self._account.bits else {}
        chosen = {
            name: replace(each, counts=counts_of(known.get(name, ())))
            for name, each in dense.items()
            if searches and (name in known or is_searched(name, each.bits))
        }
        self._write(ready, waiting, chosen, total)
        missing = set(waiting) - set(ready)
        needed = set().union(*(needs[name] for name in missing))
        if not missing:
            self._finish(config)
        return Quantized(tuple(sorted(here - needed)), not missing, HOST.peak(), self._account.unmeasured)

    def _calibrate(self, dense: dict[str, _Dense], total: int) -> None:
        """Write the matrices that a text, or random tokens, go through, rounded for the inputs that they bring.

        total: bytes of all.
        """
        ready: dict[str, mx.array] = {}
        calibrated = self._job.recipe.calibrated
        last: tuple[mx.array | None, list[Inputs]] = None, []

        def take(name: str, weight: mx.array, x: mx.array, looked_up: bool) -> mx.array | None:
            nonlocal last
            if (how := dense.pop(name, None)) is None:
                return None
            if not calibrated or weight.ndim > 2:
                known = [(np.ones(weight.shape[-2], np.float32), squares(x, looked_up))]
                packed, scales, offsets = searched(weight, how.bits, how.group_size, known)
            else:
                if last[0] is not x:  # queries, keys and values have the same inputs
                    last = x, inputs(x, how.group_size)
                known_inputs = also_looked_up(last[1]) if looked_up else last[1]
                packed, scales, offsets = compensated(weight, how.bits, how.group_size, known_inputs)
            ready.update(
                zip((f"{name}.weight", f"{name}.scales", f"{name}.biases"), (packed, scales, offsets), strict=True)
            )
            rounded = mx.dequantize(packed, scales, offsets, how.group_size, how.bits)
            if sum(array.nbytes for array in ready.values()) >= _OUTPUT_BYTES:
                self._save(ready)
            self._report("compress", self._bytes(ready) / total)
            return rounded

        text = (self._job.text or usual_text()) if calibrated else None
        calibrate(self._shards.model(), Path(self._job.source), text, take)
        self._save(ready)

    def _bytes(self, ready: dict[str, mx.array]) -> int:
        """Bytes of what is written and of what is ready to be."""
        return sum(self._account.files.values()) + sum(array.nbytes for array in ready.values())

    def _write(self, names: list[str], arrays: dict[str, mx.array], dense: dict[str, _Dense], total: int) -> None:
        """Evaluate the weights module by module and write them in files of a bounded size.

        dense: the modules whose scales are searched for.
        """
        ready: dict[str, mx.array] = {}
        for module in _modules(names):
            part = {name: arrays.pop(name) for name in module}
            try:
                if (found := dense.pop(module[0].rpartition(".")[0], None)) is not None:
                    part |= _search(module[0].rpartition(".")[0], found)
                    del found
                mx.eval(list(part.values()))
            except RuntimeError as error:
                raise CorruptModel(f"{module[0]} cannot be read from its shard: {error}.") from error
            ready.update(part)
            if sum(array.nbytes for array in ready.values()) >= _OUTPUT_BYTES:
                self._save(ready)
            self._report("compress", self._bytes(ready) / total)
        self._save(ready)

    def _save(self, arrays: dict[str, mx.array]) -> None:
        """One output file: written, flushed to disk, renamed, and only then entered into the account."""
        if not arrays:
            return
        name = f"part-{len(self._account.files) + 1:05}.safetensors"
        partial = self._destination / f"new-{name}"
        try:
            mx.save_safetensors(str(partial), arrays, metadata={"format": "mlx"})
        except RuntimeError as error:
            raise StoreError(f"The compressed model cannot be written: {error}.") from error
        move_whole(partial, self._destination / name)
        self._account.files[name] = sum(array.nbytes for array in arrays.values())
        self._account.places.update(dict.fromkeys(arrays, name))
        arrays.clear()
        self._save_account()

    def _save_account(self) -> None:
        write_whole(self._destination / _ACCOUNT, msgspec.json.encode(self._account))

    def _finish(self, config: dict[str, Any]) -> None:
        """Give the files their final names and write what says where everything is. Repeating it does no harm."""
        count = len(self._account.files)
        names = {
            name: "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
            for number, name in enumerate(self._account.files, 1)
        }
        for old, new in names.items():
            if (self._destination / old).exists():
                (self._destination / old).replace(self._destination / new)
        for left in self._destination.glob(f".{_ACCOUNT}.*"):  # by a worker that was killed while it wrote
            left.unlink()
        forget(self._destination)
        index = {
            "metadata": {"total_size": sum(self._account.files.values())},
            "weight_map": {name: names[place] for name, place in sorted(self._account.places.items())},
        }
        (self._destination / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        save_config(config, self._destination / "config.json")


def _search(module: str, dense: _Dense) -> dict[str, mx.array]:
    """The module's quantized weight, with scales that were searched for."""
    mx.eval(dense.weight)
    weight, scales, offsets = searched(dense.weight, dense.bits, dense.group_size, dense.counts)
    return {f"{module}.weight": weight, f"{module}.scales": scales, f"{module}.biases": offsets}


def _graph(
    source: Path, weights: dict[str, mx.array], recipe: Recipe, chosen: dict[str, Choice]
) -> tuple[dict[str, mx.array], dict[str, Any], dict[str, _Dense]]:
    """The parameters of the compressed model, unevaluated, its config.json, and what may be searched for.

    chosen: the bits of each matrix, empty where the recipe says them.
    """
    model, config = original(source, weights)
    before = dict(tree_flatten(model.parameters()))
    bits, group, predicate = recipe.bits, recipe.group_size, None
    try:
        if chosen:
            (bits, group), predicate = commonest(chosen), lambda name, _: name in chosen and as_config(chosen[name])
        elif recipe.mixed:
            predicate = mixed_quant_predicate_builder(recipe.mixed, model, group)
        with contextlib.redirect_stdout(io.StringIO()):  # mlx-lm prints a line
            model, config = quantize_model(model, config, group, bits, mode=recipe.mode, quant_predicate=predicate)
    except ValueError as error:
        raise UnsupportedModel(f"This model cannot be compressed in this way: {error}") from error
    params = dict(tree_flatten(model.parameters()))
    if not any(name.endswith(".scales") for name in params):
        large = recipe.mode == "affine" and recipe.group_size > 32
        raise UnsupportedModel(
            f"No layer of this model has a width that is a multiple of {recipe.group_size}, so none can be "
            "compressed in groups of that size.",
            hint="--bits none takes it as it is" + (", --group-size 32 makes smaller groups." if large else "."),
            param="--group-size",
        )
    dense = {
        name: _Dense(before[f"{name}.weight"], module.bits, module.group_size)
        for name, module in model.named_modules()
        if f"{name}.scales" in params and f"{name}.biases" in params
    }
    return params, config, dense


def _needed_shards(
    params: dict[str, mx.array], weights: dict[str, mx.array], origin: dict[str, str]
) -> dict[str, frozenset[str]]:
    """Which shards each parameter is made of."""
    return {
        name: frozenset(origin[each] for each in sources) for name, sources in dependencies(params, weights).items()
    }


def _modules(names: Iterable[str]) -> list[list[str]]:
    """The names in groups of one module: its weight, scales and biases come out of one computation."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    return list(groups.values())


def _read_account(destination: Path) -> _Account:
    try:
        return msgspec.json.decode((destination / _ACCOUNT).read_bytes(), type=_Account)
    except (OSError, ValueError, RecursionError):
        return _Account()
