"""Files that models have in common are stored once, and go with the last model that has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from squish.models import sharing, unfinished
from squish.models.store import Store
from tests.models.test_store import ID, install

COMMON = b"weights" * 2000
FILES = {"config.json": b"{}", "model.safetensors": COMMON}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def links(store: Store, id: str, file: str = "model.safetensors") -> int:
    return (store.find(id).path / file).stat().st_nlink


def test_the_same_file_of_two_models_is_stored_once(store: Store) -> None:
    install(store, files=FILES)
    install(store, "other:1b", FILES | {"config.json": b"[]"})
    assert links(store, ID) == links(store, "other:1b") == 2
    assert links(store, ID, "config.json") == 1  # people edit it, and it is smaller than a block
    for id in (ID, "other:1b"):
        store.verify(id)
    shared = sharing.shared(store.installed())
    assert shared == {
        ID: sharing.Shared(len(COMMON), ("other:1b",)), "other:1b": sharing.Shared(len(COMMON), (ID,))
    }  # fmt: skip
    assert not list((store.cache_dir / ".partial").iterdir())


def test_the_file_goes_with_the_last_model_that_has_it(store: Store) -> None:
    install(store, files=FILES)
    install(store, "other:1b", FILES)
    assert store.remove("other:1b") < 4096  # its manifest
    store.verify(ID)
    assert sharing.shared(store.installed()) == {}
    assert store.remove(ID) > len(COMMON)


def test_a_file_that_was_damaged_is_replaced_by_the_one_just_installed(store: Store) -> None:
    damaged = install(store, files=FILES).path / "model.safetensors"
    damaged.write_bytes(bytes(len(COMMON)))
    install(store, "other:1b", FILES)
    for id in (ID, "other:1b"):
        store.verify(id)


def test_a_model_of_the_same_name_takes_nothing_from_the_one_it_replaces(store: Store) -> None:
    first = install(store, files=FILES)
    (first.path / "model.safetensors").write_bytes(bytes(len(COMMON)))
    install(store, files=FILES)
    store.verify(ID)
    assert links(store, ID) == 1


def test_a_model_that_is_being_replaced_is_left_alone(store: Store) -> None:
    install(store, "other:1b", FILES)
    with store.layout.locked("other+1b.commit", "other:1b", wait=True):
        install(store, files=FILES)
    assert links(store, ID) == 1
    assert unfinished.share(store) == len(COMMON)
    assert links(store, ID) == 2
    assert unfinished.share(store) == 0


def test_what_is_damaged_does_not_spread(store: Store) -> None:
    with store.layout.locked("smollm2+135m.commit", ID, wait=True):
        install(store, "a:1b", FILES)
    with store.layout.locked("a+1b.commit", "a:1b", wait=True):
        install(store, files=FILES)
    (store.find("a:1b").path / "model.safetensors").write_bytes(bytes(len(COMMON)))
    assert unfinished.share(store) == 0
    store.verify(ID)


def test_a_link_to_a_model_of_somebody_else_is_not_touched(store: Store, tmp_path: Path) -> None:
    path = install(store, files=FILES).path
    path.rename(tmp_path / path.name)
    path.symlink_to(tmp_path / path.name)
    install(store, "other:1b", FILES)
    assert links(store, ID) == links(store, "other:1b") == 1


def test_bytes_that_two_directories_share_are_freed_with_both(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for each in (one, two):
        each.mkdir()
    (one / "x").write_bytes(COMMON)
    (two / "x").hardlink_to(one / "x")
    assert sharing.bytes_freed(one) == 0
    assert sharing.bytes_freed(one, two) == len(COMMON)
