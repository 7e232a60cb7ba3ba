"""A model's way to another machine: every byte by its hash, gone on with after a cut, and never over another model."""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import replace
from pathlib import Path

import pytest

from squish.cluster.messages import CHUNK, Chunk, Have, Look, ModelThere, Receive, Working, Written
from squish.cluster.sending import deliver
from squish.errors import CorruptModel, EngineError, InvalidInput, ModelInUse, SquishError, StoreError, WorkerDied
from squish.models.manifest import Installed, StoredFile
from squish.models.store import Store
from tests.cluster.pairs import THERE, install, manifest, pair, settings_of

ID = "tiny:1b"
FILES = {
    "config.json": b"{}",
    "model.safetensors": os.urandom(12 * CHUNK + 17),
    "1_Pooling/config.json": b"",
    "a": b"b",
}
SIZE = sum(map(len, FILES.values()))


@pytest.fixture
def here(tmp_path: Path) -> Installed:
    return install(tmp_path / "here", ID, FILES)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The home on the other machine."""
    return tmp_path / "there"


def files_of(home: Path) -> dict[str, bytes]:
    """What is installed there, read back and checked by its manifest."""
    store = Store(settings_of(home).cache_dir)
    store.verify(ID)
    installed = store.find(ID)
    return {file.path: (installed.path / file.path).read_bytes() for file in installed.manifest.files}


async def test_a_model_is_copied_and_found_equal_the_next_time(here: Installed, there: Path) -> None:
    shown: list[tuple[str, int, int]] = []
    async with pair(there) as two:
        await deliver(two.connection, here, lambda *what: shown.append(what))
        assert files_of(there) == FILES
        assert ("there", SIZE, SIZE) in shown
        assert await two.connection.ask(Look(ID, here.manifest.files), ModelThere) == ModelThere("same")
    assert Store(settings_of(there).cache_dir).find(ID).manifest == here.manifest
    assert not (settings_of(there).cache_dir / ".partial" / "tiny+1b").exists()


async def test_a_copy_that_was_cut_goes_on_where_it_was(here: Installed, there: Path) -> None:
    async with pair(there) as two:
        with pytest.raises(WorkerDied, match="there is lost"):

            def seen(host: str, done: int, total: int) -> None:
                if done > CHUNK:
                    two.cut()

            await deliver(two.connection, here, seen)
    async with pair(there) as two:
        before = await two.connection.ask(Look(ID, here.manifest.files), ModelThere)
        assert before.state == "absent" and CHUNK < before.partial < SIZE
        first: list[int] = []
        await deliver(two.connection, here, lambda host, done, total: first.append(done))
        assert first[0] > before.partial
    assert files_of(there) == FILES


async def test_what_is_asked_of_a_host_that_was_lost_can_be_forgotten(there: Path) -> None:
    """A copy has several pieces on their way, and looks at the first that failed."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    async with pair(there) as two:
        two.cut()
        while not two.connection.lost:
            await asyncio.sleep(0)
        two.connection.post(Look(ID, ()))
    gc.collect()
    assert told == []


async def test_what_was_left_by_another_version_is_sent_again(here: Installed, there: Path) -> None:
    folder = settings_of(there).cache_dir / ".partial" / "tiny+1b" / "copied"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"\0" * (CHUNK + 5))
    (folder / "old.safetensors").write_bytes(b"\0")
    (folder / "a").write_bytes(b"longer than it is")
    async with pair(there) as two:
        await deliver(two.connection, here, lambda *what: None)
    assert files_of(there) == FILES


async def test_another_model_of_that_name_is_never_replaced(here: Installed, there: Path) -> None:
    other = install(there, ID, {"config.json": b"{}", "model.safetensors": b"mine"})
    async with pair(there) as two:
        with pytest.raises(CorruptModel, match="on there has other files") as raised:
            await deliver(two.connection, here, lambda *what: None)
        assert raised.value.hint and "squish rm tiny:1b" in raised.value.hint
        with pytest.raises(InvalidInput, match="there: tiny:1b is installed here"):
            await two.connection.ask(Receive(here.manifest), Have)
    assert (other.path / "model.safetensors").read_bytes() == b"mine"


async def test_a_file_that_was_changed_is_found_by_its_hash(here: Installed, there: Path) -> None:
    copy = install(there, ID, FILES)
    weights = copy.path / "model.safetensors"
    content = bytearray(FILES["model.safetensors"])
    async with pair(there) as two:
        assert (await two.connection.ask(Look(ID, here.manifest.files), ModelThere)).state == "same"
        content[100] ^= 1
        weights.write_bytes(content)  # of the same size
        with pytest.raises(CorruptModel, match=r"model\.safetensors of tiny:1b on there is not what was installed"):
            await deliver(two.connection, here, lambda *what: None)
        weights.unlink()
        found = await two.connection.ask(Look(ID, here.manifest.files), ModelThere)
        assert found == ModelThere("changed", "model.safetensors")


async def test_what_has_not_changed_is_not_read_again(here: Installed, there: Path) -> None:
    """The times are put back, so that only a second reading could see the change: it does not happen."""
    copy = install(there, ID, FILES)
    weights = copy.path / "model.safetensors"
    async with pair(there) as two:
        await two.connection.ask(Look(ID, here.manifest.files), ModelThere)
        about = weights.stat()
        with weights.open("r+b") as file:
            file.write(b"other")
        os.utime(weights, ns=(about.st_atime_ns, about.st_mtime_ns))
        assert (await two.connection.ask(Look(ID, here.manifest.files), ModelThere)).state == "same"
        for each in (settings_of(there).worker_cache / "verified").iterdir():
            each.unlink()
        assert (await two.connection.ask(Look(ID, here.manifest.files), ModelThere)).state == "changed"


async def test_a_disk_without_room_is_said_before_anything_is_sent(here: Installed, there: Path) -> None:
    huge = replace(here.manifest, files=(StoredFile("model.safetensors", 10**17, "0" * 64),))
    async with pair(there) as two:
        with pytest.raises(StoreError, match=r"there: The disk has .* free; this needs 100000 TB"):
            await two.connection.ask(Receive(huge), Have)


async def test_what_another_process_installs_is_left_alone(here: Installed, there: Path) -> None:
    async with pair(there) as two:
        with Store(settings_of(there).cache_dir).lock(ID), pytest.raises(ModelInUse, match="there: tiny:1b is being"):
            await two.connection.ask(Receive(here.manifest), Have)


@pytest.mark.parametrize(
    "chunk", [Chunk(1, 5, b"gap"), Chunk(0, 0, b"longer than the file"), Chunk(9, 0, b""), Chunk(-1, 0, b"")]
)
async def test_bytes_that_belong_nowhere_are_refused(here: Installed, there: Path, chunk: Chunk) -> None:
    async with pair(there) as two:
        await two.connection.ask(Receive(here.manifest), Have)
        with pytest.raises(EngineError):
            await two.connection.ask(chunk, Written)


async def test_no_file_leads_out_of_the_folder(there: Path) -> None:
    """A path that leads out cannot even be said: the message is not one."""
    with pytest.raises(ValueError, match="leaves the model's directory"):
        StoredFile("../../evil", 1, "0" * 64)
    bad = manifest(ID, (StoredFile("good", 1, "0" * 64),))
    object.__setattr__(bad.files[0], "path", "../../evil")
    async with pair(there) as two:
        with pytest.raises(WorkerDied):
            await two.connection.ask(Receive(bad), Have)
    assert not (there.parent / "evil").exists() and not (there / "evil").exists()


async def test_a_model_is_pulled_there_where_hosts_toml_says_so(here: Installed, there: Path) -> None:
    pulled = []

    async def pull(name: str, report) -> None:  # type: ignore[no-untyped-def]
        pulled.append(name)
        report(Working("download", 1, 2))
        install(there, ID, FILES)

    shown: list[int] = []
    async with pair(there, replace(THERE, model="pull"), pull) as two:
        await deliver(two.connection, here, lambda host, done, total: shown.append(done))
    assert pulled == [ID] and shown[0] == 1


async def test_a_pull_that_gives_something_else_is_refused(here: Installed, there: Path) -> None:
    async def pull(name: str, report) -> None:  # type: ignore[no-untyped-def]
        install(there, ID, {"model.safetensors": b"compressed otherwise"})

    async with pair(there, replace(THERE, model="pull"), pull) as two:
        with pytest.raises(CorruptModel, match="has other files"):
            await deliver(two.connection, here, lambda *what: None)


async def test_errors_of_the_other_machine_are_clean_text(here: Installed, there: Path) -> None:
    async def pull(name: str, report) -> None:  # type: ignore[no-untyped-def]
        raise StoreError("full \x1b]52;c;evil\x07of it", hint="\x1b[2Jno")

    async with pair(there, replace(THERE, model="pull"), pull) as two:
        with pytest.raises(SquishError) as raised:
            await deliver(two.connection, here, lambda *what: None)
    assert raised.value.message == "there: full of it"
    assert raised.value.hint == "no"


async def test_a_source_that_changes_under_the_copy_is_refused(here: Installed, there: Path) -> None:
    (here.path / "model.safetensors").write_bytes(b"\0" * len(FILES["model.safetensors"]))
    async with pair(there) as two:
        with pytest.raises(CorruptModel, match="arrived on there as something else") as raised:
            await deliver(two.connection, here, lambda *what: None)
        assert raised.value.hint == "Check it here: squish verify tiny:1b"
        assert (await two.connection.ask(Look(ID, here.manifest.files), ModelThere)).state == "absent"
