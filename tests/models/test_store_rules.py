"""The model store, rule by rule: what it believes, what it refuses, and what it advises."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from squish.errors import CorruptModel, InvalidInput, ModelInUse, ModelNotFound, StoreError
from squish.models.store import MANIFEST, Store, StoredFile
from squish.worker.model.hold import hold
from tests.models.test_store import FILES, ID, install, manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def test_the_files_of_a_model_are_those_of_its_tree_in_order(store: Store) -> None:
    content = {"b.json": b"1", "a/c.json": b"22", "a/b/d.json": b""}
    files = install(store, files=content).manifest.files
    assert files == tuple(
        StoredFile(name, len(content[name]), hashlib.sha256(content[name]).hexdigest())
        for name in ("a/b/d.json", "a/c.json", "b.json")
    )
    store.verify(ID)


def test_a_hash_that_is_known_is_believed_where_the_size_is_right(store: Store) -> None:
    known = (StoredFile("right", 3, "0" * 64), StoredFile("wrong", 4, "0" * 64), StoredFile("missing", 1, "0" * 64))
    with store.staging(ID) as staging:
        for name in ("right", "wrong", "other", MANIFEST):
            (staging / name).write_bytes(b"abc")
        installed = store.commit(staging, replace(manifest(), files=known))
    digest = hashlib.sha256(b"abc").hexdigest()
    assert [(file.path, file.sha256) for file in installed.manifest.files] == [
        ("other", digest),
        ("right", "0" * 64),
        ("wrong", digest),
    ]


def test_only_what_lies_under_partial_becomes_a_model(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ValueError, match=r"\.partial"):
        store.commit(tmp_path / "elsewhere", manifest())


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_not_a_file_is_named_and_not_installed(store: Store, kind: str) -> None:
    with pytest.raises(StoreError, match=r"sub/odd is not a regular file"), store.staging(ID) as staging:
        (staging / "sub").mkdir()
        if kind == "link":
            (staging / "sub" / "odd").symlink_to(staging)
        else:
            os.mkfifo(staging / "sub" / "odd")
        store.commit(staging, manifest())


@pytest.mark.parametrize("content", [None, b"weights" * 99, b"WEIGHTS" * 100])
def test_verify_names_the_file_that_is_wrong_and_what_to_run(store: Store, content: bytes | None) -> None:
    path = install(store).path / "model.safetensors"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptModel, match=rf"model\.safetensors of {ID}") as caught:
        store.verify(ID)
    assert caught.value.hint == f"Run: squish pull --force {ID}"
    assert caught.value.param == "model"


def test_what_is_in_the_way_of_verify_is_named(store: Store) -> None:
    (install(store).path / "more.py").touch()
    with pytest.raises(CorruptModel, match=r"more\.py") as caught:
        store.verify(ID)
    assert caught.value.param == "model"


def test_what_a_model_frees_is_what_it_and_its_download_took(store: Store) -> None:
    there = sum(path.stat().st_size for path in install(store).path.iterdir())
    (store.partial(ID) / "x.part").write_bytes(b"1234")
    assert store.remove(ID) == there + 4
    with pytest.raises(ModelNotFound):
        store.remove(ID)


def test_a_model_in_use_goes_only_by_force(store: Store) -> None:
    held = hold(install(store).path)
    try:
        with pytest.raises(ModelInUse, match="in use") as caught:
            store.remove(ID)
        assert caught.value.param == "model"
        assert f"squish rm --force {ID}" in (caught.value.hint or "")
        store.verify(ID)
        assert store.remove(ID, force=True) > 0
    finally:
        os.close(held)
    assert store.list() == []


def test_who_installs_a_model_keeps_others_from_removing_it(store: Store) -> None:
    install(store)
    with store.lock(ID), pytest.raises(ModelInUse):
        store.remove(ID)
    with store.lock(ID), pytest.raises(ModelInUse), store.lock(ID, wait=False):
        pass


def test_a_model_lies_where_it_is_unless_it_is_a_link(store: Store) -> None:
    install(store)
    assert store.link_target(ID) is None


def test_a_path_that_is_not_imported_cannot_be_removed(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="not imported") as caught:
        store.remove(str(tmp_path / "x.gguf"))
    assert caught.value.param == "model"
    assert caught.value.hint == f"Run: squish pull {tmp_path}/x.gguf"


def test_a_copy_is_the_same_under_another_name(store: Store) -> None:
    first = install(store, files=FILES | {"sub/deep/more.json": b"{}"})
    copied = store.copy(ID, "mine")
    assert copied.manifest == replace(first.manifest, id="mine", installed_at=copied.manifest.installed_at)
    assert copied.manifest.installed_at > first.manifest.installed_at
    assert (copied.path / "sub/deep/more.json").samefile(first.path / "sub/deep/more.json")
    assert [each.id for each in store.list()] == ["mine", ID]
    store.verify("mine")


def test_a_copy_needs_a_name_that_is_free(store: Store) -> None:
    install(store)
    install(store, "other:1b")
    for name, message, hint in (
        (ID, "already has that name", "Choose another name."),
        ("other:1b", "already installed", "Run: squish rm other:1b"),
    ):
        with pytest.raises(InvalidInput, match=message) as caught:
            store.copy(ID, name)
        assert (caught.value.param, caught.value.hint) == ("name", hint)


def test_where_files_cannot_be_linked_a_copy_has_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = install(store)

    def refuse(self: Path, target: Path) -> None:
        raise OSError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr("squish.models.sharing.share", lambda *_: 0)
    copied = store.copy(ID, "mine")
    assert not (copied.path / "model.safetensors").samefile(first.path / "model.safetensors")
    store.verify("mine")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (ID, f"Run: squish pull {ID}"),
        ("away/thing", "Run: squish pull away/thing"),
        ("my-mode", "Installed names like it: my-model."),
        ("org/my-repos", "Installed names like it: org/my-repo. Run: squish pull org/my-repos"),
        ("smollm2:136m", "Names like it that can be pulled: "),
        ("zzzz", "`squish list` shows what is installed; `squish search` finds more."),
    ],
)
def test_the_advice_is_of_use(store: Store, name: str, hint: str) -> None:
    install(store, "my-model")
    install(store, "org/my-repo")
    with pytest.raises(ModelNotFound) as caught:
        store.find(name)
    assert (caught.value.hint or "").startswith(hint)
    assert caught.value.param == "model"


def test_who_wants_another_size_hears_of_the_one_that_is_there_and_of_no_third(store: Store) -> None:
    install(store)
    with pytest.raises(ModelNotFound) as caught:
        store.find("smollm2:360m")
    assert caught.value.hint == f"Installed names like it: {ID}. Run: squish pull smollm2:360m"


def test_a_name_that_is_being_installed_is_not_free_for_a_copy(store: Store) -> None:
    install(store)
    with store.lock("mine"), pytest.raises(ModelInUse):
        store.copy(ID, "mine")


def test_a_download_goes_on_in_the_same_directory(store: Store) -> None:
    assert store.partial(ID) == store.partial(ID)


def test_who_removes_a_model_is_not_advised_to_pull_it(store: Store) -> None:
    for name in (ID, "org/repo"):
        with pytest.raises(ModelNotFound) as caught:
            store.remove(name)
        assert "pull" not in (caught.value.hint or "").replace("can be pulled", "")


def test_hidden_directories_and_files_are_no_models(store: Store) -> None:
    install(store)
    (store.cache_dir / ".hidden").mkdir()
    (store.cache_dir / "a-file").touch()
    (store.cache_dir / "a-link").symlink_to(store.cache_dir / "a-file")
    assert len(store.installed()) == 1
    assert store.problems() == ()


def test_a_path_means_the_model_of_this_path_only(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(store, "x", source=f"file:{tmp_path}/x.gguf")
    monkeypatch.chdir(tmp_path)
    assert store.find("./x.gguf").manifest.id == "x"
    with pytest.raises(ModelNotFound, match="not imported yet"):
        store.find("./y.gguf")
