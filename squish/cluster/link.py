"""How fast the way between two hosts is: round trip and bandwidth, over the addresses that their group will use.

The listening side takes one connection, from somebody who knows the token. Threads with plain sockets, because a fast
link carries more than an event loop does.
"""

from __future__ import annotations

import hmac
import socket
import struct
import time

from squish.cluster.messages import LinkMeasured
from squish.errors import EngineError

_PATIENCE = 10.0  # seconds for a connection, and for each answer
_TOKEN = 64
_ROUNDS = 20
_BLOCK = 4 << 20
_LEAST, _MOST = 0.3, 1 << 30  # seconds and bytes that are sent
_COUNT = struct.Struct(">Q")


def listen(address: str, port: int) -> socket.socket:
    """A socket that waits at an address of this machine. Raises EngineError that says what is wrong with it."""
    try:
        found = socket.create_server((address, port), backlog=4)
    except OSError as error:
        raise EngineError(f"Nothing can listen at {address}:{port} there: {error.strerror or error}.") from None
    found.settimeout(_PATIENCE)
    return found


def answer(server: socket.socket, token: str) -> None:
    """Be measured once, then close. Others who connect are sent away; when nobody comes in time, so be it."""
    with server:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                try:
                    peer.settimeout(_PATIENCE)
                    if hmac.compare_digest(_read(peer, _TOKEN), _padded(token)):
                        _be_measured(peer)
                        return
                except OSError:
                    continue


def measure(address: str, port: int, token: str) -> LinkMeasured:
    """Measure the way to a host that listens. Raises EngineError where there is none."""
    try:
        with socket.create_connection((address, port), _PATIENCE) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(_padded(token))
            return LinkMeasured(min(_round_trip(peer) for _ in range(_ROUNDS)), _bandwidth(peer))
    except TimeoutError:
        raise EngineError(f"{address}:{port} does not answer: a firewall, or no way between these networks.") from None
    except OSError as error:
        raise EngineError(f"{address}:{port} cannot be reached: {error.strerror or error}.") from None


def _round_trip(peer: socket.socket) -> float:
    start = time.perf_counter()
    peer.sendall(b"?")
    _read(peer, 1)
    return time.perf_counter() - start


def _bandwidth(peer: socket.socket) -> float:
    block = bytes(_BLOCK)
    peer.sendall(b"!")
    start, sent = time.perf_counter(), 0
    while sent < _MOST and (sent == 0 or time.perf_counter() - start < _LEAST):
        peer.sendall(block)
        sent += len(block)
    peer.shutdown(socket.SHUT_WR)
    arrived: int = _COUNT.unpack(_read(peer, _COUNT.size))[0]
    return arrived / (time.perf_counter() - start)


def _be_measured(peer: socket.socket) -> None:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while _read(peer, 1) == b"?":
        peer.sendall(b"?")
    place, arrived = memoryview(bytearray(_BLOCK)), 0
    while count := peer.recv_into(place):
        arrived += count
    peer.sendall(_COUNT.pack(arrived))


def _padded(token: str) -> bytes:
    return token.encode()[:_TOKEN].ljust(_TOKEN)


def _read(peer: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        if not (data := peer.recv(size - len(found))):
            raise ConnectionResetError("the connection has ended")
        found += data
    return found
