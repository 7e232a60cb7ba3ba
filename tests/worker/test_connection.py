"""The worker's socket: whole frames in order, and a sender that does not wait for a slow reader."""

from __future__ import annotations

import socket
import threading

from squish.ipc import frames
from squish.ipc.frames import Cancel, FromWorker, Warned
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


def test_a_sender_does_not_wait_where_the_kernel_looks_only_at_the_socket() -> None:
    """macOS waits for room in spite of MSG_DONTWAIT; a socket that does not block is left alone on every system."""
    front, own = socket.socketpair()
    with front, own:
        FrameSocket(own)
        assert not own.getblocking()
        assert front.getblocking()


def test_a_frame_that_comes_in_pieces_is_waited_for() -> None:
    front, own = socket.socketpair()
    with front, own:
        channel = FrameSocket(own)
        read: list[object] = []
        reader = threading.Thread(target=lambda: read.extend([channel.receive(), channel.receive()]))
        reader.start()
        data = frames.encode(Cancel(7))
        for part in (data[:2], data[2:-1], data[-1:]):
            front.sendall(part)
        front.shutdown(socket.SHUT_WR)
        reader.join()
    assert read == [Cancel(7), None]
