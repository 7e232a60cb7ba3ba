"""Moving models to another directory and back: whole in one place or the other, whenever it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from squish.errors import CorruptModel, InvalidInput, ModelInUse, StoreError
from squish.models import elsewhere, sharing, unfinished
from squish.models.move import move
from squish.models.store import Store
from squish.worker.model.hold import hold
from tests.models.test_sharing import COMMON, FILES
from tests.models.test_store import ID, install

NAME = "smollm2+135m"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.mkdir()
    return path


def silent(done: int, total: int) -> None:
    """Nobody looks."""


class Stop(Exception):
    """The process ends here."""


def stop_at(bytes: int) -> object:
    def report(done: int, total: int) -> None:
        if done >= bytes:
            raise Stop

    return report


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_model_that_moved_is_the_same_model(store: Store, disk: Path) -> None:
    install(store, files=FILES)
    reports: list[tuple[int, int]] = []
    moved = move(store, "smollm2", disk, lambda *each: reports.append(each))
    assert moved.path.resolve() == disk / NAME
    assert reports[-1] == (moved.manifest.size, moved.manifest.size)
    store.verify(ID)
    assert [each.id for each in store.list()] == [ID] and not store.problems()
    assert store.link_target(ID) is None  # it is ours
    assert names(disk) == {NAME}
    assert elsewhere.unsettled(store.layout) == ()
    move(store, ID, disk, silent)  # it is there already
    store.verify(ID)


def test_it_moves_on_and_back_and_leaves_nothing_behind(store: Store, disk: Path, tmp_path: Path) -> None:
    install(store, files=FILES)
    (other := tmp_path / "other").mkdir()
    move(store, ID, disk, silent)
    move(store, ID, other, silent)
    assert names(disk) == set() and names(other) == {NAME}
    back = move(store, ID, store.cache_dir, silent)
    assert names(other) == set()
    assert not back.path.is_symlink()
    store.verify(ID)
    assert names(back.path) == {*FILES, "manifest.toml"}
    assert names(store.cache_dir) <= {NAME, ".locks", ".partial", ".old", ".trash", ".moving"}


def test_removing_it_deletes_it_where_it_lies(store: Store, disk: Path) -> None:
    install(store, files=FILES)
    move(store, ID, disk, silent)
    assert store.remove(ID) > len(COMMON)
    assert names(disk) == set() and store.list() == []


def test_pulling_it_again_deletes_it_where_it_lay(store: Store, disk: Path) -> None:
    install(store, files=FILES)
    move(store, ID, disk, silent)
    assert not install(store, files=FILES).path.is_symlink()
    assert names(disk) == set()
    store.verify(ID)


@pytest.mark.parametrize("at", [1, len(COMMON)])
def test_a_move_that_was_cut_off_goes_on(store: Store, disk: Path, at: int) -> None:
    path = install(store, files=FILES).path
    with pytest.raises(Stop):
        move(store, ID, disk, stop_at(at))  # type: ignore[arg-type]
    store.verify(ID)
    assert not path.is_symlink()
    move(store, ID, disk, silent)
    assert path.is_symlink() and names(disk) == {NAME}
    store.verify(ID)


def test_what_a_power_cut_left_is_copied_again(store: Store, disk: Path) -> None:
    install(store, files=FILES)
    with pytest.raises(Stop):
        move(store, ID, disk, stop_at(len(COMMON)))  # type: ignore[arg-type]
    [copy] = disk.glob(".squish-*/model.safetensors")
    copy.write_bytes(bytes(len(COMMON)))
    move(store, ID, disk, silent)
    store.verify(ID)


def test_prune_deletes_what_a_move_left(store: Store, disk: Path) -> None:
    install(store, files=FILES)
    with pytest.raises(Stop):
        move(store, ID, disk, stop_at(1))  # type: ignore[arg-type]
    assert names(disk)
    unfinished.prune(store)
    assert names(disk) == set() and elsewhere.unsettled(store.layout) == ()
    store.verify(ID)


def test_a_disk_that_is_not_there_is_named_and_deleted_from_when_it_is_back(store: Store, disk: Path) -> None:
    install(store, files=FILES)
    (folder := disk / "models").mkdir()
    move(store, ID, folder, silent)
    disk.rename(disk.with_name("unplugged"))
    with pytest.raises(CorruptModel, match="which is not there") as caught:
        store.find(ID)
    assert "Connect the disk" in (caught.value.hint or "")
    assert [problem.path.name for problem in store.problems()] == [NAME]
    store.remove(ID)
    assert store.list() == [] and not store.problems()
    disk.with_name("unplugged").rename(disk)
    unfinished.prune(store)
    assert names(folder) == set()


def test_models_that_share_files_share_them_there_too(store: Store, disk: Path) -> None:
    install(store, files=FILES)
    install(store, "other:1b", FILES)
    for id in (ID, "other:1b"):
        move(store, id, disk, silent)
        store.verify(id)
    assert sharing.shared(store.installed())[ID].others == ("other:1b",)


def test_a_damaged_model_is_not_moved(store: Store, disk: Path) -> None:
    damaged = install(store, files=FILES).path / "model.safetensors"
    damaged.write_bytes(bytes(len(COMMON)))
    with pytest.raises(CorruptModel, match=r"model\.safetensors is not what was installed"):
        move(store, ID, disk, silent)
    assert not damaged.parent.is_symlink()


def test_what_lies_in_the_way_stays(store: Store, disk: Path) -> None:
    install(store, files=FILES)
    (disk / NAME).mkdir()
    (disk / NAME / "mine.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="is there already"):
        move(store, ID, disk, silent)
    assert (disk / NAME / "mine.txt").read_text() == "mine"


def test_directories_that_cannot_be_used_are_refused(store: Store, disk: Path, tmp_path: Path) -> None:
    path = install(store, files=FILES).path
    with pytest.raises(InvalidInput, match="does not exist") as caught:
        move(store, ID, disk / "new", silent)
    assert "mkdir" in (caught.value.hint or "")
    with pytest.raises(InvalidInput, match="inside the store"):
        move(store, ID, path, silent)
    (file := tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="not a directory"):
        move(store, ID, file, silent)


def test_a_link_to_what_is_not_ours_is_not_moved(store: Store, disk: Path, tmp_path: Path) -> None:
    path = install(store, files=FILES).path
    path.rename(tmp_path / "theirs")
    path.symlink_to(tmp_path / "theirs")
    with pytest.raises(InvalidInput, match="does not belong to Squish"):
        move(store, ID, disk, silent)


def test_a_model_in_use_moves_only_by_force(store: Store, disk: Path) -> None:
    path = install(store, files=FILES).path
    hold(path)
    with pytest.raises(ModelInUse) as caught:
        move(store, ID, disk, silent)
    assert "--force" in (caught.value.hint or "")
    move(store, ID, disk, silent, force=True)
    store.verify(ID)


def test_a_full_disk_is_refused_before_anything_is_copied(
    store: Store, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(store, files=FILES)
    monkeypatch.setattr("squish.models.move._RESERVE", 1 << 60)
    with pytest.raises(StoreError, match=r" free; .* needs "):
        move(store, ID, disk, silent)
    assert not list(disk.rglob("*.safetensors"))
