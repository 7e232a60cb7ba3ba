"""A model directory becomes a model in memory, or one clear error that names the file. The models are tiny, random."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear, quantize
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from squish.errors import CorruptModel, LoadFailed, SquishError, UnsupportedModel
from squish.system.host import HOST
from squish.worker.cpu import extension
from squish.worker.model.load import LoadedModel, load

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "eos_token_id": [1, 2],
}
PROMPT = mx.array([[5, 6, 7, 8]])


def write_model(path: Path, bits: int | None = None, **changes: Any) -> Model:
    """A random llama with half-precision weights, quantized to `bits` if given, and a tokenizer of whole words."""
    config = {**CONFIG, **changes}
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(config))
    model.set_dtype(mx.float16)
    if bits is not None:
        config["quantization"] = {"group_size": 32, "bits": bits}
        quantize(model, group_size=32, bits=bits)
    path.mkdir()
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    (path / "config.json").write_text(json.dumps(config))
    words = {"<unk>": 0, "<eos>": 1} | {f"w{number}": number for number in range(2, 96)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "unk_token": "<unk>"})
    )
    return model


def arrays(model: Any) -> list[mx.array]:
    return [array for _, array in cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))]


def dtypes(loaded: LoadedModel) -> set[mx.Dtype]:
    return {array.dtype for array in arrays(loaded.model)}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    write_model(path, bits=4)
    return path


@pytest.fixture
def broken(quantized: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(quantized, tmp_path / "broken"))


@pytest.fixture(autouse=True)
def _without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine without a compiler does; test_packed_layers has the other side."""
    monkeypatch.delitem(sys.modules, extension._NAME, raising=False)


cpu_only = pytest.mark.skipif(mx.default_device() != mx.cpu, reason="a GPU takes weights as they are stored")


@cpu_only
@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("tied", [True, False])
def test_on_a_cpu_everything_is_float32_and_answers_as_before(bits: int | None, tied: bool, tmp_path: Path) -> None:
    original = write_model(tmp_path / "m", bits, tie_word_embeddings=tied)
    loaded = load(tmp_path / "m")
    assert dtypes(loaded) == {mx.float32}
    assert loaded.dtype == "float32"
    assert loaded.weights_bytes == 4 * sum(array.size for array in arrays(loaded.model))
    assert mx.allclose(loaded.model(PROMPT), original(PROMPT).astype(mx.float32), atol=2e-2)


@cpu_only
def test_quantized_weights_stay_packed_when_memory_is_short(quantized: Path) -> None:
    roomy = load(quantized)
    tight = load(quantized, memory_limit=roomy.weights_bytes - 1)
    assert tight.weights_bytes < roomy.weights_bytes / 2
    assert dtypes(tight) == {mx.float32, mx.uint32}
    model: Any = tight.model
    assert any(isinstance(module, QuantizedLinear | QuantizedEmbedding) for module in model.modules())
    assert mx.allclose(tight.model(PROMPT), roomy.model(PROMPT), atol=1e-3)


def test_what_a_model_says_about_itself(quantized: Path) -> None:
    loaded = load(quantized)
    assert (loaded.context_length, loaded.vocab_size, loaded.trimmable) == (512, 96, True)
    assert loaded.eos == {1, 2}
    assert loaded.config["model_type"] == "llama"
    assert loaded.tokenizer.encode("w5 w6") == [5, 6]


def test_a_model_that_does_not_fit_is_refused_with_numbers(quantized: Path) -> None:
    with pytest.raises(
        LoadFailed, match=r"tiny needs 0\.\d\d GB of memory for its weights; 0\.00 GB are free"
    ) as refused:
        load(quantized, memory_limit=1000)
    assert refused.value.hint


def edit_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        content = json.loads((path / name).read_text()) | changes
        (path / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return edit


def truncate(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:-100])


def drop_a_tensor(path: Path) -> None:
    file = str(path / "model.safetensors")
    weights = cast(dict[str, mx.array], mx.load(file))
    mx.eval(weights)
    del weights["model.norm.weight"]
    mx.save_safetensors(file, weights)


def name_a_second_shard(path: Path) -> None:
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "model-00002.safetensors"}}))


def name_a_shard_elsewhere(path: Path) -> None:
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../x.safetensors"}}))


DAMAGE: list[tuple[Callable[[Path], object], type[SquishError], str | None, str]] = [
    (lambda path: (path / "config.json").unlink(), CorruptModel, "config.json", "has no config.json"),
    (lambda path: (path / "config.json").write_text("{"), CorruptModel, "config.json", "cannot be read"),
    (lambda path: (path / "config.json").write_text("[]"), CorruptModel, "config.json", "not a JSON object"),
    (edit_json("config.json", model_type=None), CorruptModel, "config.json", "does not name a model_type"),
    (edit_json("config.json", hidden_size=None), CorruptModel, None, "hidden_size"),
    (edit_json("config.json", hidden_size=32), CorruptModel, None, "do not fit together"),
    (edit_json("config.json", num_hidden_layers=3), CorruptModel, None, "Missing"),
    (name_a_shard_elsewhere, CorruptModel, "model.safetensors.index.json", "cannot be read"),
    (edit_json("config.json", model_type="zebra"), UnsupportedModel, "config.json", "'zebra'"),
    (edit_json("config.json", model_type="../evil"), UnsupportedModel, "config.json", "not one that Squish runs"),
    (
        edit_json("config.json", model_type="zebra", auto_map={"A": "b.C"}),
        UnsupportedModel,
        "config.json",
        "code of its own",
    ),
    (edit_json("config.json", num_hidden_layers=10**8), CorruptModel, "config.json", "100,000,000 layers"),
    (edit_json("config.json", model_file="evil.py"), UnsupportedModel, "config.json", "code of its own"),
    (lambda path: (path / "model.safetensors").unlink(), CorruptModel, "model.safetensors", "no weights"),
    (truncate("model.safetensors"), CorruptModel, "model.safetensors", "damaged"),
    (lambda path: (path / "model.safetensors").write_bytes(b"x" * 64), CorruptModel, "model.safetensors", "damaged"),
    (name_a_second_shard, CorruptModel, "model-00002.safetensors", "missing"),
    (drop_a_tensor, CorruptModel, None, r"model\.norm\.weight"),
    (lambda path: (path / "tokenizer.json").write_text("{"), CorruptModel, "tokenizer.json", "tokenizer"),
    (lambda path: (path / "tokenizer.json").write_text('{"model": 3}'), CorruptModel, "tokenizer.json", "tokenizer"),
    (lambda path: (path / "tokenizer.json").unlink(), CorruptModel, "tokenizer.json", "tokenizer"),
]


@pytest.mark.parametrize(("damage", "error", "param", "message"), DAMAGE)
def test_a_damaged_model_is_one_clear_error(
    broken: Path, damage: Callable[[Path], object], error: type[SquishError], param: str | None, message: str
) -> None:
    damage(broken)
    with pytest.raises(error, match=message) as raised:
        load(broken)
    assert raised.value.param == param
    assert len(raised.value.message) < 500


def test_a_tokenizer_that_brings_code_does_not_run_it(broken: Path) -> None:
    code = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass T: pass\n"
    (broken / "evil.py").write_text(code)
    edit_json("tokenizer_config.json", tokenizer_class="T", auto_map={"AutoTokenizer": [None, "evil.T"]})(broken)
    try:
        load(broken)
    except (UnsupportedModel, CorruptModel) as refused:
        assert refused.param in ("tokenizer_config.json", "tokenizer.json")
    assert not (broken / "ran").exists()


def test_memory_is_bounded_and_never_wired(quantized: Path) -> None:
    from mlx_lm.generate import BatchGenerator

    loaded = load(quantized)
    assert loaded.weights_bytes <= mx.get_active_memory() <= mx.get_peak_memory() < HOST.peak()
    batch = BatchGenerator(loaded.model, stream=mx.default_stream(mx.default_device()))
    assert batch._old_wired_limit is None
    batch.close()
