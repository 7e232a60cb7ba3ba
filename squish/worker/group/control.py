"""Rank 0's connections to the other ranks: who may connect, what each last said, and when the group is given up.

It listens on the address that it is given and nowhere else, takes connections from the ranks' addresses alone, and of
those only from who has the group's token. It knows frames, not models.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from squish.errors import EngineError, LoadFailed, SquishError, WorkerDied
from squish.ipc import group_frames
from squish.ipc.group import Rank
from squish.ipc.group_frames import PULSE, Broken, FromRank, Joined, NotOfThisGroup, Pulse, RankProgress, Ready, ToRank
from squish.worker.group.addresses import split
from squish.worker.group.watch import Watch

_GATHER = 120.0  # seconds in which all ranks have to connect: other machines start a process and import
_GREET = 10.0


@dataclass(slots=True)
class _Follower:
    connection: socket.socket
    joined: bool = False
    ready: Ready | None = None


class Control:
    """lost: called once, from any thread, with the reason why the group cannot go on. warn: says something to the user.

    `gather`, `wait_joined` and `wait_ready` in this order; then frames may be sent.
    """

    def __init__(self, rank: Rank, lost: Callable[[SquishError], None], warn: Callable[[str], None]) -> None:
        self._rank = rank
        self._lost = lost
        self._warn = warn
        self._followers: dict[int, _Follower] = {}
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._given_up = False
        self.watch = Watch(rank, time.monotonic())
        host, port = split(rank.control)
        try:
            self._listener = socket.create_server((host, port))
        except OSError as error:
            raise LoadFailed(f"Rank 0 of the group cannot listen on {rank.control}: {error.strerror}.") from error

    def gather(self, versions: tuple[str, ...]) -> None:
        """Wait until all other ranks have connected. Raises LoadFailed."""
        allowed = {split(address)[0] for address in self._rank.addresses[1:]}
        end = time.monotonic() + _GATHER
        with self._listener:
            while missing := [rank for rank in range(1, self._rank.size) if rank not in self._followers]:
                self._listener.settimeout(max(0.01, end - time.monotonic()))
                try:
                    connection, (host, _) = self._listener.accept()
                except TimeoutError:
                    names = " and ".join(f"rank {rank} ({self._rank.addresses[rank]})" for rank in missing)
                    raise LoadFailed(f"No connection came from {names} of the group in {_GATHER:.0f} s.") from None
                if host in allowed:
                    self._take(connection, host, versions)
                else:
                    connection.close()
                    self._warn(f"A connection from {host} to the group of this model was refused.")
        self.watch = Watch(self._rank, time.monotonic())
        for rank in self._followers:
            threading.Thread(target=self._read, args=(rank,), name=f"rank {rank}", daemon=True).start()
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()

    def _take(self, connection: socket.socket, host: str, versions: tuple[str, ...]) -> None:
        connection.settimeout(_GREET)
        try:
            hello = group_frames.greet(connection, self._rank.token, self._rank.size)
        except (NotOfThisGroup, OSError):
            connection.close()
            self._warn(f"A connection from {host} without the token of this model's group was refused.")
            return
        if hello.versions != versions:
            connection.close()
            theirs, ours = (", ".join(each) for each in (hello.versions, versions))
            raise LoadFailed(
                f"{self._rank.called(hello.rank)} has {theirs}; rank 0 has {ours}.",
                hint="Install the same version of Squish on all machines.",
            )
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hello.rank in self._followers:
            connection.close()
            return
        self._followers[hello.rank] = _Follower(connection)

    def wait_joined(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: all(each.joined for each in self._followers.values()))

    def wait_ready(self) -> list[Ready]:
        """Wait until every rank has its part of the model."""
        with self._changed:
            self._changed.wait_for(lambda: all(each.ready for each in self._followers.values()))
        self.watch.serving = True
        return [each.ready for each in self._followers.values() if each.ready]

    def send(self, frame: ToRank) -> None:
        """To all. One that cannot be reached is noticed by who reads from it."""
        with self._writing:
            for each in self._followers.values():
                with suppress(OSError):
                    group_frames.send(each.connection, frame)

    def _read(self, rank: int) -> None:
        follower = self._followers[rank]
        with follower.connection, suppress(OSError, msgspec.MsgspecError, ValueError):
            while frame := group_frames.receive(follower.connection, FromRank):  # type: ignore[arg-type]
                self._heard(rank, frame)
        self._give_up(self._death(f"{self._rank.called(rank)} ended: its connection is closed"))

    def _heard(self, rank: int, frame: FromRank) -> None:
        now, follower = time.monotonic(), self._followers[rank]
        self.watch.heard(rank, now)
        match frame:
            case RankProgress(finished=finished, collectives=collectives):
                self.watch.progressed(rank, finished, collectives, now)
            case Broken(failure=failure):
                error = failure.to_error()
                if follower.ready:
                    error = WorkerDied(f"{self._rank.called(rank)} failed: {error.message}", hint=error.hint)
                elif isinstance(error, EngineError):
                    error = type(error)(f"{self._rank.called(rank)}: {error.message}", hint=error.hint)
                self._give_up(error)
            case Joined():
                with self._changed:
                    follower.joined = True
                    self._changed.notify_all()
            case Ready():
                with self._changed:
                    follower.ready = frame
                    self._changed.notify_all()

    def _give_up(self, error: SquishError) -> None:
        with self._changed:
            known, self._given_up = self._given_up, True
        if not known:
            self._lost(error)

    def _pulse(self) -> None:
        """Sends signs of life, and looks at those of the others."""
        while not self._given_up:
            if reason := self.watch.verdict(time.monotonic()):
                self._give_up(self._death(reason))
            self.send(Pulse())
            time.sleep(PULSE)

    def _death(self, reason: str) -> WorkerDied:
        return WorkerDied(
            f"{reason}. The group of {self._rank.size} ranks was ended.", hint="Try again: that starts a new group."
        )
