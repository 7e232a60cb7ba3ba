"""What is to be said of a host, from what its agent reported: each remark says what was found, and what to do. Pure.

`squish doctor --hosts` shows all of them; `squish serve --hosts` refuses to start where one is `broken`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from squish.cluster.hosts import GroupHost, HostGroup
from squish.cluster.messages import Facts, LinkMeasured, ModelThere
from squish.cluster.sending import require
from squish.errors import CorruptModel
from squish.figures import seconds, size
from squish.memory.shares import Share
from squish.models.manifest import Installed

_CLOCK = 2.0  # seconds
_SLOW, _FAR = 100_000_000, 0.002  # bytes per second: less than gigabit Ethernet; seconds
_SAME = ("Squish", "MLX", "mlx-lm")


@dataclass(frozen=True, slots=True)
class Remark:
    """host: the name of one, or of two with an arrow between. fix: one sentence, or a command."""

    host: str
    status: Literal["ok", "warning", "broken"]
    reason: str
    fix: str | None = None


def versions(host: GroupHost, here: Facts, there: Facts) -> Iterator[Remark]:
    """Whether both machines run the same: different versions may compute different numbers."""
    shown = " · ".join(f"{name} {version or 'missing'}" for name, version in there.versions.items())
    wrong = [name for name in _SAME if there.versions.get(name) != here.versions.get(name)]
    if there.protocol != here.protocol and "Squish" not in wrong:
        wrong.insert(0, "Squish")
    for name in wrong:
        theirs, ours = there.versions.get(name) or "missing", here.versions.get(name) or "missing"
        reason = f"{name} is {theirs} there and {ours} here: ranks must compute the same"
        yield Remark(host.name, "broken", reason, f"Install {name} {ours} on {host.name}, best all of Squish.")
    if wrong:
        return
    python = [_minor(facts.versions.get("Python")) for facts in (here, there)]
    if python[0] != python[1]:
        fix = f"It should work; to be sure, install Squish there with Python {python[0]}."
        yield Remark(host.name, "warning", f"Python is {python[1]} there and {python[0]} here", fix)
    if here.backend != there.backend:
        reason = f"MLX computes with {there.backend} there and {here.backend} here: the slower one sets the pace"
        yield Remark(host.name, "warning", reason, "Use hosts of one kind.")
    yield Remark(host.name, "ok", shown)


def address(host: GroupHost, facts: Facts) -> Iterator[Remark]:
    """Whether the address in hosts.toml is one of that machine, and one that may carry a group's traffic."""
    parsed = ipaddress.IPv4Address(host.address)
    if facts.addresses and host.address not in facts.addresses and not parsed.is_loopback:
        known = ", ".join(each for each in facts.addresses if not each.startswith("127.")) or "none"
        fix = f"Write one of these for it in hosts.toml: {known}."
        yield Remark(host.name, "broken", f"{host.address} is not an address of that machine", fix)
    elif parsed.is_global:
        reason = f"{host.address} can be reached from the Internet, and a group's traffic is not encrypted"
        yield Remark(host.name, "warning", reason, "Use addresses of a private link between the hosts.")


def clock(host: GroupHost, offset: float | None) -> Iterator[Remark]:
    """offset: seconds by which the clock there is ahead."""
    if offset is None or abs(offset) <= _CLOCK:
        return
    way = "ahead of" if offset > 0 else "behind"
    reason = f"its clock is {seconds(abs(offset))} {way} the one here, which makes logs hard to compare"
    yield Remark(host.name, "warning", reason, "Let both set their clocks by network time.")


def link(start: GroupHost, end: GroupHost, measured: LinkMeasured) -> Remark:
    """The way from one rank to the next."""
    name = f"{start.name} → {end.name}"
    found = f"{size(measured.bandwidth)}/s, {measured.round_trip * 1000:.2f} ms there and back"
    if measured.round_trip > _FAR:
        fix = "Every token waits for many of these: use a cable, Thunderbolt or Ethernet, not Wi-Fi."
        return Remark(name, "warning", found, fix)
    if measured.bandwidth < _SLOW:
        return Remark(name, "warning", found, "Long prompts will be slow: use Thunderbolt or faster Ethernet.")
    return Remark(name, "ok", found)


def model(host: GroupHost, facts: Facts, there: ModelThere, installed: Installed) -> Remark:
    """Whether a host has the model that is to be served, byte for byte."""
    id, missing = installed.manifest.id, installed.manifest.size - there.partial
    if there.state == "same":
        return Remark(host.name, "ok", f"has {id}, every file with its hash")
    if there.state != "absent":
        try:
            require(there, host.name, installed)
        except CorruptModel as error:
            return Remark(host.name, "broken", error.message, error.hint)
    has = f" ({size(there.partial)} of it are there)" if there.partial else ""
    if missing > facts.disk_free:
        reason = (
            f"{id} is not there, and its disk has {size(facts.disk_free)} free of the {size(missing)} that it needs"
        )
        return Remark(host.name, "broken", reason, f"Free some space on {host.name}.")
    verb = "pulls it there from the Hub" if host.model == "pull" else "copies it"
    return Remark(host.name, "warning", f"{id} is not there{has}", f"squish serve {id} --hosts … {verb}.")


def share(found: Share) -> Remark:
    """What a rank will hold, against what its machine has."""
    if found.fits == "no":
        missing = size(found.needed - found.machine.total)
        return Remark(found.host, "broken", f"{found}", f"{missing} are missing: add a host, or take a smaller model.")
    if found.fits == "tight":
        return Remark(found.host, "warning", f"{found}", f"Close other programs on {found.host}.")
    return Remark(found.host, "ok", f"{found}")


def set_of(hosts: HostGroup, id: str, names: Sequence[str] | None) -> Remark:
    """Which hosts are enough for a model. names: as of `shares.enough`."""
    every = ", ".join(host.name for host in hosts.hosts)
    if names is None:
        fix = "Add a host, or take a smaller or more compressed model."
        return Remark("group", "broken", f"{id} fits on no set of these hosts: {every}", fix)
    if len(names) == 1:
        reason = f"{id} fits on {names[0]} alone, which is faster than a group unless the link is very fast"
        return Remark("group", "ok", reason)
    if len(names) < len(hosts.hosts):
        return Remark("group", "ok", f"{id} fits on {' + '.join(names)}; not all hosts are needed")
    return Remark("group", "ok", f"{id} fits on {' + '.join(names)}, and on no fewer")


def _minor(version: str | None) -> str:
    return ".".join((version or "missing").split(".")[:2])
