"""A directory of full precision on this machine is compressed as a repository is, and stays as it was."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from squish.errors import InvalidInput, UnsupportedModel
from squish.models.recipes import CompressionOptions, recipe
from squish.pull.events import Notice, Pulled
from tests.pull.shards import byte_tokenizer, in_shards, tiny_llama
from tests.pull.test_compress import Puller


@pytest.fixture
def user(tmp_path: Path) -> Puller:
    return Puller(tmp_path / "home", "http://127.0.0.1:9")  # nobody answers there


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "mine"
    directory.mkdir()
    (tmp_path / "work").mkdir()
    files = in_shards(*tiny_llama(vocab_size=2048), tmp_path / "work", 3) | byte_tokenizer()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def chosen(bits: str, group: int | None = None, **how: Any) -> CompressionOptions:
    names = ("search", "calibrated")
    asked = recipe(bits, group, *(how.pop(name, False) for name in names))
    return CompressionOptions(asked, explicit=True, **how)


def state(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("options", "tag", "quantization", "flags"),
    [
        (chosen("4"), "4bit", "4-bit (group 64)", "--bits 4"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in (
                (chosen("5.5"), "5.5bpw", "5.5 bits a weight, mixed (group", "--bits 5.5"),
                (chosen("8", 32), "8bit-g32", "8-bit (group 32)", "--bits 8 --group-size 32"),
                (chosen("4", search=True), "4bit-search", "4-bit (group 64)", "--bits 4 --search"),
                (chosen("4", calibrated=True), "4bit-calibrated", "4-bit (group 64)", "--bits 4 --calibrate"),
                (CompressionOptions(measure=True), "4bit", "4-bit (group 64)", "--bits 4"),
            )
        ),
    ],
)
def test_it_is_compressed_in_every_way(
    user: Puller, source: Path, options: CompressionOptions, tag: str, quantization: str, flags: str
) -> None:
    before = state(source)
    pulled = user.pull(str(source), options)
    manifest = pulled.installed.manifest
    assert manifest.id == f"mine:{tag}" and manifest.quantization.startswith(quantization)
    assert manifest.pull_command == f"squish pull --force {source} --name mine:{tag} {flags}"
    assert pulled.compression is not None and pulled.compression.after < pulled.compression.before
    assert (manifest.loss is not None) == options.measure
    user.store.verify(manifest.id)
    assert not any(path.is_symlink() for path in pulled.installed.path.iterdir())
    assert state(source) == before
    assert [*user.settings.cache_dir.glob(".partial/*")] == []
    assert not user.pull(str(source), options).fresh


@pytest.mark.long
def test_it_gives_the_same_weights_as_a_repository(
    user: Puller, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.local_hub import LocalHub

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    here = user.pull(str(source), chosen("4.5")).installed
    with LocalHub() as hub:
        hub.add_repo("org/full", {path.name: path.read_bytes() for path in source.iterdir()})
        there = Puller(tmp_path / "other", hub.url).pull("org/full", chosen("4.5")).installed
    assert here.manifest.files == there.manifest.files


@pytest.mark.long
def test_the_size_that_fits_is_chosen(user: Puller, source: Path) -> None:
    events = user.events(str(source), chosen("fit"))
    assert any(isinstance(each, Notice) and "the most that fits this machine" in each.text for each in events)
    assert isinstance(events[-1], Pulled) and events[-1].installed.manifest.id == "mine:fit"


def test_without_an_option_it_is_taken_as_it_is(user: Puller, source: Path) -> None:
    assert user.pull(str(source)).installed.manifest.quantization == "f32"
    assert user.pull(str(source), chosen("none")).installed.manifest.id == "mine"
    with pytest.raises(InvalidInput, match="mine is installed as f32"):
        user.pull(str(source), chosen("8"), as_name="mine")


def test_what_cannot_be_compressed_is_refused(user: Puller, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="keep-source"):
        user.pull(str(source), chosen("4", keep_source=True))
    compressed = user.pull(str(source), chosen("4")).installed.path
    with pytest.raises(InvalidInput, match=r"already quantized \(4-bit\)"):
        user.pull(str(compressed), chosen("8"), as_name="again")
    (source / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(UnsupportedModel, match="model-00002-of-00003") as refused:
        user.pull(str(source), chosen("8"))
    assert refused.value.hint is None, "nothing would have been downloaded"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=r"no \.safetensors weights"):
        user.pull(str(tmp_path / "empty"), chosen("8"))
    assert [*user.settings.cache_dir.glob(".partial/*")] == []
