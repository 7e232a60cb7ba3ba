"""hosts.toml: the machines that one model is spread over, and everything that is wrong with the file, by line.

The first host is the machine on which `squish serve` runs: rank 0. It connects to nothing and asks nobody.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from squish.errors import ConfigError
from squish.files import read_regular
from squish.text import clean

RING_PORT, JOIN_PORT, CONTROL_PORT = 11440, 11441, 11442
MOST_HOSTS = 64

_LARGEST = 1 << 20  # bytes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SSH = re.compile(r"(?:ssh://)?[A-Za-z0-9_][A-Za-z0-9_.@:%\[\]-]*")  # never an option: none begins with -
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([MGT])(i?)B", re.IGNORECASE)
_POWERS = {"M": 2, "G": 3, "T": 4}
_BACKENDS = ("ring", "jaccl")
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)| \(at end of document\)")
_HEADER = re.compile(r"\s*\[\[\s*hosts\s*\]\]")
_OTHER_HEADER = re.compile(r"\s*\[")
_ASSIGNMENT = re.compile(r"""\s*["']?([\w-]+)["']?\s*=""")
_TOP = ("hosts", "backend", "join_port", "control_port")
_KEYS = ("name", "address", "port", "ssh", "squish", "python", "memory", "model", "rdma")


@dataclass(frozen=True, slots=True)
class GroupHost:
    """One machine. address: of the link to the others, IPv4. port: of MLX's group on it.

    ssh: what `ssh` is given to reach it; empty where its rank is started by hand, and on rank 0. squish: the program
    there; python: an interpreter there that has Squish, in its place. memory: the most bytes that its rank may take,
    None is what the machine has. model: how it gets the model's files. rdma: for jaccl, its device to each rank.
    """

    name: str
    address: str
    port: int = RING_PORT
    ssh: str = ""
    squish: str = "squish"
    python: str = ""
    memory: int | None = None
    model: Literal["copy", "pull"] = "copy"
    rdma: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostGroup:
    """The machines in the order of their ranks.

    join_port: where `squish serve` waits for ranks that are started by hand; control_port: where rank 0 hands out work.
    """

    hosts: tuple[GroupHost, ...]
    backend: Literal["ring", "jaccl"] = "ring"
    join_port: int = JOIN_PORT
    control_port: int = CONTROL_PORT

    @property
    def by_hand(self) -> tuple[int, ...]:
        """The ranks that somebody starts at their own keyboard."""
        return tuple(rank for rank, host in enumerate(self.hosts) if rank and not host.ssh)

    @property
    def public(self) -> tuple[GroupHost, ...]:
        """Hosts whose address can be reached from the Internet, where a group's traffic does not belong."""
        return tuple(host for host in self.hosts if ipaddress.IPv4Address(host.address).is_global)


def read_hosts(path: Path) -> HostGroup:
    """The hosts of a file. Raises ConfigError: the first thing that is wrong, and how many more there are."""
    hosts, problems = examine(path)
    if hosts is None:
        first, more = problems[0], len(problems) - 1
        also = f"{more} more {'thing is' if more == 1 else 'things are'} wrong in this file." if more else None
        hint = "\n        ".join(filter(None, (first.hint, also)))
        raise ConfigError(first.message, hint=hint or None, param=first.param)
    return hosts


def examine(path: Path) -> tuple[HostGroup | None, tuple[ConfigError, ...]]:
    """The hosts of a file, or everything that is wrong with it, in the order of its lines."""
    try:
        text = read_regular(path.expanduser(), _LARGEST, follow=True).decode("utf-8-sig")
        document = tomllib.loads(text)
    except OSError as error:
        hint = "docs/cluster.md shows one." if isinstance(error, FileNotFoundError) else None
        return None, (ConfigError(f"{path} cannot be read: {error.strerror}.", hint=hint, param="--hosts"),)
    except tomllib.TOMLDecodeError as error:
        place = _AT_LINE.search(str(error))
        where = f", line {place[1]}" if place and place[1] else ""
        return None, (ConfigError(f"{path}{where}: it is not TOML: {_AT_LINE.sub('', str(error))}.", param="--hosts"),)
    except (UnicodeDecodeError, RecursionError):
        return None, (ConfigError(f"{path} is not a TOML file in UTF-8.", param="--hosts"),)
    lines = _Lines(path, text)
    found = sorted(_problems(document, lines), key=lambda each: each[0])
    if found:
        return None, tuple(error for _, error in found)
    return _built(document), ()


class _Lines:
    """Where each key stands, and errors that say so."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._top: dict[str, int] = {}
        self._hosts: list[tuple[int, dict[str, int]]] = []
        keys = self._top
        for number, line in enumerate(text.splitlines(), 1):
            if _HEADER.match(line):
                keys = {}
                self._hosts.append((number, keys))
            elif _OTHER_HEADER.match(line):
                keys = {}
            elif assignment := _ASSIGNMENT.match(line):
                keys.setdefault(assignment[1], number)

    def line(self, key: str, host: int | None = None) -> int:
        """Counted from 1; 0 where it cannot be known, as of a host in a line of its own."""
        if host is None or host >= len(self._hosts):
            first = self._hosts[0][0] if self._hosts else 0
            return self._top.get(key if host is None else "hosts", first if key == "hosts" else 0)
        header, keys = self._hosts[host]
        return keys.get(key, header)

    def problem(
        self, what: str, key: str, host: int | None = None, *, hint: str | None = None
    ) -> tuple[int, ConfigError]:
        """A sentence about a key, with its place. host: its number in the file, from 0."""
        number = self.line(key, host)
        where = f"{self._path}, line {number}" if number else str(self._path)
        name = key if host is None else f"hosts[{host}].{key}"
        return number, ConfigError(f"{where}: {name} {what}.", hint=hint, param=name)


def _problems(document: Mapping[str, Any], lines: _Lines) -> Iterator[tuple[int, ConfigError]]:
    for key in document:
        if key not in _TOP:
            yield lines.problem("is not a key of this file", key, hint=_near(key, _TOP))
    backend = document.get("backend", "ring")
    if backend not in _BACKENDS:
        yield lines.problem('must be "ring" or "jaccl"', "backend")
    ports = {
        key: document.get(key, default) for key, default in (("join_port", JOIN_PORT), ("control_port", CONTROL_PORT))
    }
    for key, port in ports.items():
        if not _is_port(port):
            yield lines.problem(f"must be a port from 1024 to 65535, not {_shown(port)}", key)
    tables = document.get("hosts")
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        yield lines.problem("must be a list of tables: write [[hosts]] above the keys of each", "hosts")
        return
    if not 2 <= len(tables) <= MOST_HOSTS:
        hint = "To try it on one machine: squish serve MODEL --ranks 2" if len(tables) < 2 else None
        yield lines.problem(f"has {len(tables)} of the 2 to {MOST_HOSTS} hosts that a group has", "hosts", hint=hint)
    for number, table in enumerate(tables):
        yield from _host_problems(table, number, lines)
        yield from _rdma_problems(table, number, lines, backend, len(tables))
    yield from _same(tables, lines)
    taken = [*ports.values(), tables[0].get("port", RING_PORT)] if tables else []
    if len(set(map(str, taken))) < len(taken):
        what = "must differ from control_port and from the port of the first host: all three are on that machine"
        yield lines.problem(what, "join_port")


def _host_problems(table: Mapping[str, Any], number: int, lines: _Lines) -> Iterator[tuple[int, ConfigError]]:
    def wrong(what: str, key: str, hint: str | None = None) -> tuple[int, ConfigError]:
        return lines.problem(what, key, number, hint=hint)

    for key in table:
        if key not in _KEYS:
            yield wrong("is not a key of a host", key, _near(key, _KEYS))
    misspelled = "address" not in table and not set(table) <= set(_KEYS)
    if not misspelled and (what := _address_problem(table.get("address"))) is not None:
        yield wrong(what, "address")
    if not _is_port(port := table.get("port", RING_PORT)):
        yield wrong(f"must be a port from 1024 to 65535, not {_shown(port)}", "port")
    if "name" in table and not _matches(_NAME, table["name"]):
        yield wrong("must be a text of up to 63 letters, digits, dots and hyphens", "name")
    if "memory" in table and _bytes(table["memory"]) is None:
        yield wrong('must be a size such as "24 GB"', "memory")
    if table.get("model", "copy") not in ("copy", "pull"):
        yield wrong('must be "copy", from this machine, or "pull", from the Hub', "model")
    if "ssh" in table and not _matches(_SSH, table["ssh"]):
        yield wrong("must be what ssh takes, as mini.local or user@mini.local", "ssh")
    for key in ("squish", "python"):
        if key in table and not (isinstance(table[key], str) and table[key].strip() and table[key].isprintable()):
            yield wrong("must be the path of a program on that host", key)
        elif key in table and "ssh" not in table:
            yield wrong("is for a host that is reached by ssh, and this one has no ssh", key)
    if "squish" in table and "python" in table:
        yield wrong("cannot be set beside squish: one of them says what runs there", "python")
    for key in ("ssh", "model"):
        if number == 0 and key in table:
            yield wrong("is not for the first host, which is the machine that squish serve runs on", key)


def _address_problem(address: object) -> str | None:
    """What an address must be, where it is not."""
    if address is None:
        return "is missing: the IPv4 address of the link to the other hosts"
    example = "must be an IPv4 address such as 10.0.0.2"
    if not isinstance(address, str):
        return example
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return f"{example}, not {_shown(address)}: MLX's group takes no names"
    if parsed.version == 6:
        return f"{example}: MLX's ring does not know IPv6"
    if parsed.is_unspecified or parsed.is_multicast or parsed.is_reserved:
        return f"{example}: {address} is not the address of one machine"
    return None


def _rdma_problems(
    table: Mapping[str, Any], number: int, lines: _Lines, backend: object, count: int
) -> Iterator[tuple[int, ConfigError]]:
    devices = table.get("rdma")
    if backend not in _BACKENDS:
        return  # whether there is to be one depends on what is meant
    if backend == "ring":
        if devices is not None:
            yield lines.problem('is for backend = "jaccl"', "rdma", number)
    elif not isinstance(devices, list) or not all(isinstance(each, str) for each in devices):
        what = "must be a list of devices, one for each host in order, with an empty text for the host itself"
        yield lines.problem(what, "rdma", number, hint='As rdma = ["", "rdma_en5"] for the first of two hosts.')
    elif len(devices) != count:
        yield lines.problem(f"has {len(devices)} devices for {count} hosts", "rdma", number)
    elif [not each.strip() for each in devices] != [other == number for other in range(count)]:
        yield lines.problem(f"must be empty at place {number + 1}, the host itself, and nowhere else", "rdma", number)


def _same(tables: list[dict[str, Any]], lines: _Lines) -> Iterator[tuple[int, ConfigError]]:
    """Hosts that cannot be told apart, and addresses that mean another machine on each machine."""
    places: dict[object, int] = {}
    names: dict[object, int] = {}
    loopback = []
    for number, table in enumerate(tables):
        address = table.get("address")
        if _address_problem(address) is not None:
            continue
        loopback.append(ipaddress.IPv4Address(str(address)).is_loopback)
        place, name = (address, str(table.get("port", RING_PORT))), table.get("name", address)
        if (first := places.setdefault(place, number)) != number:
            yield lines.problem(f"and port are those of hosts[{first}] too", "address", number)
        elif isinstance(name, str) and (first := names.setdefault(name, number)) != number:
            yield lines.problem(f"is the name of hosts[{first}] too: {_shown(name)}", "name", number)
    if any(loopback) and not all(loopback):
        number = loopback.index(True)
        yield lines.problem("is each machine itself, which the others cannot reach", "address", number)


def _built(document: Mapping[str, Any]) -> HostGroup:
    """The hosts of a document that has no problems."""
    hosts = []
    for table in document["hosts"]:
        values = {"name": table["address"], **table}
        if "memory" in table:
            values["memory"] = _bytes(table["memory"])
        hosts.append(GroupHost(**(values | {"rdma": tuple(table.get("rdma", ()))})))
    return HostGroup(tuple(hosts), **{key: document[key] for key in _TOP[1:] if key in document})


def _bytes(text: object) -> int | None:
    found = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        return None
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].upper()]) or None


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1024 <= value <= 65535


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _near(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key.lower(), known, 1, 0.6)
    return f"Did you mean {close[0]}?" if close else f"Available: {', '.join(known)}."


def _shown(value: object) -> str:
    return clean(repr(value))[:60]
