"""The model store: models appear and go as a whole, whoever is killed and whoever else is looking."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from squish.errors import CorruptModel, ModelInUse, ModelNotFound, SquishError, StoreError
from squish.models.store import MANIFEST, Installed, Manifest, Store, StoredFile
from tests.conftest import PATIENCE

ID = "smollm2:135m"
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 100}


def manifest(id: str = ID, source: str = "file:/x") -> Manifest:
    return Manifest(id, source, None, "llama", "bf16", 135, 8192, "apache-2.0", datetime.now(UTC))


def install(store: Store, id: str = ID, files: dict[str, bytes] | None = None, source: str = "file:/x") -> Installed:
    with store.staging(id) as staging:
        for name, content in (files or FILES).items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(content)
        return store.commit(staging, manifest(id, source))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def entries(store: Store) -> set[str]:
    """Everything on disk but the lock files and empty directories."""
    found = {str(path.relative_to(store.cache_dir)) for path in store.cache_dir.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(".locks/")}


def test_an_empty_store_lists_nothing_and_makes_no_directory(store: Store) -> None:
    assert store.list() == []
    assert not store.cache_dir.exists()


def test_an_installed_model_is_listed_with_what_it_is(store: Store) -> None:
    install(store, "org/repo:Q8_0")
    install(store)
    assert [each.id for each in store.list()] == ["org/repo:Q8_0", ID]
    found = Store(store.cache_dir).find(ID)
    assert found.manifest.size == sum(map(len, FILES.values()))
    assert found.manifest.context_length == 8192
    assert (found.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert entries(store) == {
        f"{name}/{file}" for name in ("org--repo+Q8_0", "smollm2+135m") for file in (*FILES, MANIFEST)
    }
    store.verify(ID)


def test_a_catalog_name_without_a_tag_means_the_default(store: Store) -> None:
    install(store)
    assert store.find("smollm2").manifest.id == ID


@pytest.mark.parametrize("id", [ID, "mine", "org/repo", "other:latest"])
def test_latest_is_the_same_as_no_tag(store: Store, id: str) -> None:
    install(store, id)
    name = "smollm2" if id == ID else id.removesuffix(":latest")
    assert store.find(f"{name}:latest").manifest.id == id
    with pytest.raises(ModelNotFound):
        store.find(f"{name}:newest")


def test_a_path_means_the_model_imported_from_it(store: Store, tmp_path: Path) -> None:
    install(store, "x", source=f"file:{tmp_path}/x.gguf")
    assert store.find(f"{tmp_path}/x.gguf").manifest.id == "x"
    with pytest.raises(ModelNotFound):
        store.find(f"{tmp_path}/y.gguf")


def test_a_name_that_is_not_installed_says_what_to_run(store: Store) -> None:
    with pytest.raises(ModelNotFound, match="smollm2:135m is not installed") as caught:
        store.find(ID)
    assert caught.value.hint == f"Run: squish pull {ID}"
    with pytest.raises(ModelNotFound) as caught:
        store.find("smolm2:135m")
    assert ID in (caught.value.hint or "")


def test_a_newer_model_takes_the_place_of_the_old_one(store: Store) -> None:
    install(store, files=FILES | {"old.json": b"{}"})
    install(store, files={"config.json": b"[]"})
    assert [file.path for file in store.find(ID).manifest.files] == ["config.json"]
    assert entries(store) == {"smollm2+135m/config.json", "smollm2+135m/manifest.toml"}


def test_removing_frees_the_bytes(store: Store) -> None:
    install(store)
    assert store.remove("smollm2") >= sum(map(len, FILES.values()))
    assert store.list() == [] and entries(store) == set()
    with pytest.raises(ModelNotFound):
        store.remove(ID)


def test_removing_a_half_downloaded_model_frees_its_bytes(store: Store) -> None:
    (store.partial(ID) / "x.part").write_bytes(b"1234")
    assert store.remove(ID) == 4
    assert entries(store) == set()


def test_a_failed_import_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.staging(ID) as staging:
        (staging / "model.safetensors").write_bytes(b"half")
        raise RuntimeError
    assert store.list() == [] and entries(store) == set()


def test_a_directory_without_a_manifest_is_reported_and_not_listed(store: Store) -> None:
    install(store)
    (store.cache_dir / "other").mkdir()
    broken = install(store, "broken").path / MANIFEST
    broken.write_text("id = ")
    assert [each.id for each in store.list()] == [ID]
    assert {problem.path.name for problem in store.problems()} == {"broken", "other"}
    with pytest.raises(CorruptModel):
        store.find("broken")
    assert store.remove("broken") > 0
    assert {problem.path.name for problem in store.problems()} == {"other"}


def test_a_manifest_that_names_a_file_outside_is_refused(store: Store) -> None:
    path = install(store).path / MANIFEST
    path.write_text(path.read_text().replace("config.json", "../../config.json"))
    with pytest.raises(CorruptModel):
        store.find(ID)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a//b", ".", "a\\b", "a\x00b"])
def test_a_file_name_cannot_leave_the_directory(path: str) -> None:
    with pytest.raises(ValueError, match="leaves"):
        StoredFile(path, 1, "")


def test_a_link_is_not_installed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(StoreError), store.staging(ID) as staging:
        (staging / "link.json").symlink_to(tmp_path / "secret")
        store.commit(staging, manifest())
    assert store.list() == []


def test_a_changed_file_is_found_by_verify(store: Store) -> None:
    (install(store).path / "config.json").write_bytes(b"[]")
    with pytest.raises(CorruptModel, match=r"config\.json"):
        store.verify(ID)


@pytest.mark.parametrize("kind", ["pipe", "socket", "link"])
def test_a_manifest_that_is_not_a_file_is_damage_and_nobody_waits_for_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    install(store)
    install(store, "other:1b")
    path = store.cache_dir / "other+1b" / MANIFEST
    moved = path.rename(tmp_path / "elsewhere")
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            monkeypatch.chdir(path.parent)  # the path of a socket must be short
            listening.bind(MANIFEST)
        else:
            path.symlink_to(moved)
        assert [each.id for each in store.list()] == [ID]
        [problem] = store.problems()
    assert MANIFEST in problem.reason
    assert ("symbolic link" if kind == "link" else "not a regular file") in problem.reason


def test_a_manifest_of_a_newer_squish_is_not_guessed_at(store: Store) -> None:
    path = install(store).path / MANIFEST
    path.write_text(path.read_text().replace("format = 1", "format = 99"))
    with pytest.raises(CorruptModel, match=r"format 99.*update Squish"):
        store.find(ID)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("format = 1", f"format = {'[' * 100_000}", "nested too deeply"),
        ("context_length = ", "context_length = -", "context_length is -"),
        ("size = ", "size = -", "bytes"),
    ],
    ids=["deep", "context", "size"],
)
def test_a_manifest_that_was_edited_into_nonsense_hides_no_other_model(
    store: Store, old: str, new: str, reason: str
) -> None:
    path = install(store).path / MANIFEST
    install(store, "other:1b")
    path.write_text(path.read_text().replace(old, new))
    assert [each.id for each in store.list()] == ["other:1b"]
    [problem] = store.problems()
    assert reason in problem.reason


def test_removing_a_link_leaves_what_it_leads_to(store: Store, tmp_path: Path) -> None:
    installed = install(store)
    real = installed.path.rename(tmp_path / "real")
    installed.path.symlink_to(real)
    assert store.link_target(ID) == real
    assert store.remove(ID) == 0
    assert store.list() == []
    assert (real / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert list(store.layout.trash.iterdir()) == []


def test_a_file_beside_the_model_is_found_by_verify(store: Store) -> None:
    installed = install(store)
    (installed.path / ".DS_Store").touch()
    store.verify(ID)
    (installed.path / "model.safetensors.bak").touch()
    with pytest.raises(CorruptModel, match=r"model\.safetensors\.bak") as found:
        store.verify(ID)
    assert str(installed.path / "model.safetensors.bak") in (found.value.hint or "")


def test_a_model_that_another_process_installs_cannot_be_removed(store: Store) -> None:
    install(store)
    script = f"with store.lock({ID!r}): print('held', flush=True); sys.stdin.read()"
    with _child(store, script) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with pytest.raises(ModelInUse):
            store.remove(ID)
        child.communicate()
    assert store.remove(ID) > 0


def test_a_cache_directory_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("x")
    store = Store(tmp_path / "models")
    with pytest.raises(StoreError) as caught:
        install(store)
    assert "SQUISH_CACHE_DIR" in (caught.value.hint or "")


# For each n that it is told, a process that is killed at the nth call of a function of the os module in the middle of a
# commit. They are forks, as the imports take far longer than a commit.
_KILLED = f"""
import signal
import socket
calls = 0
def deadly(function, at):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call
for line in sys.stdin:
    if not (process := os.fork()):
        with store.staging({ID!r}) as staging:
            (staging / "config.json").write_bytes(b"new")
            os.rename, os.fsync, os.open = (deadly(each, int(line)) for each in (os.rename, os.fsync, os.open))
            store.commit(staging, manifest({ID!r}))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("before", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_kill_at_any_step_of_a_commit_leaves_the_old_model_or_the_new_one(store: Store, before: bool) -> None:
    killed = 0
    with _child(store, _KILLED) as child:
        assert child.stdin is not None and child.stdout is not None
        for at in range(1, 40):
            if before:
                install(store, files={"config.json": b"old"})
            child.stdin.write(b"%d\n" % at)
            child.stdin.flush()
            code = int(child.stdout.readline())
            listed = store.list()
            assert store.problems() == ()
            for each in listed:
                store.verify(each.id)
            if before:
                assert len(listed) == 1
            if code == 0:
                break
            assert code == -signal.SIGKILL
            killed += 1
    assert killed >= 5
    install(store)
    store.remove(ID)
    assert entries(store) == set()


def test_readers_see_a_whole_model_while_writers_replace_it(store: Store) -> None:
    install(store)
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        while not stop.is_set():
            try:
                assert [each.id for each in store.list()] == [ID]
                assert store.find(ID).manifest.files
            except (AssertionError, SquishError) as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for at in range(10):
        install(store, files={f"{at}.json": b"{}"})
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert store.problems() == ()


@pytest.mark.parametrize("act", ["install", "remove"])
def test_a_reader_that_puts_a_model_back_is_waited_for(store: Store, act: str) -> None:
    install(store)
    name = "smollm2+135m"
    (store.cache_dir / ".old").mkdir()
    (store.cache_dir / name).rename(store.cache_dir / ".old" / name)  # as a process killed half way leaves it
    put_back, asked, locked = threading.Event(), threading.Event(), store.layout.locked
    reader = Store(store.cache_dir)
    restore = reader.layout.restore

    def when_the_other_asks(old: Path) -> None:
        put_back.set()
        asked.wait()
        restore(old)

    def watched(file_name: str, id: str, *, wait: bool) -> AbstractContextManager[None]:
        if file_name == f"{name}.commit" and not asked.is_set():
            with pytest.raises(ModelInUse), locked(file_name, id, wait=False):  # it will have to wait
                pass
            asked.set()
        return locked(file_name, id, wait=wait)

    reader.layout.restore = when_the_other_asks  # type: ignore[method-assign]
    store.layout.locked = watched  # type: ignore[method-assign, assignment]
    reading = threading.Thread(target=reader.list)
    reading.start()
    assert put_back.wait(PATIENCE)
    try:
        if act == "install":
            install(store)
        else:
            store.remove(ID)
        assert asked.is_set()
    finally:
        asked.set()
        reading.join()
    assert [each.id for each in store.list()] == ([ID] if act == "install" else [])


def test_processes_that_install_the_same_model_at_once_all_end_well(store: Store) -> None:
    script = f"""
for at in range(10):
    with store.lock({ID!r}), store.staging({ID!r}) as staging:
        (staging / "config.json").write_bytes(os.urandom(10))
        store.commit(staging, manifest({ID!r}))
"""
    with _child(store, script) as one, _child(store, script) as other:
        assert (one.wait(), other.wait()) == (0, 0)
    store.verify(ID)
    assert entries(store) == {"smollm2+135m/config.json", "smollm2+135m/manifest.toml"}


def _child(store: Store, script: str) -> subprocess.Popen[bytes]:
    head = (
        "import os, sys\nfrom pathlib import Path\nfrom squish.models.store import Store\n"
        "from tests.models.test_store import manifest\n"
        f"store = Store(Path({str(store.cache_dir)!r}))\n"
    )
    path = str(Path(__file__).parent.parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", head + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
