"""What is said of hosts: each finding with what to do about it. Facts in, sentences out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from squish.cluster import remarks
from squish.cluster.hosts import GroupHost, HostGroup
from squish.cluster.messages import Facts, LinkMeasured, ModelThere
from squish.cluster.remarks import Remark
from squish.memory.fit import Machine
from squish.memory.shares import Share
from squish.models.manifest import Installed, StoredFile
from tests.cluster.pairs import manifest

GB = 10**9
VERSIONS: dict[str, str | None] = {"Squish": "1.0", "MLX": "0.32", "mlx-lm": "0.32.2", "Python": "3.12.1"}
MAC = Machine("unified memory", 24 * GB, 20 * GB, float32=False)
STUDIO, MINI = GroupHost("studio", "10.0.0.1"), GroupHost("mini", "10.0.0.2", ssh="mini")
HOSTS = HostGroup((STUDIO, MINI))
HERE = Facts(0, VERSIONS, MAC, ("127.0.0.1", "10.0.0.1"), 100 * GB, 0.0, "Metal")
THERE = msgspec.structs.replace(HERE, rank=1, addresses=("127.0.0.1", "10.0.0.2"))
MODEL = Installed(manifest("tiny:1b", (StoredFile("model.safetensors", 5 * GB, "0" * 64),)), Path("/models/tiny+1b"))


def there(**changes: object) -> Facts:
    return msgspec.structs.replace(THERE, **changes)


def test_equal_versions_are_well() -> None:
    [only] = remarks.versions(MINI, HERE, THERE)
    assert only == Remark("mini", "ok", "Squish 1.0 · MLX 0.32 · mlx-lm 0.32.2 · Python 3.12.1")


@pytest.mark.parametrize("name", ["Squish", "MLX", "mlx-lm"])
def test_what_computes_must_be_the_same(name: str) -> None:
    [only] = remarks.versions(MINI, HERE, there(versions=VERSIONS | {name: "0.9"}))
    assert only.status == "broken" and f"{name} is 0.9 there and {VERSIONS[name]} here" in only.reason
    assert only.fix == f"Install {name} {VERSIONS[name]} on mini, best all of Squish."
    [missing] = remarks.versions(MINI, HERE, there(versions=VERSIONS | {name: None}))
    assert f"{name} is missing there" in missing.reason


def test_another_protocol_is_another_squish() -> None:
    [only] = remarks.versions(MINI, HERE, there(protocol=99))
    assert only.status == "broken" and only.reason.startswith("Squish is 1.0 there")


def test_another_python_may_work() -> None:
    [only] = remarks.versions(MINI, HERE, there(versions=VERSIONS | {"Python": "3.12.9"}))
    assert only.status == "ok"
    first, second = remarks.versions(MINI, HERE, there(versions=VERSIONS | {"Python": "3.11.1"}))
    assert first.status == "warning" and first.reason == "Python is 3.11 there and 3.12 here"
    assert second.status == "ok"


def test_hosts_of_two_kinds_are_as_fast_as_the_slower() -> None:
    first, _ = remarks.versions(MINI, HERE, there(backend="CPU"))
    assert first.status == "warning" and "with CPU there and Metal here" in first.reason


def test_an_address_must_be_the_host_s_own_and_private() -> None:
    assert list(remarks.address(MINI, THERE)) == []
    [foreign] = remarks.address(MINI, there(addresses=("127.0.0.1", "10.0.0.7")))
    assert foreign.status == "broken" and foreign.fix == "Write one of these for it in hosts.toml: 10.0.0.7."
    assert list(remarks.address(MINI, there(addresses=()))) == []  # nothing is known
    [public] = remarks.address(replace(MINI, address="8.8.8.8"), there(addresses=("8.8.8.8",)))
    assert public.status == "warning" and "from the Internet" in public.reason
    assert list(remarks.address(replace(MINI, address="127.0.0.2"), THERE)) == []


@pytest.mark.parametrize(("offset", "said"), [(None, ""), (1.5, ""), (90.0, "1 min 30 s ahead of"), (-9.0, "behind")])
def test_clocks(offset: float | None, said: str) -> None:
    found = list(remarks.clock(MINI, offset))
    assert [each.status for each in found] == (["warning"] if said else [])
    assert not said or said in found[0].reason


@pytest.mark.parametrize(
    ("round_trip", "bandwidth", "status", "fix"),
    [
        (0.0002, 2e9, "ok", ""),
        (0.0003, 50e6, "warning", "faster Ethernet"),
        (0.004, 50e6, "warning", "not Wi-Fi"),
    ],
)
def test_links(round_trip: float, bandwidth: float, status: str, fix: str) -> None:
    found = remarks.link(STUDIO, MINI, LinkMeasured(round_trip, bandwidth))
    assert (found.host, found.status) == ("studio → mini", status)
    assert fix in (found.fix or "")


@pytest.mark.parametrize(
    ("state", "status", "said", "fix"),
    [
        (ModelThere("same"), "ok", "has tiny:1b, every file with its hash", None),
        (ModelThere("absent"), "warning", "tiny:1b is not there", "squish serve tiny:1b --hosts … copies it."),
        (ModelThere("absent", partial=GB), "warning", "(1.0 GB of it are there)", None),
        (ModelThere("other"), "broken", "has other files", None),
        (ModelThere("changed", "a"), "broken", "a of tiny:1b on mini is not what was installed", None),
    ],
)
def test_the_model(state: ModelThere, status: str, said: str, fix: str | None) -> None:
    found = remarks.model(MINI, THERE, state, MODEL)
    assert found.status == status and said in found.reason
    assert fix is None or found.fix == fix
    assert status == "ok" or found.fix


def test_a_disk_that_is_too_full_for_what_is_missing() -> None:
    found = remarks.model(MINI, there(disk_free=3 * GB), ModelThere("absent"), MODEL)
    assert found.status == "broken" and "3.0 GB free of the 5.0 GB" in found.reason
    assert remarks.model(MINI, there(disk_free=3 * GB), ModelThere("absent", partial=4 * GB), MODEL).status == "warning"


def test_a_pull_is_said_to_be_one() -> None:
    found = remarks.model(replace(MINI, model="pull"), THERE, ModelThere("absent"), MODEL)
    assert found.fix and "pulls it there from the Hub" in found.fix


@pytest.mark.parametrize(("needed", "status"), [(10, "ok"), (22, "warning"), (30, "broken")])
def test_what_a_rank_holds(needed: int, status: str) -> None:
    found = remarks.share(Share("mini", needed * GB, MAC))
    assert found.status == status and f"mini holds {needed}.0 GB of it" in found.reason
    assert "6.0 GB are missing" in (found.fix or "") or status != "broken"


@pytest.mark.parametrize(
    ("names", "status", "said"),
    [
        (None, "broken", "fits on no set of these hosts: studio, mini"),
        (("studio",), "ok", "fits on studio alone"),
        (("studio", "mini"), "ok", "fits on studio + mini, and on no fewer"),
    ],
)
def test_which_hosts_are_enough(names: tuple[str, ...] | None, status: str, said: str) -> None:
    found = remarks.set_of(HOSTS, "tiny:1b", names)
    assert found.status == status and said in found.reason
    three = HostGroup((*HOSTS.hosts, GroupHost("air", "10.0.0.3")))
    assert "not all hosts are needed" in remarks.set_of(three, "tiny:1b", ("studio", "mini")).reason
