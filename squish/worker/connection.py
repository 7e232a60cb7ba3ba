"""The worker's end of the socket: one thread reads and waits for more, whole frames are written by any.

A closed socket means that the front process is gone or wants us gone: there is nothing left to work for.
"""

from __future__ import annotations

import select
import socket
import threading
from collections import deque

from squish.ipc import frames
from squish.ipc.frames import FromWorker, ToWorker

_LARGEST_BACKLOG = 64 << 20  # bytes


class FrameSocket:
    """Typed frames over one socket.

    Writing does not wait for the reader: what the socket does not take at once is written by a thread of its own, in
    order. So the thread that computes does not stand still while the front process is busy.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)  # MSG_DONTWAIT would not do: macOS waits for room in spite of it
        self._socket = connection
        self._changed = threading.Condition()
        self._backlog: deque[memoryview] = deque()
        self._waiting = 0  # bytes in the backlog
        self._writer: threading.Thread | None = None

    def receive(self) -> ToWorker | None:
        """The next frame, or None when the other end has closed."""
        header = self._read(frames.HEADER.size)
        body = self._read(frames.body_length(header)) if header else None
        return frames.decode_to_worker(body) if body else None

    def send(self, frame: FromWorker) -> None:
        """Write a frame, or leave it to be written. A closed socket is noticed by the reading side."""
        data = memoryview(frames.encode(frame))
        with self._changed:
            if not self._backlog:
                data = data[self._write_some(data) :]
            if data:
                # A thread that makes more than this before the front has read any of it waits after all.
                self._changed.wait_for(lambda: self._waiting < _LARGEST_BACKLOG)
                self._backlog.append(data)
                self._waiting += len(data)
                self._start_writer()
                self._changed.notify_all()

    def drain(self) -> None:
        """Wait until all is written, or the other end has closed. To be called before the process ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self._backlog)

    def _write_some(self, data: memoryview) -> int:
        """Bytes that the socket took without waiting; all of them where nobody reads any more."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def _start_writer(self) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_backlog, name="writer", daemon=True)
            self._writer.start()

    def _write_backlog(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._backlog))
                data = self._backlog[0]  # stays there until it is written: what comes meanwhile lines up behind it
            size = len(data)
            while data:
                if written := self._write_some(data):
                    data = data[written:]
                else:
                    self._wait(select.POLLOUT)
            with self._changed:
                self._backlog.popleft()
                self._waiting -= size
                self._changed.notify_all()

    def _read(self, size: int) -> bytes | None:
        chunks = bytearray()
        while len(chunks) < size:
            try:
                chunk = self._socket.recv(min(size - len(chunks), 1 << 20))
            except BlockingIOError:
                self._wait(select.POLLIN)
                continue
            except OSError:
                return None
            if not chunk:
                return None
            chunks += chunk
        return bytes(chunks)

    def _wait(self, event: int) -> None:
        """Until the socket can be read or written, or its other end has closed."""
        poll = select.poll()
        poll.register(self._socket, event)
        poll.poll()
