"""A collector: a real HTTP server that takes OTLP as protobuf and keeps the spans."""

from __future__ import annotations

import gzip
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.conftest import PATIENCE

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

KINDS = {1: "internal", 2: "server"}


@dataclass(frozen=True)
class Received:
    """One span; ids as hex. resource: what is said of the server."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    error: bool
    start: int
    end: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Receiver:
    """spans: as they came. bodies: what was posted, as bytes. status: of the answers."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self.status = 200
        self._queue: queue.Queue[Received] = queue.Queue()

    def take(self, path: str, body: bytes) -> None:
        self.paths.append(path)
        self.bodies.append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(group.resource.attributes)
            for scope in group.scope_spans:
                for span in scope.spans:
                    self._queue.put(_received(span, resource))

    def request(self) -> tuple[Received, list[Received]]:
        """The next request, and the spans within it in the order in which they began. Waits for it."""
        inside = []
        while (span := self._queue.get(timeout=PATIENCE)).kind == "internal" and span.name in PHASES:
            inside.append(span)
        assert all(each.parent == span.id and each.trace == span.trace for each in inside)
        return span, sorted(inside, key=lambda each: each.start)


PHASES = ("queue", "load", "prefill", "decode")


def _received(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=KINDS[span.kind],
        error=span.status.code == 2,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_plain(span.attributes),
        resource=resource,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    which = value.WhichOneof("value")
    found = getattr(value, which)
    return [_value(each) for each in found.values] if which == "array_value" else found


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A collector on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if receiver.status == 200:
                receiver.take(self.path, body)
            self.send_response(receiver.status)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
