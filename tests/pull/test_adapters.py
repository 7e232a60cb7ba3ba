"""Adapters as a user meets them: pulled beside a model, served from its process, fused on request."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from squish.config.settings import Settings
from squish.doctor import models as doctor
from squish.errors import CorruptModel, InvalidInput, InvalidName, ModelInUse, ModelNotFound, UnsupportedModel
from squish.generation import ChatPrompt, GenerationRequest, Message, SamplingParams, TextDelta, TextPrompt
from squish.models.manifest import Installed
from squish.models.store import Store
from squish.names import parse
from squish.pull.adapter import fuse
from squish.pull.events import Pulled
from squish.pull.pull import pull
from squish.runtime import Runtime
from tests.conftest import share_compiled
from tests.local_hub import LocalHub
from tests.worker.model.test_load import write_model
from tests.worker.test_adapters import changes, peft

BASE = "tiny:1m"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "tiny"
    write_model(path)
    return path


@pytest.fixture(scope="module")
def adapter(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = {name: (a * 20, b) for name, (a, b) in changes(source, 1).items()}
    return peft(tmp_path_factory.mktemp("adapter") / "poet", given, base_model_name_or_path="org/tiny")


async def pulled(settings: Settings, name: str, **options: object) -> Installed:
    async with pull(name, settings=settings, store=Store(settings.cache_dir), **options) as events:  # type: ignore[arg-type]
        async for event in events:
            last = event
    assert isinstance(last, Pulled)
    return last.installed


@pytest.fixture
async def settings(source: Path, tmp_path: Path) -> AsyncIterator[Settings]:
    made = Settings(home=tmp_path / "home", cache_dir=tmp_path / "models", offline=True)
    share_compiled(made.worker_cache)
    await pulled(made, str(source), as_name=BASE)
    yield made


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as running:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running


async def answer(runtime: Runtime, model: str) -> str:
    request = GenerationRequest(model, (TextPrompt("w5 w6 w7 w8"),), SamplingParams(max_tokens=12, temperature=0.0))
    async with runtime.sessions.generate(request) as generation:
        return "".join([event.text async for event in generation if isinstance(event, TextDelta)])


async def test_an_adapter_is_served_by_the_process_of_its_model_and_can_be_fused(
    settings: Settings, adapter: Path
) -> None:
    installed = await pulled(settings, str(adapter), base=BASE)
    manifest = installed.manifest
    assert (manifest.id, manifest.base, manifest.quantization) == (f"{BASE}+poet", BASE, "LoRA, rank 4")
    store = Store(settings.cache_dir)
    assert [each.id for each in store.list()] == [BASE, f"{BASE}+poet"]
    store.verify(manifest.id)
    assert store.find(str(parse(manifest.id))).path == installed.path
    fused = await fuse(settings, store, manifest.id, "poet:1m")
    assert fused.manifest.base is None and fused.manifest.quantization == "f16"
    async with Runtime(settings) as runtime:
        plain, adapted = await answer(runtime, BASE), await answer(runtime, manifest.id)
        assert [status.name for status in runtime.sessions.status()] == [BASE]
        assert adapted != plain
        assert await answer(runtime, BASE) == plain
        assert await answer(runtime, "poet:1m") == adapted
    with pytest.raises(ModelInUse, match="is the model of"):
        store.remove(BASE)
    store.remove(BASE, force=True)
    assert any("is an adapter of" in finding.reason for finding in doctor.store(settings))
    async with Runtime(settings) as runtime:
        with pytest.raises(ModelNotFound, match=f"is an adapter of {BASE}"):
            await answer(runtime, manifest.id)
    store.remove(manifest.id)
    assert [each.id for each in store.list()] == ["poet:1m"]


async def test_a_chat_with_a_model_without_a_template_is_refused_before_it_is_loaded(
    settings: Settings, adapter: Path
) -> None:
    await pulled(settings, str(adapter), base=BASE)
    chat = ChatPrompt((Message("user", "w5"),))
    async with Runtime(settings) as runtime:
        for name in (BASE, f"{BASE}+poet"):
            with pytest.raises(InvalidInput, match=f"{BASE} has no chat template") as refused:
                runtime.sessions.generate(GenerationRequest(name, (chat,)))
            assert refused.value.param == "messages"
            with pytest.raises(InvalidInput, match=f"{BASE} has no chat template"):
                await runtime.sessions.count_loading(name, (chat,))
        assert not runtime.sessions.status(), "nothing was loaded for it"
        assert await answer(runtime, BASE)


async def test_what_is_wrong_with_an_adapter_or_its_model_is_said_before_anything_is_installed(
    settings: Settings, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="is an adapter") as caught:
        await pulled(settings, str(adapter))
    assert "--base" in (caught.value.hint or "") and "org/tiny" in (caught.value.hint or "")
    with pytest.raises(ModelNotFound, match="not installed"):
        await pulled(settings, str(adapter), base="other:1b")
    with pytest.raises(InvalidName):
        await pulled(settings, str(adapter), base=BASE, as_name="a b")
    with pytest.raises(ModelNotFound, match="with an adapter"):
        await pulled(settings, f"{BASE}+poet")
    with pytest.raises(UnsupportedModel, match="not an adapter"):
        await pulled(settings, str(tmp_path), base=BASE)
    pickled = tmp_path / "pickled"
    shutil.copytree(adapter, pickled)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(UnsupportedModel, match="can run code"):
        await pulled(settings, str(pickled), base=BASE)
    larger = tmp_path / "larger"
    shutil.copytree(adapter, larger)
    config = json.loads((larger / "adapter_config.json").read_text())
    (larger / "adapter_config.json").write_text(json.dumps(config | {"r": 16}))
    with pytest.raises(CorruptModel, match="does not fit"):
        await pulled(settings, str(larger), base=BASE)
    assert [each.id for each in Store(settings.cache_dir).list()] == [BASE]


async def test_an_adapter_comes_from_the_hub_without_anything_else(
    settings: Settings, adapter: Path, hub: LocalHub
) -> None:
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    hub.add_repo("org/poet", files | {"training_args.bin": b"pickle", "tokenizer.json": b"{}"})
    online = Settings(home=settings.home, cache_dir=settings.cache_dir, hub_endpoint=hub.url)
    with pytest.raises(InvalidInput, match="is an adapter"):
        await pulled(online, "org/poet")
    installed = await pulled(online, "org/poet", base=BASE, as_name="bard")
    assert installed.manifest.id == f"{BASE}+bard"
    assert installed.manifest.revision == hub.repos["org/poet"].commit
    assert hub.sent("training_args.bin") == hub.sent("tokenizer.json") == 0
    assert installed.manifest.pull_command == f"squish pull --force org/poet --base {BASE} --name bard"
    del files["adapter_model.safetensors"]
    hub.add_repo("org/pickled", files | {"adapter_model.bin": b"pickle"})
    with pytest.raises(UnsupportedModel, match="can run code"):
        await pulled(online, "org/pickled", base=BASE)
    assert hub.sent("adapter_model.bin") == 0
