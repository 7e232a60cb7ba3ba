"""`--bits 4.5`: matrices get the bits that a size allows, more where the predictions depend more on them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import pytest
from mlx.nn.layers.base import Module
from mlx_lm.utils import _get_classes, load_model

from squish.errors import CorruptModel, InvalidInput
from squish.ipc.frames import Quantized, QuantizeShards
from squish.memory import fit
from squish.models import recipes
from squish.worker.jobs import quantize, sensitivity
from squish.worker.jobs.allocation import Choice, Harms, allocate, choices, harms, size
from squish.worker.jobs.lazy_model import Shards
from squish.worker.jobs.quantize import quantize_shards
from squish.worker.jobs.sensitivity import Dependence
from tests.pull.shards import byte_tokenizer, in_shards, tiny_gptj, tiny_llama, tiny_mixtral

TEXT = "The measure of a mixture is what its parts do together, and not each for itself. " * 40


class Bench:
    """A tiny model in two shards, and a directory for what becomes of it."""

    def __init__(self, directory: Path, weights: dict[str, mx.array], config: dict[str, Any]) -> None:
        self.source, self.out, self.headers = (directory / each for each in ("source", "out", "headers"))
        self.count = sum(array.size for array in weights.values())
        for name, content in (in_shards(weights, config, self.source, 2) | byte_tokenizer()).items():
            (self.source / name).write_bytes(content)
        self.shards = tuple(sorted(path.name for path in self.source.glob("*.safetensors")))
        self.headers.mkdir()
        for shard in self.shards:
            (self.headers / f"{shard}.json").write_text("{}")

    def lazy(self) -> Shards:
        return Shards(self.source, dict.fromkeys(self.shards, self.headers), frozenset(self.shards))

    def run(self, recipe: str, out: Path | None = None) -> list[tuple[str, float]]:
        chosen = recipes.from_tag(recipe)
        assert chosen is not None and chosen.recipe is not None
        said: list[tuple[str, float]] = []
        places = str(self.source), str(self.headers), str(out or self.out), self.shards
        job = QuantizeShards(*places, chosen.recipe, TEXT)
        assert quantize_shards(job, lambda phase, fraction: said.append((phase, fraction))).complete
        return said

    def ahead(self, recipe: str) -> Quantized:
        """Before a shard is here: only their headers are."""
        for shard in self.shards:
            content = (self.source / shard).read_bytes()
            (self.headers / f"{shard}.json").write_bytes(content[8 : 8 + int.from_bytes(content[:8], "little")])
        chosen = recipes.from_tag(recipe)
        assert chosen is not None and chosen.recipe is not None
        places = str(self.source), str(self.headers), str(self.out)
        return quantize_shards(QuantizeShards(*places, (), chosen.recipe, TEXT), lambda *_: None)

    def bits(self) -> dict[str, Choice]:
        found = json.loads((self.out / "config.json").read_bytes())["quantization"]
        entries = {name: each for name, each in found.items() if isinstance(each, dict)}
        return {name: Choice(each["bits"], each["group_size"]) for name, each in entries.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, *tiny_llama())


def test_the_choice_is_the_best_for_its_size() -> None:
    random = Random(5)
    matrices, sizes = {}, {}
    for number in range(4):
        scale = 10.0 ** random.uniform(-3, 0)
        nats = [scale * 4.0**-bits * random.uniform(0.7, 1.3) for bits in (2, 3, 4, 6, 8)]
        matrices[f"m{number}"] = Harms([Choice(bits, 64) for bits in (2, 3, 4, 6, 8)], nats, nats)
        sizes[f"m{number}"] = [100 * (1 + number) * bits for bits in (2, 3, 4, 6, 8)]
    for room in (2000, 3100, 4400, 6000):
        chosen = allocate(matrices, sizes, room)
        assert chosen is not None
        at = [matrices[name].choices.index(chosen[name]) for name in matrices]
        used, harm = (
            sum(each[name][place] for name, place in zip(matrices, at, strict=True))
            for each in (sizes, {name: each.nats for name, each in matrices.items()})
        )
        assert used <= room
        better = [
            places
            for places in itertools.product(range(5), repeat=4)
            if sum(sizes[name][place] for name, place in zip(matrices, places, strict=True)) <= used
            and sum(matrices[name].nats[place] for name, place in zip(matrices, places, strict=True)) < harm * 0.8
        ]
        assert not better
    assert allocate(matrices, sizes, 1999) is None


def test_what_could_not_be_measured_counts_like_the_others() -> None:
    choices_ = [Choice(4, 64), Choice(8, 64)]
    known = Harms(choices_, [0.01, 0.0001], [0.02, 0.0002])
    matrices = {"a": known, "b": Harms(choices_, [0.1, 0.001], []), "c": known}
    chosen = allocate(matrices, {name: [10, 20] for name in matrices}, 40)
    assert chosen == {"a": Choice(4, 64), "b": Choice(8, 64), "c": Choice(4, 64)}


def test_sizes_are_those_of_the_arrays() -> None:
    weight = mx.random.normal((8, 128)).astype(mx.float16)
    for choice in choices(128, (32, 64)):
        arrays = mx.quantize(weight, choice.group_size, choice.bits)
        assert size(weight.size, choice, 2) == sum(array.nbytes for array in arrays)
    assert {each.group_size for each in choices(96, (32, 64))} == {32}


def test_some_rows_stand_for_all() -> None:
    mx.random.seed(3)
    weight = mx.random.normal((6000, 64))
    rows = mx.exp(2 * mx.random.normal((6000,)))
    known = [Dependence(rows, mx.random.uniform(shape=(64,)))]
    error = mx.square(mx.dequantize(*mx.quantize(weight, 64, 4), 64, 4) - weight)
    exact = (mx.sum(rows * (error @ known[0].columns)) / 2).item()
    assert harms(weight, [Choice(4, 64)], known).nats[0] == pytest.approx(exact, rel=0.05)


def test_what_is_measured_is_what_a_change_does_to_the_predictions(bench: Bench) -> None:
    """The KL divergence after a small change of a matrix is about what its dependences say."""
    mx.random.seed(1)
    tokens = mx.random.randint(0, 256, (2, 256))
    fractions: list[float] = []
    found = sensitivity.measure(bench.lazy().model, tokens, fractions.append)
    model = bench.lazy().model()
    truth = _log_probabilities(model, tokens)
    modules = {name: module for name, module in model.named_modules() if hasattr(module, "to_quantized")}
    assert found.keys() == modules.keys() and fractions == sorted(fractions) and fractions[-1] == 1.0
    for name, module in modules.items():
        plain = module.weight
        change = 0.02 * mx.random.normal(plain.shape) * mx.std(plain)
        module.weight = plain + change
        after = _log_probabilities(model, tokens)
        module.weight = plain
        divergence = float(mx.mean(mx.sum(mx.exp(truth) * (truth - after), axis=-1)))
        expected = sum(float(mx.sum(each.rows * (mx.square(change) @ each.columns))) for each in found[name]) / 2
        assert 0.4 * divergence < expected < 2.5 * divergence, name


def _log_probabilities(model: Any, tokens: mx.array) -> mx.array:
    logits = model(tokens)
    found: mx.array = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    mx.eval(found)
    return found


@pytest.mark.parametrize("make", [pytest.param(tiny_llama, marks=pytest.mark.long), tiny_mixtral])
def test_a_model_meets_its_size_and_any_program_reads_its_bits(make: Any, tmp_path: Path) -> None:
    bench = Bench(tmp_path, *make())
    bench.out.mkdir()
    for name in (".harms.json.01234567", ".progress.json.01234567"):  # of workers that were killed
        (bench.out / name).write_text("{")
    said = bench.run("4.5bpw")
    stored = sum(array.nbytes for array in _written(bench.out).values())
    assert 4.0 < 8 * stored / bench.count <= 4.5
    loaded: Any = load_model(bench.out)
    modules = dict(loaded[0].named_modules())
    assert all((modules[name].bits, modules[name].group_size) == each for name, each in bench.bits().items())
    assert len(set(bench.bits().values())) > 1
    assert [phase for phase, _ in itertools.groupby(said, key=lambda each: each[0])] == ["score", "compress"]
    assert said == sorted(said, key=lambda each: (each[0] != "score", each[1])) and said[-1][1] == 1.0
    assert {path.name for path in bench.out.iterdir()} == {
        "progress.json", "config.json", "model.safetensors", "model.safetensors.index.json"
    }  # fmt: skip


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("recipe", "phase"),
    [
        ("4.5bpw", "compress"),
        pytest.param("4.5bpw", "score", marks=pytest.mark.long),
        *(pytest.param("4.5bpw-calibrated", phase, marks=pytest.mark.long) for phase in ("score", "compress")),
    ],
)
def test_a_worker_that_takes_over_goes_on_and_comes_to_the_same(
    recipe: str, phase: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(recipe, tmp_path / "whole")
    monkeypatch.setattr(quantize, "_OUTPUT_BYTES", 1 << 12)

    def end(at: str, fraction: float) -> None:
        if at == phase and fraction > 0.7:
            raise Killed

    chosen = recipes.from_tag(recipe)
    assert chosen is not None and chosen.recipe is not None
    places = str(bench.source), str(bench.headers), str(bench.out), bench.shards
    with pytest.raises(Killed):
        quantize_shards(QuantizeShards(*places, chosen.recipe, TEXT), end)
    read = sensitivity.measure
    monkeypatch.setattr(sensitivity, "measure", lambda *_: pytest.fail("the text was read again"))
    said = bench.run(recipe)
    monkeypatch.setattr(sensitivity, "measure", read)
    assert said[0][1] > 0.3 and (said[0][0] == "compress") == (phase == "compress")
    whole, resumed = (_written(directory) for directory in (tmp_path / "whole", bench.out))
    assert whole.keys() == resumed.keys()
    if recipe == "4.5bpw":
        assert all(mx.array_equal(whole[name], resumed[name]).item() for name in whole)


def _written(directory: Path) -> dict[str, mx.array]:
    found: dict[str, mx.array] = {}
    for path in directory.glob("*.safetensors"):
        found |= mx.load(str(path))  # type: ignore[operator, arg-type]
    return found


def test_a_model_that_is_not_a_chain_of_layers_is_compressed_by_its_errors(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *tiny_gptj())
    with pytest.raises(sensitivity.Unmeasurable, match="by keywords"):
        sensitivity.measure(bench.lazy().model, mx.zeros((1, 32), mx.int32), lambda _: None)
    bench.run("4.5bpw")
    assert len(set(bench.bits().values())) > 1


class Changed(Module):
    """In place of a model's first norm."""

    def __init__(self, change: Callable[[mx.array], mx.array]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.change = change

    def __call__(self, x: mx.array) -> mx.array:
        return self.change(x)


def changed(bench: Bench, change: Callable[[mx.array], mx.array]) -> Callable[[], Any]:
    def unread() -> Any:
        model = bench.lazy().model()
        model.layers[0].input_layernorm = Changed(change)
        return model

    return unread


def test_only_what_has_no_derivative_is_taken_for_unmeasurable(bench: Bench) -> None:
    tokens = mx.random.randint(0, 256, (1, 64))

    def without(x: mx.array) -> mx.array:
        return x * mx.max(mx.linalg.svd(x, compute_uv=False, stream=mx.cpu))  # type: ignore[arg-type]

    def wrong(x: mx.array) -> mx.array:
        raise AttributeError("a fault")

    with pytest.raises(sensitivity.Unmeasurable, match="SVD"):
        sensitivity.measure(changed(bench, without), tokens, lambda _: None)
    with pytest.raises(AttributeError, match="a fault"):
        sensitivity.measure(changed(bench, wrong), tokens, lambda _: None)


@pytest.mark.parametrize("recipe", ["4.5bpw", "4.5bpw-calibrated"])
def test_a_tokenizer_of_another_model_is_refused(recipe: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, *tiny_llama(vocab_size=96))
    with pytest.raises(CorruptModel, match="tokens that this model does not have"):
        bench.run(recipe)


@pytest.mark.parametrize("recipe", ["4.5bpw", "4bit"])
def test_a_damaged_shard_is_named(recipe: str, bench: Bench) -> None:
    path = bench.source / bench.shards[-1]
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CorruptModel, match=f"{path.name} cannot be read"):
        bench.run(recipe)


def test_experts_are_measured_token_by_token() -> None:
    """The gradient of a weight is the product of one token's output and input."""
    mx.random.seed(2)
    gradient, x = mx.random.normal((40, 1, 6)), mx.random.normal((40, 1, 5))
    found = sensitivity._by_windows(gradient, x)
    squares = sum((mx.square(gradient[at].T @ x[at]) for at in range(40)), mx.zeros((6, 5)))
    assert mx.allclose(found.rows, mx.sum(squares, axis=1), rtol=1e-5).item()
    assert mx.allclose(found.columns, mx.sum(squares, axis=0) / mx.sum(squares), rtol=1e-5).item()


def test_an_embedding_counts_by_what_it_is_asked_for() -> None:
    """GPT-2 has two: of tokens, and of places, of which there are fewer than tokens."""
    config: dict[str, Any] = {"model_type": "gpt2", "vocab_size": 256, "n_embd": 64, "n_head": 2, "n_layer": 2}
    config |= {"n_positions": 64, "n_ctx": 64, "layer_norm_epsilon": 1e-5}
    model_class, arguments = _get_classes(config)
    tokens = mx.full((1, 32), 200)
    found = sensitivity.measure(lambda: model_class(arguments.from_dict(config)), tokens, lambda _: None)
    places, rows = found["model.wpe"][-1].rows, found["model.wte"][-1].rows
    assert places.shape == (64,) and mx.allclose(places[:32], places[32:] + 1 / 64).item()
    assert rows.shape == (256,) and int(mx.argmax(rows)) == 200 and float(mx.sum(rows)) == pytest.approx(1)


EVERY_WAY = ["4bit", "4bit-calibrated", "4.5bpw", "4.5bpw-calibrated"]


@pytest.mark.parametrize("recipe", EVERY_WAY)
def test_what_does_not_fit_together_is_refused_before_it_is_here(recipe: str, bench: Bench) -> None:
    assert not bench.ahead(recipe).complete
    config = json.loads((bench.source / "config.json").read_bytes())
    (bench.source / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(CorruptModel, match="do not fit together"):
        bench.ahead(recipe)


@pytest.mark.parametrize(
    "recipe", [pytest.param(way, marks=pytest.mark.long if "calibrated" in way else ()) for way in EVERY_WAY]
)
def test_what_is_whole_is_not_read_again(recipe: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull may end between the last file and its account."""
    bench.run(recipe)
    for reads in ("calibrate", "mixture"):
        monkeypatch.setattr(quantize, reads, lambda *_: pytest.fail("it was read again"))
    assert bench.ahead(recipe).complete


def test_a_size_that_a_model_cannot_have_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match=r"at least 3\.\d+ bits") as caught:  # scales of float32 take twice as much
        bench.run("2.5bpw")
    assert caught.value.param == "--bits"


def test_what_fits_is_the_largest_that_does() -> None:
    shape = fit.guessed(8_000_000_000)

    def here(total: int) -> fit.Machine:
        return fit.Machine("RAM", total, total, float32=False)

    assert fit.most_bits(shape, 8192, here(64 << 30), 2.5, 8.5) == 8.5
    assert fit.most_bits(shape, 8192, here(2 << 30), 2.5, 8.5) is None
    found = fit.most_bits(shape, 8192, here(8 << 30), 2.5, 8.5)
    assert found is not None and 2.5 < found < 8.5
    sizes = [int(shape.parameters * bits / 8) for bits in (found, found + 0.1)]
    needs = [fit.estimate(shape, size, 8192, here(8 << 30)) for size in sizes]
    assert needs[0].needed <= 0.9 * (8 << 30) < needs[1].needed
    assert (fit.most_bits(shape, 65536, here(8 << 30), 2.5, 8.5) or 0) < found


def test_sizes_have_names_and_limits() -> None:
    for bits, tag in (("4.5", "4.5bpw"), ("7", "7bpw"), ("4.0", "4bpw"), ("fit", "fit")):
        for calibrated in (False, True):
            chosen = recipes.recipe(bits, calibrated=calibrated)
            assert recipes.tag(chosen) == tag + "-calibrated" * calibrated
            named = recipes.from_tag(recipes.tag(chosen))
            assert named is not None and named.recipe == chosen
    assert recipes.from_tag("9.5bpw") is recipes.from_tag("1bpw") is recipes.from_tag("4.5bpw-search") is None
    for bits in ("2.4", "9", "4."):
        with pytest.raises(InvalidInput):
            recipes.recipe(bits)
    for group, search in ((32, False), (None, True)):
        with pytest.raises(InvalidInput):
            recipes.recipe("4.5", group, search)
