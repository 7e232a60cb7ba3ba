"""hosts.toml: what it may say, and errors that name the key, the line and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from squish.cluster.hosts import CONTROL_PORT, JOIN_PORT, RING_PORT, HostGroup, examine, read_hosts
from squish.errors import ConfigError

TWO = """\
# The first host is this machine.
[[hosts]]
name = "studio"
address = "10.0.0.1"

[[hosts]]
name = "mini"
address = "10.0.0.2"
ssh = "me@mini.local"
"""


def read(tmp_path: Path, text: str) -> HostGroup:
    path = tmp_path / "hosts.toml"
    path.write_text(text, encoding="utf-8")
    return read_hosts(path)


def test_two_hosts(tmp_path: Path) -> None:
    hosts = read(tmp_path, TWO)
    assert [(each.name, each.address, each.port, each.ssh) for each in hosts.hosts] == [
        ("studio", "10.0.0.1", RING_PORT, ""),
        ("mini", "10.0.0.2", RING_PORT, "me@mini.local"),
    ]
    assert (hosts.backend, hosts.join_port, hosts.control_port) == ("ring", JOIN_PORT, CONTROL_PORT)
    assert hosts.by_hand == () and hosts.public == ()


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    hosts = read(
        tmp_path,
        'backend = "jaccl"\njoin_port = 9001\ncontrol_port = 9002\n'
        '[[hosts]]\naddress = "10.0.0.1"\nport = 9000\nmemory = "24 GB"\nrdma = ["", "rdma_en5", "rdma_en4"]\n'
        '[[hosts]]\naddress = "10.0.0.2"\nssh = "mini"\npython = "~/squish/bin/python"\nmodel = "pull"\n'
        'rdma = ["rdma_en5", "", "rdma_en3"]\n'
        '[[hosts]]\nname = "third"\naddress = "8.8.8.8"\nmemory = "1.5GiB"\nrdma = ["a", "b", ""]\n',
    )
    first, second, third = hosts.hosts
    assert (hosts.backend, hosts.join_port, hosts.control_port) == ("jaccl", 9001, 9002)
    assert (first.name, first.port, first.memory, first.rdma) == (
        "10.0.0.1",
        9000,
        24 * 10**9,
        ("", "rdma_en5", "rdma_en4"),
    )
    assert (second.python, second.model) == ("~/squish/bin/python", "pull")
    assert third.memory == 3 << 29
    assert hosts.by_hand == (2,) and hosts.public == (third,)


SECOND = TWO.index('[[hosts]]\nname = "mini"')


@pytest.mark.parametrize(
    ("text", "line", "param", "said"),
    [
        ("hosts = 3\n", 1, "hosts", "must be a list of tables"),
        ("", 0, "hosts", "must be a list of tables"),
        (TWO[:SECOND], 2, "hosts", "has 1 of the 2 to 64 hosts"),
        ("backed = 1\n" + TWO, 1, "backed", "is not a key of this file"),
        ('backend = "mpi"\n' + TWO, 1, "backend", 'must be "ring" or "jaccl"'),
        ("join_port = 80\n" + TWO, 1, "join_port", "must be a port from 1024 to 65535, not 80"),
        ("control_port = true\n" + TWO, 1, "control_port", "must be a port"),
        ("join_port = 11442\n" + TWO, 1, "join_port", "must differ from control_port"),
        (TWO.replace('"10.0.0.2"', '"mini.local"'), 8, "hosts[1].address", "MLX's group takes no names"),
        (TWO.replace('"10.0.0.2"', '"fe80::1"'), 8, "hosts[1].address", "does not know IPv6"),
        (TWO.replace('"10.0.0.2"', '"0.0.0.0"'), 8, "hosts[1].address", "not the address of one machine"),
        (TWO.replace('"10.0.0.2"', "5"), 8, "hosts[1].address", "must be an IPv4 address"),
        (TWO.replace('address = "10.0.0.2"\n', ""), 6, "hosts[1].address", "is missing"),
        (TWO.replace('"10.0.0.2"', '"10.0.0.1"'), 8, "hosts[1].address", "and port are those of hosts[0] too"),
        (TWO.replace('"10.0.0.1"', '"127.0.0.1"'), 4, "hosts[0].address", "is each machine itself"),
        (TWO.replace('"mini"', '"studio"'), 7, "hosts[1].name", "is the name of hosts[0] too"),
        (TWO.replace('"mini"', '"a b"'), 7, "hosts[1].name", "must be a text"),
        (TWO.replace('"me@mini.local"', '"-oProxyCommand=x"'), 9, "hosts[1].ssh", "must be what ssh takes"),
        (TWO.replace('"me@mini.local"', '"mini -v"'), 9, "hosts[1].ssh", "must be what ssh takes"),
        (TWO + "port = 80\n", 10, "hosts[1].port", "must be a port"),
        (TWO + "port = []\n", 10, "hosts[1].port", "must be a port"),
        (TWO + "prot = 80\n", 10, "hosts[1].prot", "is not a key of a host"),
        (TWO + 'memory = "lots"\n', 10, "hosts[1].memory", 'a size such as "24 GB"'),
        (TWO + 'memory = "0 GB"\n', 10, "hosts[1].memory", 'a size such as "24 GB"'),
        (TWO + 'model = "rsync"\n', 10, "hosts[1].model", 'must be "copy"'),
        (TWO + 'rdma = ["a", ""]\n', 10, "hosts[1].rdma", 'is for backend = "jaccl"'),
        (TWO + 'squish = ""\n', 10, "hosts[1].squish", "must be the path of a program"),
        (TWO + 'squish = "a"\npython = "b"\n', 11, "hosts[1].python", "cannot be set beside squish"),
        (TWO.replace('ssh = "me@mini.local"', 'python = "b"'), 9, "hosts[1].python", "has no ssh"),
        (TWO.replace("name", "ssh", 1), 3, "hosts[0].ssh", "is not for the first host"),
        ('backend = "jaccl"\n' + TWO, 3, "hosts[0].rdma", "must be a list of devices"),
        (TWO + "[hosts]\n", 10, "--hosts", "it is not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, line: int, param: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    where = f"hosts.toml, line {line}: " if line else "hosts.toml: "
    assert where in raised.value.message and said in raised.value.message
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ('["", "rdma_en5", "x"]', "has 3 devices for 2 hosts"),
        ('["rdma_en5", ""]', "must be empty at place 1"),
        ('["", ""]', "must be empty at place 1"),
    ],
)
def test_a_matrix_of_devices_has_a_row_for_each_host(tmp_path: Path, devices: str, said: str) -> None:
    text = 'backend = "jaccl"\n' + TWO.replace('name = "studio"', f"rdma = {devices}") + 'rdma = ["rdma_en5", ""]\n'
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, text)


def test_all_that_is_wrong_is_found_at_once(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(TWO.replace("10.0.0", "fe80:") + "port = 1\n", encoding="utf-8")
    hosts, problems = examine(path)
    assert hosts is None
    assert [each.param for each in problems] == ["hosts[0].address", "hosts[1].address", "hosts[1].port"]
    with pytest.raises(ConfigError) as raised:
        read_hosts(path)
    assert raised.value.hint == "2 more things are wrong in this file."


def test_a_near_miss_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, TWO.replace("address", "adress", 1))
    assert raised.value.param == "hosts[0].adress" and raised.value.hint
    assert "Did you mean address?" in raised.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_hosts(tmp_path / "none.toml")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a TOML file in UTF-8"):
        read_hosts(path)


def test_a_wrong_backend_is_the_only_thing_that_is_said_to_be_wrong(tmp_path: Path) -> None:
    """Whether a host needs rdma depends on what was meant."""
    path = tmp_path / "hosts.toml"
    path.write_text('backend = "rings"\n[[hosts]]\naddress = "10.0.0.1"\n[[hosts]]\naddress = "10.0.0.2"\n')
    hosts, problems = examine(path)
    assert hosts is None and [problem.param for problem in problems] == ["backend"]
