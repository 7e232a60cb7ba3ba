"""How many cores the engine takes where a container has a quota, in both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squish.system.cores import cores


@pytest.fixture(autouse=True)
def _sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def written(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("own", "above", "expected"),
    [("max 100000", "max 100000", 16), ("350000 100000", "max 100000", 3), ("max 100000", "50000 100000", 1)],
)
def test_version_2(tmp_path: Path, own: str, above: str, expected: int) -> None:
    written(tmp_path / "user" / "app", cpu__max=own)
    written(tmp_path / "user", cpu__max=above)
    (tmp_path / "own").write_text("0::/user/app\n")
    assert cores(tmp_path, tmp_path / "own") == expected


@pytest.mark.parametrize("controllers", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("400000", 4), ("20000", 1)])
def test_version_1(tmp_path: Path, controllers: str, quota: str, expected: int) -> None:
    written(tmp_path / controllers / "docker" / "a", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    (tmp_path / "own").write_text(f"5:memory:/docker/a\n4:{controllers}:/docker/a\n1:name=systemd:/docker/a\n")
    assert cores(tmp_path, tmp_path / "own") == expected


def test_in_a_container_that_does_not_show_the_groups_above(tmp_path: Path) -> None:
    written(tmp_path / "cpu,cpuacct", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    (tmp_path / "own").write_text("4:cpuacct,cpu:/docker/a\n3:cpu,cpuacct:/docker/a\n")
    assert cores(tmp_path, tmp_path / "own") == 2


@pytest.mark.parametrize("text", ["", "nonsense", "0::/x\n", "1:cpu:/x\n"])
def test_what_cannot_be_read_limits_nothing(tmp_path: Path, text: str) -> None:
    written(tmp_path / "x", cpu__max="all of it", cpu__cfs_quota_us="5", cpu__cfs_period_us="0")
    (tmp_path / "own").write_text(text)
    assert cores(tmp_path, tmp_path / "own") == cores(tmp_path, tmp_path / "missing") == 16
