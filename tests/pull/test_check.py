"""The catalog beside the Hub, and a newer catalog that a user sets."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from squish.config.settings import Settings
from squish.errors import ConfigError, HubError, HubUnreachable, InvalidInput, ModelNotFound, Offline
from squish.models import catalog
from squish.models.catalog import CacheDimensions, CatalogEntry
from squish.models.user_catalog import UserEntry, UserShape
from squish.names import ShortName
from squish.pull import newer_catalog
from squish.pull.check import problems
from squish.pull.sources import resolve
from tests.local_hub import LocalHub, tiny_model

ENTRY = CatalogEntry("tiny:1m", "org/tiny", 250_000, 32, 2048, "apache-2.0")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as running:
        running.add_repo("org/tiny", tiny_model(1_000_000))
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def settings(hub: LocalHub, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, cache_dir=tmp_path / "models", hub_endpoint=hub.url)


async def test_an_entry_that_is_right_has_no_problem_and_no_weights_are_downloaded(
    hub: LocalHub, settings: Settings
) -> None:
    assert await problems(ENTRY, settings) == ()
    assert hub.sent("model.safetensors") == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"context": 8192}, "context on the Hub: 2,048 tokens; in the catalog: 8,192 tokens"),
        ({"license": "mit"}, "license on the Hub: apache-2.0; in the catalog: mit"),
        ({"parameters": 1_000_000}, "size on the Hub: 1.0 MB; in the catalog: 4.0 MB"),
        ({"kind": "embedding"}, "kind on the Hub: chat; in the catalog: embedding"),
        ({"tools": True}, "tools on the Hub: no; in the catalog: yes"),
        ({"repo": "org/gone"}, "org/gone is not on the Hub"),
    ],
)
async def test_what_differs_is_named(settings: Settings, changes: dict[str, object], said: str) -> None:
    [problem] = await problems(replace(ENTRY, **changes), settings)  # type: ignore[arg-type]
    assert said in problem


async def test_every_field_of_the_shape_is_compared_with_config_json(hub: LocalHub, settings: Settings) -> None:
    vocabulary = json.loads(tiny_model(1_000_000)["config.json"])["vocab_size"]
    right = CacheDimensions(1, 2, 2, hidden=4, intermediate=4, vocabulary=vocabulary, kv_choice=True)
    assert await problems(replace(ENTRY, shape=right), settings) == ()
    for name, value in asdict(right).items():
        wrong = not value if isinstance(value, bool) else value + 1
        [problem] = await problems(replace(ENTRY, shape=replace(right, **{name: wrong})), settings)
        assert problem.startswith(f"shape.{name} on the Hub: "), name
    config = json.loads(tiny_model(1_000_000)["config.json"])
    config |= {"model_type": "gemma3_text", "num_hidden_layers": 6, "sliding_window": 512, "head_dim": 64}
    hub.add_repo("org/tiny", tiny_model(1_000_000) | {"config.json": json.dumps(config).encode()})
    windowed = replace(right, head=64, window_layers=5, window=512)
    assert await problems(replace(ENTRY, shape=windowed), settings) == ()
    [problem] = await problems(replace(ENTRY, shape=replace(windowed, window=1024)), settings)
    assert problem == "shape.window on the Hub: 512; in the catalog: 1,024"


@pytest.mark.parametrize(
    ("said", "bits", "problem"),
    [
        ({"quantization": {"bits": 4, "group_size": 64}}, 4.5, None),
        ({"quantization": {"bits": 4, "group_size": 64}}, 4.8, "bits on the Hub: 4.5; in the catalog: 4.8"),
        ({"quantization": {"bits": 4, "group_size": 64}}, 4, "bits on the Hub: 4.5; in the catalog: 4"),
        ({"quantization": {"bits": 8, "group_size": 32}}, 9, None),
        ({"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}, 4.25, None),
        (
            {"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}},
            4.5,
            "bits on the Hub: 4.25; in the catalog: 4.5",
        ),
        (
            {
                "quantization": {
                    "bits": 4,
                    "group_size": 32,
                    "mode": "mxfp4",
                    "x": {"bits": 8, "group_size": 64, "mode": "affine"},
                }
            },
            9,
            "bits on the Hub: 4.25 to 8.5; in the catalog: 9",
        ),
        ({"torch_dtype": "bfloat16"}, 16, None),
        ({"dtype": "float32"}, 30, "bits on the Hub: 32; in the catalog: 30"),
    ],
)
async def test_bits_are_compared_with_config_json(
    hub: LocalHub, settings: Settings, said: dict[str, object], bits: float, problem: str | None
) -> None:
    files = tiny_model(1_000_000)
    hub.add_repo("org/tiny", files | {"config.json": json.dumps(json.loads(files["config.json"]) | said).encode()})
    entry = replace(ENTRY, bits=bits, parameters=int(8 * len(files["model.safetensors"]) / bits))
    assert [each for each in await problems(entry, settings) if each.startswith("bits")] == [problem] * bool(problem)


async def test_what_changed_on_the_hub_is_named(hub: LocalHub, settings: Settings) -> None:
    files = tiny_model(1_000_000)
    hub.renamed["org/tiny"] = "other/tiny"
    template = {"chat_template": "{{ '<tool_call>' }}{{ tool_call.name }}"}
    hub.add_repo("other/tiny", files | {"tokenizer_config.json": json.dumps(template).encode()})
    moved, tools = await problems(ENTRY, settings)
    assert moved == "org/tiny is called other/tiny now"
    assert "tools on the Hub: yes" in tools
    hub.renamed.clear()
    odd = json.loads(files["config.json"]) | {"model_type": "nothing_we_know"}
    hub.add_repo("org/tiny", files | {"config.json": json.dumps(odd).encode()})
    assert "nothing_we_know" in (await problems(ENTRY, settings))[0]
    hub.add_repo("org/tiny", files, gated=True)
    assert "license to accept" in (await problems(ENTRY, settings))[0]
    hub.add_repo("org/tiny", {"README.md": b""})
    assert "no .safetensors" in (await problems(ENTRY, settings))[0]


async def test_a_hub_that_is_not_there_says_nothing_of_an_entry(settings: Settings) -> None:
    with pytest.raises(HubUnreachable):
        await problems(ENTRY, replace(settings, hub_endpoint="http://127.0.0.1:9"))


# ---- a newer catalog

NEWER = """
[[model]]
id = "qwen3:8b"
repo = "org/elsewhere"
parameters = 8000000000
bits = 4.5
context = 40960
license = "apache-2.0"
kind = "reasoning"
tools = true

[[model]]
id = "newest:1b"
repo = "org/newest"
parameters = 1000000000
bits = 4.5
context = 4096
license = "mit"
default = true
"""


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "newer.toml"
    path.write_text(NEWER)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SQUISH_CATALOG", str(path))
    return path


def test_a_newer_catalog_takes_the_place_of_entries_and_adds_some(newer: Path) -> None:
    changed = catalog.lookup(ShortName("qwen3", "8b"))
    assert changed is not None
    assert (changed.repo, changed.kind, changed.tools) == ("org/elsewhere", "reasoning", True)
    added = catalog.lookup(ShortName("newest"))
    assert added is not None and added.repo == "org/newest"
    assert len(catalog.entries()) == len(catalog.own_entries()) + 1
    at = [entry.family for entry in catalog.entries()].index("qwen3")
    assert catalog.entries()[at].family == "qwen3"
    newer.write_text(NEWER.replace("org/newest", "org/newer-still"))
    found = catalog.lookup(ShortName("newest", "1b"))
    assert found is not None and found.repo == "org/newer-still"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text + "[[", "cannot be read"),
        (lambda text: text.replace("org/newest", "../../etc"), "not like org/repo"),
        (lambda text: text.replace("org/newest", "https://elsewhere.example/org/newest"), "not a name"),
        (lambda text: text.replace("org/newest", "./model.gguf"), "not like org/repo"),
        (lambda text: text.replace("org/newest", "org/newest:8bit"), "not like org/repo"),
        (lambda text: text.replace("newest:1b", "org/x:1b"), "not a name like qwen3:8b"),
        (lambda text: text.replace("newest:1b", "qwen3:8b"), "twice"),
        (lambda text: text.replace('"mit"', '"m\\u001bit"'), "cannot be shown"),
        (lambda text: text.replace('"reasoning"', '"magic"'), "'magic'"),
        (lambda text: text.replace("1000000000\n", "-1\n"), "cannot be read"),
        (lambda text: text + 'package = { module = "os", file = "x" }', "package"),
        (lambda text: text + "x" * (1 << 20), "more than 1,048,576 bytes"),
        (lambda text: text + "x = " + "[" * 5000, "cannot be read|nested"),
    ],
)
def test_a_newer_catalog_that_is_wrong_is_refused_as_a_whole(
    newer: Path, spoil: Callable[[str], str], said: str
) -> None:
    newer.write_text(spoil(NEWER))
    with pytest.raises(ConfigError, match=said) as caught:
        catalog.entries()
    assert "SQUISH_CATALOG" in (caught.value.hint or "")


def test_the_documented_catalog_has_every_field_and_is_read(newer: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    newer.write_text(text.partition("```toml\n")[2].partition("```")[0])
    [raw] = tomllib.loads(newer.read_text())["model"]
    assert set(raw) == set(UserEntry.__struct_fields__)
    assert set(raw["shape"]) == set(UserShape.__struct_fields__)
    ours = next(entry for entry in catalog.own_entries() if entry.id == raw["id"])
    assert catalog.lookup(ShortName("qwen3", "8b")) == replace(ours, draft=None), "it says what our catalog says"


def test_a_newer_catalog_that_is_not_there_is_named(newer: Path) -> None:
    newer.unlink()
    with pytest.raises(ConfigError, match=r"newer\.toml"):
        catalog.entries()


def test_a_missing_file_is_named_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUISH_CATALOG", str(tmp_path / "catalog.toml"))
    with pytest.raises(ConfigError, match=r"catalog\.toml cannot be read"):
        catalog.entries()


async def test_a_catalog_with_an_address_is_fetched_checked_and_kept(
    hub: LocalHub, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    address = f"{hub.url}/org/names/resolve/main/catalog.toml"
    monkeypatch.setenv("SQUISH_CATALOG", address)
    assert catalog.entries() == catalog.own_entries()
    with pytest.raises(ModelNotFound) as unknown:
        resolve(ShortName("newest"))
    assert unknown.value.hint is not None and unknown.value.hint.endswith("not fetched yet: squish catalog update")
    home = tmp_path / ".squish"
    settings = replace(settings, catalog=address, home=home)
    hub.add_repo("org/names", {"catalog.toml": NEWER.encode()})
    assert await newer_catalog.update(settings) == 2
    assert catalog.lookup(ShortName("newest")) is not None
    hub.add_repo("org/names", {"catalog.toml": b"model = 3"})
    with pytest.raises(ConfigError):
        await newer_catalog.update(settings)
    hub.add_repo("org/names", {"catalog.toml": b"#" * (2 << 20)})
    with pytest.raises(ConfigError, match="more than"):
        await newer_catalog.update(settings)
    assert catalog.lookup(ShortName("newest")) is not None
    with pytest.raises(HubError, match="404"):
        await newer_catalog.update(replace(settings, catalog=f"{hub.url}/org/names/resolve/main/none"))
    monkeypatch.setenv("SQUISH_CATALOG", f"{address}?other")
    assert catalog.lookup(ShortName("newest")) is None, "it was fetched from another address"
    hub.add_repo("org/names", {"catalog.toml": NEWER.encode()})
    assert await newer_catalog.update(replace(settings, catalog=f"{address}?other")) == 2
    assert catalog.lookup(ShortName("newest")) is not None
    assert len([*home.glob("catalog*")]) == 1, "what was fetched from the first is gone"
    with pytest.raises(Offline):
        await newer_catalog.update(replace(settings, offline=True))
    for place in (None, "catalog.toml"):
        with pytest.raises(InvalidInput):
            await newer_catalog.update(replace(settings, catalog=place))
