"""The worker's socket: whole frames in order, and a sender that does not wait for a slow reader."""

from __future__ import annotations

import socket
import threading

from squish.ipc import frames
from squish.ipc.frames import FromWorker, Warned
from squish.worker.connection import FrameSocket

TEXT = "x" * 3000


def _all_frames(front: socket.socket) -> list[FromWorker]:
    with front.makefile("rb") as file:
        found = []
        while header := file.read(frames.HEADER.size):
            found.append(frames.decode_from_worker(file.read(frames.body_length(header))))
        return found


def test_a_sender_does_not_wait_for_a_reader_that_is_busy() -> None:
    """A thousand frames are sent before the first byte is read: more than a small socket holds."""
    front, own = socket.socketpair()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    channel = FrameSocket(own)
    for number in range(1000):
        channel.send(Warned(f"{number} {TEXT}"))
    read: list[FromWorker] = []
    reader = threading.Thread(target=lambda: read.extend(_all_frames(front)))
    reader.start()
    channel.drain()
    own.close()
    reader.join()
    front.close()
    assert read == [Warned(f"{number} {TEXT}") for number in range(1000)]


def test_a_front_that_is_gone_holds_nobody() -> None:
    front, own = socket.socketpair()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    channel = FrameSocket(own)
    for number in range(50):
        channel.send(Warned(f"{number} {TEXT}"))
    front.close()
    for number in range(50):
        channel.send(Warned(f"{number} {TEXT}"))
    channel.drain()
    own.close()
