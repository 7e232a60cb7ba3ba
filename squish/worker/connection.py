"""The worker's end of the socket: blocking reads in one thread, whole frames written by any.

A closed socket means that the front process is gone or wants us gone: there is nothing left to work for.
"""

from __future__ import annotations

import socket
import threading

from squish.ipc import frames
from squish.ipc.frames import FromWorker, ToWorker


class FrameSocket:
    """Typed frames over one socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._writing = threading.Lock()

    def receive(self) -> ToWorker | None:
        """The next frame, or None when the other end has closed."""
        header = self._read(frames.HEADER.size)
        body = self._read(frames.body_length(header)) if header else None
        return frames.decode_to_worker(body) if body else None

    def send(self, frame: FromWorker) -> None:
        """Write a frame. A closed socket is noticed by the reading side."""
        data = frames.encode(frame)
        with self._writing:
            try:
                self._socket.sendall(data)
            except OSError:
                pass

    def _read(self, size: int) -> bytes | None:
        chunks = bytearray()
        while len(chunks) < size:
            try:
                chunk = self._socket.recv(min(size - len(chunks), 1 << 20))
            except OSError:
                return None
            if not chunk:
                return None
            chunks += chunk
        return bytes(chunks)
