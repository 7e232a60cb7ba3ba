"""Measures how much a model's predictions depend on each of its matrices: a text read forward, then backward.

What a change ΔW of a matrix does to the predictions is, to second order, ½·Σ G²·ΔW² nats, if the changes of its weights
do not depend on each other: G is the gradient of the likelihood of tokens that the model itself would draw (the
diagonal of Fisher's information). The sums of G² by row and by column say enough of it: two vectors a matrix.

The layers go one after the other, each with its weights read, used and forgotten, forward and then backward; memory is
that of the activations and one layer. It knows neither how matrices are rounded nor where anything is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.utils import tree_map
from mlx_lm.models.switch_layers import SwitchLinear

from squish.errors import CorruptModel
from squish.worker.jobs.calibrate import become, product_of
from squish.worker.prompt.encoder import FOREIGN_TOKENIZER

_POSITIONS = 128  # whose probabilities are in memory at once: one for each token of the vocabulary


@dataclass(frozen=True, slots=True)
class Dependence:
    """How much each output and each input of a matrix counts: (rows,) and (columns,), in nats a token together."""

    rows: mx.array
    columns: mx.array


class Unmeasurable(Exception):
    """The model is not a plain chain of layers, or something in it has no derivative. Its text says which, of "it"."""


_Shapes = tuple[tuple[int, ...], tuple[int, ...]]  # of what goes into a matrix, and of what comes out


@dataclass(slots=True)
class _Call:
    """One layer of the model as it was called. matrices: as `shapes` of `_Watch`."""

    x: mx.array
    rest: tuple[Any, ...]
    named: dict[str, Any]
    matrices: dict[str, _Shapes]


@dataclass(slots=True)
class _Watch:
    """What the watched modules share.

    shapes: of matrices called since it was emptied; squares: the mean square of each input of a matrix; probes: added
    to outputs, to differentiate by; inputs: what matrices with a probe multiplied; after: what the layers are taken to
    have made, None where they run; lookups: how much the rows of each embedding count; looked_up: what came first.
    """

    shapes: dict[str, _Shapes] = field(default_factory=dict)
    squares: dict[str, mx.array] = field(default_factory=dict)
    probes: dict[str, mx.array] = field(default_factory=dict)
    inputs: dict[str, mx.array] = field(default_factory=dict)
    calls: list[_Call] = field(default_factory=list)
    after: mx.array | None = None
    lookups: dict[str, mx.array] = field(default_factory=dict)
    looked_up: mx.array | None = None


class _Finished(Exception):
    """The last layer has run."""


def measure(
    unread: Callable[[], Any], tokens: mx.array, report: Callable[[float], None]
) -> dict[str, list[Dependence]]:
    """How much each matrix counts, by its name; an embedding that is also the output counts twice.

    unread: makes the model with its weights on disk; tokens: (windows, tokens); report: gets 0..1. Raises Unmeasurable,
    CorruptModel where the tokens are another model's, and RuntimeError where weights cannot be read.
    """
    seen, last, growth = _forward(unread(), tokens, lambda part: report(part * 0.3))
    model = unread()
    watch = _Watch(squares=seen.squares)
    layers = _attach(model, watch)
    found, gradient = _predictions(model, watch, tokens, last)
    for number in reversed(range(len(layers))):
        counted, gradient = _through(layers[number], watch, seen.calls.pop(), gradient)
        for name, each in counted.items():
            found.setdefault(name, []).append(Dependence(each.rows / tokens.size, each.columns))
        report(1 - 0.7 * number / len(layers))
    columns = _sum(gradient) / tokens.size * growth
    for name, rows in seen.lookups.items():
        found.setdefault(name, []).append(Dependence(rows, columns))
        mx.eval(rows, columns)
    return found


def _forward(model: Any, tokens: mx.array, report: Callable[[float], None]) -> tuple[_Watch, mx.array, mx.array]:
    """What was seen, what the last layer made, and the squares of the first one's input in those of a lookup."""
    watch = _Watch()
    layers = _attach(model, watch, lambda: report(len(watch.calls) / len(layers)))
    try:
        model(tokens)
    except _Finished:
        pass
    if watch.after is None or watch.looked_up is None or len(watch.calls) != len(layers):
        raise Unmeasurable("it does not call its layers one after the other")
    first = watch.calls[0].x
    growth = mx.mean(first * first) / mx.maximum(mx.mean(watch.looked_up * watch.looked_up), 1e-20)
    mx.eval(growth)
    return watch, watch.after, growth


def _predictions(
    model: Any, watch: _Watch, tokens: mx.array, last: mx.array
) -> tuple[dict[str, list[Dependence]], mx.array]:
    """What follows the layers: how much its matrices count, and the gradient by what the last layer made."""
    gradients: list[mx.array] = []
    rows: dict[str, mx.array] = {}
    columns: dict[str, mx.array] = {}
    for window in range(tokens.shape[0]):
        for start in range(0, tokens.shape[1], _POSITIONS):
            here = slice(window, window + 1), slice(start, start + _POSITIONS)
            by_last, by_output = _likelihood(model, watch, tokens[here], last[here], mx.random.key(len(gradients)))
            gradients.append(by_last)
            for name, gradient in by_output.items():
                count = gradient.size // gradient.shape[-1] / tokens.size
                rows[name] = rows.get(name, mx.array(0.0)) + _sum(gradient) / tokens.size
                columns[name] = columns.get(name, mx.array(0.0)) + watch.squares[name] * count
            mx.eval(by_last, rows, columns)
    watch.after, watch.probes = None, {}
    found = {name: [Dependence(rows[name], columns[name])] for name in rows}
    return found, mx.concatenate(gradients, axis=1).reshape(last.shape)


def _likelihood(
    model: Any, watch: _Watch, tokens: mx.array, last: mx.array, key: mx.array
) -> tuple[mx.array, dict[str, mx.array]]:
    """Gradients of the likelihood of tokens that the model draws, by what the last layer made and by each output."""
    watch.shapes, watch.after = {}, last
    logits = model(tokens).astype(mx.float32)
    drawn = mx.random.categorical(logits, key=key)[..., None]
    names, zeros = list(watch.shapes), [mx.zeros(made) for _, made in watch.shapes.values()]

    def likelihood(x: mx.array, *probes: mx.array) -> mx.array:
        watch.after, watch.probes = x, dict(zip(names, probes, strict=True))
        logits = model(tokens).astype(mx.float32)
        chosen = mx.take_along_axis(logits, drawn, axis=-1)
        return (chosen - mx.logsumexp(logits, axis=-1, keepdims=True)).sum()

    _, found = _differentiated(likelihood, [last, *zeros], [mx.array(1.0)])
    watch.probes = {}
    return found[0], dict(zip(names, found[1:], strict=True))


def _through(layer: Any, watch: _Watch, call: _Call, gradient: mx.array) -> tuple[dict[str, Dependence], mx.array]:
    """How much the matrices of a layer count, for all tokens together, and the gradient by what the layer gets."""
    names = list(call.matrices)

    def run(x: mx.array, *probes: mx.array) -> list[mx.array]:
        watch.inputs, watch.probes = {}, dict(zip(names, probes, strict=True))
        return [layer(x, *call.rest, **call.named), *(watch.inputs[name] for name in names)]

    zeros = [mx.zeros(made) for _, made in call.matrices.values()]
    nothing = [mx.zeros(given) for given, _ in call.matrices.values()]
    made, found = _differentiated(run, [call.x, *zeros], [gradient, *nothing])
    watch.inputs, watch.probes = {}, {}
    counted = {}
    for name, x, by_output in zip(names, made[1:], found[1:], strict=True):
        plain = x.ndim == by_output.ndim == 3
        counted[name] = _by_windows(by_output, x) if plain else Dependence(_sum(by_output), watch.squares[name])
        mx.eval(counted[name].rows, counted[name].columns)
    mx.eval(found[0])
    _forget(layer)
    return counted, found[0]


def _differentiated(function: Any, at: list[mx.array], by: list[mx.array]) -> tuple[list[mx.array], list[mx.array]]:
    """What mx.vjp returns."""
    try:
        return mx.vjp(function, at, by)
    except (ValueError, RuntimeError) as error:  # MLX evaluates nothing here: an operation has no derivative
        raise Unmeasurable(f"an operation in it has no derivative: {str(error).rstrip('.')}") from error


def _by_windows(gradient: mx.array, x: mx.array) -> Dependence:
    """The squares of the gradients by the weights, one window at a time; (windows, tokens, …) of outputs and inputs."""
    if gradient.shape[1] == 1:  # of experts, token by token: the square of a product of two vectors, thousands of times
        by_output, by_input = mx.square(gradient[:, 0]), mx.square(x[:, 0])
        rows = mx.sum(by_output * mx.sum(by_input, axis=1, keepdims=True), axis=0)
        columns = mx.sum(by_input * mx.sum(by_output, axis=1, keepdims=True), axis=0)
    else:
        rows, columns = mx.zeros(gradient.shape[-1]), mx.zeros(x.shape[-1])
        for window in range(gradient.shape[0]):
            squares = mx.square(gradient[window].T @ x[window])
            rows, columns = rows + mx.sum(squares, axis=1), columns + mx.sum(squares, axis=0)
            mx.eval(rows, columns)
    return Dependence(rows, columns / mx.maximum(mx.sum(columns), 1e-30))


def _rows_looked_up(ids: mx.array, count: int) -> mx.array:
    """How much the rows of an embedding with so many count: half by how often they are looked up, half all alike."""
    return mx.full((count,), 0.5 / count).at[ids.reshape(-1)].add(0.5 / ids.size)


def _sum(gradient: mx.array) -> mx.array:
    """The squares of (…, outputs), added up over everything else."""
    flat = gradient.reshape(-1, gradient.shape[-1])
    return mx.sum(flat * flat, axis=0)


def _attach(model: Any, watch: _Watch, done: Callable[[], None] | None = None) -> list[Any]:
    """Make a model's matrices and layers watched ones; its layers. done: called after each, which is then forgotten."""
    layers = list(getattr(model, "layers", ()))
    for module in become(model, {Linear: _Linear, SwitchLinear: _SwitchLinear, Embedding: _Embedding}):
        module.watch = watch
    for layer in layers:
        kind = type(layer)
        layer.__class__ = type(kind.__name__, (_Layer, kind), {})
        layer.watch, layer.done, layer.is_last = watch, done, layer is layers[-1]
    return layers


def _forget(layer: Any) -> None:
    layer.update(tree_map(lambda _: mx.array(0.0), layer.parameters()))


class _Layer:
    """Before a layer's own class: keeps how it is called, or stands aside for what comes after all layers."""

    watch: _Watch
    done: Callable[[], None] | None
    is_last: bool

    def __call__(self, *given: Any, **named: Any) -> mx.array:
        if not given:
            raise Unmeasurable("it calls its layers by keywords")
        (x, *rest), watch = given, self.watch
        if self.done is None:
            if watch.after is not None:
                return watch.after
            return super().__call__(x, *rest, **named)  # type: ignore[misc, no-any-return]
        if watch.calls and x is not watch.after:
            raise Unmeasurable("its layers are not a chain")
        if not watch.calls:
            watch.looked_up = watch.looked_up if watch.looked_up is not None else x
        watch.shapes = {}
        made: mx.array = super().__call__(x, *rest, **named)  # type: ignore[misc]
        if not isinstance(made, mx.array):
            raise Unmeasurable("its layers make more than one array")
        mx.eval(made, watch.squares)
        watch.calls.append(_Call(x, tuple(rest), named, watch.shapes))
        watch.after = made
        _forget(self)
        self.done()
        if self.is_last:
            raise _Finished
        return made


def _watched(module: Any, x: mx.array, made: mx.array) -> mx.array:
    watch: _Watch = module.watch
    if (probe := watch.probes.get(module.place)) is not None:
        watch.inputs[module.place] = x
        return made + probe
    if not watch.probes:
        flat = x.reshape(-1, x.shape[-1])
        watch.shapes[module.place] = x.shape, made.shape
        watch.squares[module.place] = mx.mean(flat * flat, axis=0)
    return made


class _Linear(Linear):
    def __call__(self, x: mx.array) -> mx.array:
        x = x.astype(mx.float32)
        return _watched(self, x, product_of(self, x))


class _SwitchLinear(SwitchLinear):  # type: ignore[misc]
    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        made = super().__call__(x.astype(mx.float32), indices, sorted_indices=sorted_indices)
        return _watched(self, x, made)


class _Embedding(Embedding):
    place: str
    watch: _Watch

    def __call__(self, x: mx.array) -> mx.array:
        if self.place not in self.watch.lookups:
            count = self.weight.shape[0]
            if int(mx.max(x)) >= count:  # MLX would read whatever lies behind it
                raise CorruptModel(FOREIGN_TOKENIZER, param="tokenizer.json")
            self.watch.lookups[self.place] = _rows_looked_up(x, count)
        found: mx.array = self.weight[x].astype(mx.float32)
        if self.watch.after is None and self.watch.looked_up is None:
            self.watch.looked_up = found + 0.0  # what the model does to it in place is not to change it here
        return found

    def as_linear(self, x: mx.array) -> mx.array:
        x = x.astype(mx.float32)
        return _watched(self, x, product_of(self, x))
