"""Models of other programs: found as those programs keep them, linked or imported, and never changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from squish.config.settings import Settings
from squish.download.disk import SEEN
from squish.errors import CorruptModel, SquishError, StoreError
from squish.ipc.process import Worker
from squish.models import sharing
from squish.models.store import Store
from squish.names import LocalPath
from squish.pull.events import Progress, Pulled
from squish.pull.neighbors import Neighbor, Program, at, find
from squish.pull.pull import take
from squish.pull.verdicts import judged
from squish.tui.hub import local_model
from tests.conftest import MODEL, share_compiled
from tests.local_hub import tiny_model
from tests.worker.gguf.tiny import tiny_model as tiny_gguf
from tests.worker.gguf.writer import Q8_0
from tests.worker.model.test_load import write_model

COMMIT = "a" * 40


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny"
    write_model(path)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def settings(home: Path) -> Settings:
    found = Settings(home=home / ".squish", cache_dir=home / ".squish" / "models", offline=True)
    share_compiled(found.worker_cache)
    return found


def in_hub_cache(root: Path, model: Path, org: str = "org", name: str = "tiny") -> Path:
    """As huggingface_hub keeps a repository: blobs, and a snapshot of links to them."""
    cache = root / f"models--{org}--{name}"
    snapshot = cache / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    for path in model.iterdir():
        content = path.read_bytes()
        blob = cache / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + bytes(100))
    return path


def in_ollama(root: Path, *layers: tuple[str, bytes], place: str = "registry.ollama.ai/library/llama3.2/1b") -> Path:
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    listed = []
    for kind, content in layers:
        digest = hashlib.sha256(content).hexdigest()
        (root / "blobs" / f"sha256-{digest}").write_bytes(content)
        listed.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"})
    manifest = root / "manifests" / place
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": listed}))
    return manifest


def ids(found: list[Neighbor]) -> list[str]:
    return [each.id for each in found]


async def test_checking_a_file_of_ollama_reports_its_bytes(home: Path, settings: Settings) -> None:
    weights = b"GGUF" + bytes(SEEN)  # no model: only what comes before the import is of interest
    in_ollama(home / ".ollama/models", ("model", weights))
    [found] = find("ollama", {}, home)
    checked = list[int]()
    with suppress(SquishError):
        async with take(found, settings=settings, store=Store(settings.cache_dir)) as events:
            async for event in events:
                if isinstance(event, Progress) and event.phase == "verify":
                    checked.append(event.done)
    assert SEEN in checked


async def taken(model: Neighbor, settings: Settings) -> Pulled:
    async with take(model, settings=settings, store=Store(settings.cache_dir)) as events:
        async for event in events:
            last = event
    assert isinstance(last, Pulled)
    return last


@pytest.mark.parametrize("program", ["lmstudio", "hf", "ollama"])
def test_nothing_is_found_where_no_program_has_been(home: Path, program: Program) -> None:
    assert find(program, {"OLLAMA_MODELS": str(home / "none")}, home) == []


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, ".cache/huggingface/hub"),
        ({"HF_HOME": "hf"}, "hf/hub"),
        ({"HF_HUB_CACHE": "elsewhere", "HF_HOME": "hf"}, "elsewhere"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/huggingface/hub"),
    ],
)
def test_the_hub_cache_is_where_its_variables_say(
    home: Path, tiny: Path, variables: dict[str, str], place: str
) -> None:
    snapshot = in_hub_cache(home / place, tiny)
    [found] = find("hf", {name: str(home / value) for name, value in variables.items()}, home)
    assert (found.id, found.path, found.linked, found.problem) == ("org/tiny:full", snapshot, True, None)
    assert (found.repo, found.revision) == ("org/tiny", COMMIT)
    assert found.size == sum(path.stat().st_size for path in tiny.iterdir())


async def test_a_model_of_the_hub_cache_is_linked_and_nothing_is_copied(
    home: Path, tiny: Path, settings: Settings
) -> None:
    snapshot = in_hub_cache(home / ".cache/huggingface/hub", tiny)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    [found] = find("hf", {}, home)
    installed = (await taken(found, settings)).installed
    store = Store(settings.cache_dir)
    manifest = installed.manifest
    assert (manifest.id, manifest.source, manifest.revision) == ("org/tiny:full", "hub:org/tiny", COMMIT)
    assert (installed.path / "model.safetensors").samefile(snapshot / "model.safetensors")
    store.verify(manifest.id)
    assert not (await taken(found, settings)).fresh
    assert store.remove(manifest.id) < sum(path.stat().st_size for path in tiny.iterdir())
    assert {path: path.read_bytes() for path in before} == before


async def test_a_model_of_another_program_is_known_by_its_path_to_be_installed(
    home: Path, tiny: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(tiny, studio := home / ".lmstudio/models/org/other")
    for path in (in_hub_cache(home / ".cache/huggingface/hub", tiny), studio):
        model = at(path, {}, home)
        assert model is not None and model.path == path
        assert local_model.of_another_program(LocalPath(path)) == model
        manifest = (await taken(model, settings)).installed.manifest
        assert local_model.installed_as(LocalPath(path), [manifest], model) == model.id
        pulled = replace(
            manifest, source=f"hub:{model.id.partition(':')[0]}", installed_at=datetime.fromtimestamp(0, UTC)
        )
        assert local_model.installed_as(LocalPath(path), [pulled], model) == model.id
        other = replace(manifest, source="hub:somebody/else")
        assert local_model.installed_as(LocalPath(path), [other], model) == ""


def test_the_directory_of_one_gguf_file_is_that_model(home: Path) -> None:
    one = gguf(home / ".lmstudio/models/org/Some-GGUF/Some-1B-Q4_K_M.gguf")
    gguf(one.parent / "mmproj-Some-1B-f16.gguf")
    for path in (one, one.parent):
        found = at(path, {}, home)
        assert found is not None and found.path == one
    gguf(one.parent / "Some-1B-Q8_0.gguf")
    assert at(one.parent, {}, home) is None
    assert at(home, {}, home) is None and at(home / ".lmstudio/models/none", {}, home) is None
    weights = in_ollama(home / ".ollama/models", ("model", b"GGUF" + bytes(9)))
    [ollama] = find("ollama", {}, home)
    assert at(ollama.path, {}, home) == ollama and weights


async def test_on_another_file_system_the_weights_are_links(
    home: Path, tiny: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    snapshot = in_hub_cache(home / ".cache/huggingface/hub", tiny)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    installed = (await taken(find("hf", {}, home)[0], settings)).installed
    store = Store(settings.cache_dir)
    assert (installed.path / "model.safetensors").is_symlink()
    assert installed.manifest.linked == str(snapshot)
    store.verify(installed.manifest.id)
    (snapshot / "model.safetensors").unlink()
    shutil.rmtree(snapshot.parent.parent / "blobs")
    assert store.find("org/tiny:full").damaged == "model.safetensors"


async def test_a_link_in_any_other_model_is_refused(home: Path, settings: Settings) -> None:
    from tests.models.test_store import manifest

    store = Store(settings.cache_dir)
    (home / "secret.safetensors").write_bytes(b"x")
    with store.staging("x:1b") as staging:
        (staging / "model.safetensors").symlink_to(home / "secret.safetensors")
        with pytest.raises(StoreError, match="not a regular file"):
            store.commit(staging, manifest("x:1b"))


def test_lm_studio_keeps_models_below_their_publishers(home: Path, tiny: Path) -> None:
    shutil.copytree(tiny, home / ".lmstudio/models/org/tiny")
    gguf(home / ".cache/lm-studio/models/lmstudio-community/Some-GGUF/Some-1B-Q4_K_M.gguf")
    gguf(home / ".cache/lm-studio/models/lmstudio-community/Some-GGUF/Some-1B-Q8_0.gguf")
    gguf(home / ".cache/lm-studio/models/lmstudio-community/Some-GGUF/mmproj-Some-1B-f16.gguf")
    found = find("lmstudio", {}, home)
    assert ids(found) == [
        "lmstudio-community/Some-GGUF:Q4_K_M", "lmstudio-community/Some-GGUF:Q8_0",
        "lmstudio-community/Some-GGUF:mmproj-Some-1B-f16", "org/tiny:full",
    ]  # fmt: skip
    assert [each.linked for each in found] == [False, False, False, True]
    assert [bool(each.problem) for each in found] == [each.beside for each in found] == [False, False, True, False]


async def test_one_worker_says_of_every_gguf_file_whether_it_can_be_imported(
    home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    spawn = Worker.spawn

    async def counted(cache_dir: Path) -> Worker:
        started.append(cache_dir)
        return await spawn(cache_dir)

    monkeypatch.setattr(Worker, "spawn", counted)
    root = home / ".lmstudio/models"
    shutil.copytree(tiny, root / "org/tiny")
    files = {"a": {}, "b": {"general.architecture": "made_up"}, "c": {"tokenizer.ggml.model": "rwkv"}, "d": {}}
    for name, metadata in files.items():
        parts, _ = tiny_gguf(Q8_0)
        parts.metadata.update(metadata)
        (root / "org" / name).mkdir()
        parts.write(root / "org" / name / f"{name}-Q8_0.gguf")
    (cut := root / "org/d/d-Q8_0.gguf").write_bytes(cut.read_bytes()[:-1000])
    found = await judged(find("lmstudio", {}, home), home / "cache")
    problems = {each.id: each.problem or "" for each in found}
    assert problems["org/a:Q8_0"] == problems["org/tiny:full"] == ""
    assert "made_up" in problems["org/b:Q8_0"] and "rwkv" in problems["org/c:Q8_0"]
    assert "cut off" in problems["org/d:Q8_0"]
    assert len(started) == 1


def test_lm_studio_may_have_another_home(home: Path, tiny: Path) -> None:
    (home / ".lmstudio-home-pointer").write_text(f"{home / 'big'}\n")
    shutil.copytree(tiny, home / "big/models/org/tiny")
    assert ids(find("lmstudio", {}, home)) == ["org/tiny:full"]


def test_what_does_not_run_is_found_with_the_reason(home: Path) -> None:
    root = home / ".lmstudio/models/org"
    for name, change in (("odd", {"model_type": "nothing_we_know"}), ("cut", {})):
        (directory := root / name).mkdir(parents=True)
        for file, content in tiny_model().items():
            (directory / file).write_bytes(content)
        config = json.loads(tiny_model()["config.json"]) | change
        (directory / "config.json").write_text(json.dumps(config))
    (root / "cut" / "tokenizer.json").unlink()
    found = {each.id: each.problem or "" for each in find("lmstudio", {}, home)}
    assert "nothing_we_know" in found["org/odd"] and "no tokenizer" in found["org/cut"]


@pytest.mark.parametrize(
    ("place", "id"),
    [
        ("registry.ollama.ai/library/llama3.2/1b", "llama3.2:1b"),
        ("registry.ollama.ai/library/llama3.2/latest", "llama3.2"),
        ("registry.ollama.ai/someone/mine/7b", "someone/mine:7b"),
        ("hf.co/org/Some-GGUF/Q4_K_M", "org/Some-GGUF:Q4_K_M"),
    ],
)
def test_ollamas_models_have_the_names_that_ollama_gives_them(home: Path, place: str, id: str) -> None:
    blob = b"GGUF" + bytes(50)
    in_ollama(home / "own", ("model", blob), ("template", b"{{ .Prompt }}"), place=place)
    [found] = find("ollama", {"OLLAMA_MODELS": str(home / "own")}, home)
    assert (found.id, found.size, found.linked, found.problem) == (id, len(blob), False, None)
    assert found.path.read_bytes() == blob


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda manifest: manifest.write_text("{"), "cannot be read"),
        (lambda manifest: manifest.write_text('{"layers": 3}'), "cannot be read"),
        (lambda manifest: manifest.write_text('{"layers": []}'), "no weights here"),
        (lambda manifest: manifest.write_text(manifest.read_text().replace("sha256:", "sha256:../")), "no weights"),
        (lambda manifest: shutil.rmtree(manifest.parents[4] / "blobs"), "is missing"),
        (lambda manifest: manifest.write_text(manifest.read_text().replace("image.template", "image.adapter")),
         "adapter"),
    ],
)  # fmt: skip
def test_what_ollama_cannot_give_is_said(home: Path, spoil: Callable[[Path], object], problem: str) -> None:
    root = home / ".ollama/models"
    spoil(in_ollama(root, ("model", b"GGUF"), ("template", b"x")))
    [found] = find("ollama", {}, home)
    assert problem in (found.problem or "")


async def test_a_blob_of_ollama_becomes_a_model(home: Path, settings: Settings) -> None:
    file = tiny_gguf(Q8_0)[0].write(home / "tiny.gguf")
    root = home / ".ollama/models"
    place = in_ollama(root, ("model", b"later"), place="registry.ollama.ai/library/smollm2/135m")
    blob = next((root / "blobs").iterdir())
    blob.unlink()
    blob.symlink_to(file)
    [found] = find("ollama", {}, home)
    with pytest.raises(CorruptModel, match="is damaged"):  # its name is the hash of something else
        await taken(found, settings)
    with file.open("rb") as opened:
        right = hashlib.file_digest(opened, "sha256").hexdigest()
    blob.rename(blob.with_name(f"sha256-{right}"))
    place.write_text(place.read_text().replace(found.sha256 or "", right))
    blob = root / "blobs" / f"sha256-{right}"
    [found] = find("ollama", {}, home)
    pulled = await taken(found, settings)
    assert pulled.installed.manifest.id == MODEL
    assert pulled.installed.manifest.architecture == "llama"
    assert place.is_file() and blob.is_symlink()
    assert sharing.shared(Store(settings.cache_dir).installed()) == {}
