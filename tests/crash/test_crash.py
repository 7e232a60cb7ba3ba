"""A crash at every write: what was promised to last is there, and the program goes on.

The scenario runs once, with a library preloaded that keeps a journal of all file operations. From the journal the disk
is made as it would be after each of them, by kill -9 and by a power cut, and then looked at by the program's own code.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squish.api.batches.lines import Item, Line, decode_line
from squish.api.clients.keys import KeyFile
from squish.api.clients.usage import UsageFile
from squish.chats.chats import Chats
from squish.config import state
from squish.config.settings import Settings
from squish.doctor import models as doctor
from squish.doctor.kept import kept as doctor_of_files
from squish.errors import CorruptModel
from squish.models import elsewhere, unfinished
from squish.models.move import move
from squish.models.recipes import CompressionOptions
from squish.models.store import Store
from squish.pull.pull import pull
from tests.conftest import share_compiled
from tests.crash.disk import ENDINGS, Disk, Ending, Operation, crashes
from tests.crash.scenarios import EXPORTED, REPO, answer_to, ended, server_of, settings_of
from tests.local_hub import LocalHub
from tests.worker.model.test_load import write_model

Marks = list[tuple[str, dict[str, Any]]]
Check = Callable[[Path, Marks, str], None]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs a C compiler, and glibc's way to preload"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("journal") / "journal.so"
    source = Path(__file__).with_name("journal.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"], check=True, capture_output=True)
    return built


@pytest.fixture(scope="module")
def hub(source: Path) -> Iterator[LocalHub]:
    with LocalHub() as running:
        running.add_repo(REPO, {path.name: path.read_bytes() for path in source.iterdir()})
        yield running


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "tiny"
    write_model(path, hidden_size=128, intermediate_size=128)
    return path


Journals = Callable[[str], tuple[Path, str]]


@pytest.fixture(scope="module")
def journal_of(library: Path, source: Path, hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Journals:
    """The journal of a scenario, which is played once, and the root that its paths begin with."""

    @functools.cache
    def played(scenario: str) -> tuple[Path, str]:
        return _play(scenario, library, source, hub, tmp_path_factory.mktemp(scenario))

    return played


def _play(scenario: str, library: Path, source: Path, hub: LocalHub, folder: Path) -> tuple[Path, str]:
    root = folder / "root"
    (root / "models").mkdir(parents=True)
    journal = folder / "journal"
    kept = {"LD_PRELOAD": str(library), "JOURNAL": str(journal), "JOURNAL_ROOT": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.scenarios", scenario, str(root), str(source)],
        env=os.environ | kept | {"HF_ENDPOINT": hub.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return journal, str(root)


def states(journal: Path, root: str, folder: Path, share: int = 1) -> Iterator[tuple[Path, Marks, str]]:
    """Every disk that differs in kind: one of several writes to the same file in a row stands for all but the last.

    share: of how many of them one is made. The last ones, of everything, always are.
    """
    numbers = itertools.count()
    marks: Marks = []
    before: Operation | None = None
    for number, operation, disk in crashes(journal, root):
        if operation.path == f"{root}/.marks":
            marks += [(what, facts) for what, facts in map(json.loads, operation.data.splitlines())]
            continue
        repeated = before is not None and (before.name, before.path) == ("write", operation.path)
        before = operation
        if repeated and operation.name == "write" and number % 16:
            continue
        chosen = [ending for ending in ENDINGS if (next(numbers) - 50) % share == 0]
        yield from _endings(chosen, disk, folder, marks, f"operation {number}, {operation.name} {operation.path}")
    yield from _endings(ENDINGS, disk, folder, marks, "everything")


def _endings(
    endings: Sequence[Ending], disk: Disk, folder: Path, marks: Marks, after: str
) -> Iterator[tuple[Path, Marks, str]]:
    for ending in endings:
        left = folder / ending
        disk.leave(ending, left)
        yield left, list(marks), f"{ending} after {after}"
        shutil.rmtree(left, ignore_errors=True)


def check_store(root: Path, marks: Marks, where: str) -> None:
    """Models that were installed are whole, replaced ones old or new; nothing half-made is taken for a model."""
    promised = {facts["id"] for what, facts in marks if what == "installed"}
    promised -= {facts["id"] for what, facts in marks if what == "removing"}
    gone = {facts["id"] for what, facts in marks if what == "removed"}
    models = Store(root / "models")
    there = {manifest.id for manifest in models.list()}
    assert promised <= there, where
    assert not gone & there, where
    for id in there:
        models.verify(id)
    assert not models.problems(), where
    for finding in doctor.store(settings_of(root)):
        assert finding.status == "ok" or finding.fix, where


def check_move(root: Path, marks: Marks, where: str) -> None:
    """As in `check_store`; and after kill -9, what was cut off goes on, or leaves nothing behind."""
    for mark in root.rglob(elsewhere.MARK):  # it names the store that was
        mark.write_text(str((root / "models").resolve()), encoding="utf-8")
    for record in (root / "models").glob(".moving/*"):
        was = record.read_text(encoding="utf-8")
        record.write_text(re.sub(r'"[^"]*/(?=disk|models)', f'"{root.resolve()}/', was), encoding="utf-8")
    check_store(root, marks, where)
    if not where.startswith("killed"):
        return
    models = Store(root / "models")
    there = [manifest.id for manifest in models.list()]
    if "one:1b" in there and len(marks) % 2:
        move(models, "one:1b", root / "disk", lambda done, total: None)
    unfinished.prune(models)
    for id in there:
        models.verify(id)
        models.remove(id)
    unfinished.prune(models)
    left = [path for name in ("disk", "models") for path in (root / name).rglob("*") if path.is_file()]
    assert [path for path in left if ".locks" not in path.parts] == [], where


def check_chats(root: Path, marks: Marks, where: str) -> None:
    kept = Chats(root / "chats.db")
    try:
        chats = {chat.id: chat for chat in kept.recent()}
        messages = {message.id: message.text for chat in chats for message in kept.tree(chat)._by_id.values()}
    finally:
        kept.close()
    removing = {facts["chat"] for what, facts in marks if what == "removing"}
    removed = {facts["chat"] for what, facts in marks if what == "removed"}
    for what, facts in marks:
        if what in ("asked", "answered"):
            assert messages[facts["message"]] == facts["text"], where
        if what == "renamed" and facts["chat"] not in removing:
            assert chats[facts["chat"]].title == facts["title"], where
    assert not removed & set(chats), where


def check_memory(root: Path, marks: Marks, where: str) -> None:
    for table in ("one", "other"):
        promised = [facts["number"] for what, facts in marks if what == "kept" and facts["table"] == table]
        if promised:
            found = state.table(root, table)["number"]
            assert isinstance(found, int), where
            assert abs(found) >= abs(promised[-1]), where


def check_prefix(root: Path, marks: Marks, where: str) -> None:
    """A new worker finds every prefix that was written: the tokens that it has to compute again are counted."""
    from mlx_lm.models.cache import KVCache

    from squish.worker.cache.disk import DiskTier
    from squish.worker.cache.prefix import PrefixCache

    said: list[str] = []
    known = PrefixCache(1 << 30, [KVCache()], DiskTier(root / "prefix", "key", 1 << 20, said.append))
    assert not list((root / "prefix").glob("*.partial")), where
    for _, facts in marks:
        length, caches = known.take([*facts["tokens"], 1])
        assert len(facts["tokens"]) - length == 0, where
        assert caches, where
        keys, values = caches[0].keys_and_values()
        assert keys[0, 1, :, 3].tolist() == facts["tokens"][:length] == (-values[0, 0, :, 0]).tolist(), where
    if where.startswith("killed"):
        assert not said, where


def check_batches(root: Path, marks: Marks, where: str) -> None:
    """A server that starts there finishes what was begun; after kill -9 it asks nothing again that was answered."""
    answered = [facts["item"] for what, facts in marks if what == "answered before"][:-1]
    asked: list[str] = []

    async def answer(item: Item) -> Line:
        asked.append(item.custom_id)
        return answer_to(item)

    async def serve() -> dict[str, bytes]:
        server = server_of(root, answer)
        done = {facts["batch"] for what, facts in marks if what == "completed"}
        assert all(batch.status == "completed" for id in done if (batch := server.kept.find(id))), where
        assert done <= {batch.id for batch in server.kept.list()}, where
        server.start()
        for batch in [facts["batch"] for what, facts in marks if what == "created"]:
            found = await ended(server, batch)
            assert (found.status, found.error_file_id) == ("completed", None), where
            output = server.files.content_path(found.output_file_id or "").read_bytes()
            assert sorted(decode_line(line).custom_id for line in output.splitlines()) == ["a", "b", "c"], where
        await server.close()
        return {each.id: server.files.content_path(each.id).read_bytes() for each in server.files.list()}

    files = asyncio.run(serve())
    for what, facts in marks:
        if what == "uploaded":
            assert files[facts["file"]].decode() == facts["content"], where
        assert what != "removed" or facts["file"] not in files, where
    if where.startswith("killed"):
        assert not set(answered) & set(asked), where


def check_home(root: Path, marks: Marks, where: str) -> None:
    names = {key.name for key in KeyFile(root).keys().values()}
    removing = {facts["name"] for what, facts in marks if what == "removing"}
    assert {facts["name"] for what, facts in marks if what == "key"} - removing <= names, where
    assert not {facts["name"] for what, facts in marks if what == "removed"} & names, where
    used = sum(each.requests for each in UsageFile(root).since(""))
    assert used >= max((facts["requests"] for what, facts in marks if what == "used"), default=0), where
    exported = {path.name: path.read_text() for path in root.glob("*.md") if not path.name.startswith(".")}
    assert set(exported.values()) <= {EXPORTED}, where
    assert {facts["name"] for what, facts in marks if what == "exported"} <= set(exported), where


CHECKS: dict[str, Check] = {
    "store": check_store, "move": check_move, "download": check_store, "chats": check_chats, "memory": check_memory,
    "prefix": check_prefix, "batches": check_batches, "home": check_home,
}  # fmt: skip


SHARE = {"store": 13, "move": 13, "download": 13, "prefix": 2}
"""For each scenario with many disks, `make test` looks at one disk in so many. None of these numbers shares
a factor with the number of endings: otherwise some endings would never be looked at."""


@pytest.mark.parametrize("scenario", CHECKS)
def test_nothing_that_was_promised_is_lost(scenario: str, journal_of: Journals, tmp_path: Path) -> None:
    look(scenario, journal_of, tmp_path, SHARE.get(scenario, 1))


@pytest.mark.long
@pytest.mark.parametrize("scenario", SHARE)
def test_nothing_that_was_promised_is_lost_wherever_it_ends(
    scenario: str, journal_of: Journals, tmp_path: Path
) -> None:
    look(scenario, journal_of, tmp_path, 1)


def look(scenario: str, journal_of: Journals, folder: Path, share: int) -> None:
    """Look at every disk, or at one of so many."""
    journal, root = journal_of(scenario)
    looked_at = 0
    seen: Marks = []
    for left, marks, where in states(journal, root, folder, share):
        assert all(finding.status == "ok" for finding in doctor_of_files(settings_of(left))), where
        CHECKS[scenario](left, marks, where)
        looked_at, seen = looked_at + 1, marks
    print(f"{scenario}: {looked_at} disks after {len(seen)} promises")
    assert looked_at > 30
    assert seen


@pytest.mark.long
@pytest.mark.parametrize("scenario", ["store", "download"])
async def test_a_pull_after_a_crash_installs_the_model(
    scenario: str, journal_of: Journals, source: Path, hub: LocalHub, tmp_path: Path
) -> None:
    """At some of the same places: whatever is left does not keep the next pull from its work."""
    journal, root = journal_of(scenario)
    name, id = (str(source), "plain:1b") if scenario == "store" else (REPO, REPO)
    disks = 0
    for left, _, where in states(journal, root, tmp_path, 211):
        if not where.endswith("everything"):
            disks += 1
            settings = replace(settings_of(left), offline=False, hub_endpoint=hub.url)
            models = Store(settings.cache_dir)
            share_compiled(settings.worker_cache)
            await pull_again(name, id, settings, models)
            models.verify(id)
            assert id in {manifest.id for manifest in models.list()}, where
    assert disks


async def pull_again(name: str, id: str, settings: Settings, models: Store) -> None:
    """As a user does it, who runs the same command once more where it says so."""
    for last in (False, True):
        try:
            async with pull(
                name, as_name=id, settings=settings, store=models, compression=CompressionOptions(None)
            ) as events:
                async for _ in events:
                    pass
        except CorruptModel as error:
            assert not last
            assert "again" in (error.hint or "")
