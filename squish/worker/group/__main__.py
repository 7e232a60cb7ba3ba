"""The process of a rank above 0: `python -m squish.worker.group`, told on its standard input what it is.

It ends when its standard input closes, when rank 0 closes the connection, and when rank 0 says nothing for too long.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec

from squish.errors import EngineError, LoadFailed, SquishError
from squish.ipc import group_frames
from squish.ipc.frames import WireError
from squish.ipc.group import Rank, read_rank
from squish.ipc.group_frames import Broken, FromRank, NotOfThisGroup, ToRank
from squish.worker import descriptors
from squish.worker.group.addresses import split
from squish.worker.group.versions import versions

_OTHERS = 15.0
_CONNECT = 120.0  # seconds in which rank 0 has to be there


class Link:
    """The connection to rank 0. Frames are written by any thread."""

    def __init__(self, rank: Rank) -> None:
        self._connection = _connect(rank)
        self._writing = threading.Lock()
        self.heard = time.monotonic()

    def receive(self) -> ToRank | None:
        frame: ToRank | None = group_frames.receive(self._connection, ToRank)  # type: ignore[arg-type]
        self.heard = time.monotonic()
        return frame

    def send(self, frame: FromRank) -> None:
        with self._writing:
            group_frames.send(self._connection, frame)


def main() -> None:
    descriptors.keep_limit()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    try:
        rank = read_rank(sys.stdin.buffer.readline())
    except msgspec.MsgspecError as error:
        _end(f"What this rank is cannot be read from standard input: {error}", 2)
    _start("standard input", _until_input_closes)
    try:
        link = Link(rank)
    except SquishError as error:
        _end(error.message, 1)
    try:
        _work(rank, link)
    except Exception as error:  # noqa: BLE001 - the last guard of the process: rank 0 must hear of it before the process ends
        if type(error).__name__ == "PeerLost" or "[ring]" in str(error):
            time.sleep(_OTHERS)  # rank 0 finds out which rank it was, and ends this one too
        known = error if isinstance(error, SquishError) else EngineError(f"{type(error).__name__}: {error}")
        link.send(Broken(WireError.of(known)))
        _end(known.message, 1)


def _work(rank: Rank, link: Link) -> None:
    from squish.worker.cpu.install import prepare

    report = prepare(Path(rank.cache_dir))
    from squish.worker.model import imports

    imports.prepare()
    from squish.worker.group.part import follow

    follow(rank, link, report)


def _connect(rank: Rank) -> socket.socket:
    """Raises LoadFailed."""
    own, _ = split(rank.addresses[rank.rank])
    end = time.monotonic() + _CONNECT
    while True:
        try:
            connection = socket.create_connection(split(rank.control), timeout=10.0, source_address=(own, 0))
            group_frames.introduce(connection, rank.token, rank.rank, versions())
            break
        except NotOfThisGroup:
            raise LoadFailed(f"Rank 0 at {rank.control} refused rank {rank.rank} of the group.") from None
        except OSError as error:
            if time.monotonic() > end:
                raise LoadFailed(f"Rank 0 of the group cannot be reached at {rank.control}: {error}.") from error
            time.sleep(0.1)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _until_input_closes() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def _start(name: str, target: Callable[[], None]) -> None:
    threading.Thread(target=target, name=name, daemon=True).start()


def _end(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
