"""The way to a collector: OTLP over HTTP, by OpenTelemetry's own SDK, which is an extra and imported only here.

A collector that is away costs nobody anything: spans wait in a bounded queue, a thread sends them, and what cannot be
sent is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from squish import __version__
from squish.api.telemetry.span import RequestSpan

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

logger = logging.getLogger("squish.api")

_LAST_SPANS = 2.0  # seconds in which what is left is sent when a server ends


class Collector:
    """Spans of requests, on their way to a collector. endpoint: of its traces, with the path."""

    def __init__(self, endpoint: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        logging.getLogger("opentelemetry").propagate = False  # it says the same for every batch, with a traceback
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        resource = Resource.create({"service.name": service, "service.version": __version__})
        self._exporter = _Noticing(OTLPSpanExporter(endpoint=endpoint), endpoint)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("squish", __version__)
        self._context = TraceContextTextMapPropagator()

    def send(self, request: RequestSpan) -> None:
        """Put a request that has finished into the queue; never waits."""
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        parent = self._context.extract(request.parent) if request.parent else None
        span = self._tracer.start_span(
            request.name,
            context=parent,
            kind=SpanKind.SERVER if request.serves else SpanKind.INTERNAL,
            attributes=request.attributes,
            start_time=request.start,
        )
        inside = set_span_in_context(span)
        for phase in request.phases:
            child = self._tracer.start_span(phase.name, context=inside, start_time=phase.start)
            child.end(phase.end)
        if request.failure:
            span.set_attribute("error.type", request.failure)
        if request.broken:
            span.set_status(StatusCode.ERROR, request.failure)
        span.end(request.end)

    async def close(self) -> None:
        """Send what is left, as far as that takes no longer than a moment."""
        end = Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        end.start()
        await asyncio.to_thread(end.join, _LAST_SPANS)
        if end.is_alive():
            self._exporter.shutdown()  # no more attempts, so that nothing waits for the thread


class _Noticing:
    """An exporter of the SDK that says once that its collector is away, and once that it is there again."""

    def __init__(self, exporter: OTLPSpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._place = urlsplit(endpoint)._replace(query="", fragment="")
        self._away = self._ended = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        away = result.name != "SUCCESS"
        if away != self._away and not self._ended:
            self._away = away
            host = self._place.netloc.rpartition("@")[2]
            if away:
                logger.warning("Traces cannot be sent to %s; they are dropped until it takes them.", host)
            else:
                logger.info("Traces are sent to %s again.", host)
        return result

    def shutdown(self) -> None:
        if not self._ended:
            self._ended = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True
