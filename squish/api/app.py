"""The application of the API: its routes and what they share. It knows neither sockets nor what the answers are."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from squish.api import dialects
from squish.api.access import checks
from squish.api.batches.answers import Answers
from squish.api.batches.jobs import Batches
from squish.api.batches.lines import Item, Line, Tokens
from squish.api.batches.shapes import BatchObject
from squish.api.clients.clients import Clients
from squish.api.error_handler import JsonErrors
from squish.api.health import get_health, get_ready
from squish.api.metrics import Metrics, get_metrics
from squish.api.models import get_model, list_models
from squish.api.overview import cancel_request, get_overview
from squish.api.routing import add_routes
from squish.api.services import Services
from squish.api.serving.opening import Opening
from squish.api.serving.options import Options
from squish.api.telemetry.opening import open_collector
from squish.api.transport.application import App, new_app
from squish.runtime import Runtime

if TYPE_CHECKING:
    from squish.api.telemetry.collector import Collector


def build_app(runtime: Runtime, options: Options, opening: Opening | None = None) -> App:
    """The application. It can be built any number of times in one process."""
    app = new_app(JsonErrors())
    app.ctx.runtime = runtime
    app.ctx.options = options
    opening = opening or Opening()
    metrics, settings = Metrics(runtime.sessions), runtime.settings
    clients = Clients(settings.home, settings.api_key, runtime.store, metrics.used)
    app.ctx.metrics = metrics
    collector = open_collector(settings, os.environ)
    batches = _batches(runtime, opening, clients, collector, metrics)
    app.ctx.services = Services(runtime, options, opening, batches, metrics, clients, collector)
    checks.install(app)
    read = ("GET", "HEAD")
    app.add_route(get_health, "/health", methods=read)
    app.add_route(get_ready, "/ready", methods=read)
    app.add_route(get_metrics, "/metrics", methods=read)
    app.add_route(get_overview, "/squish/status", methods=read)
    app.add_route(cancel_request, "/squish/cancel/<id>", methods=("POST",))
    app.add_route(list_models, "/v1/models", methods=read)
    app.add_route(get_model, "/v1/models/<id:path>", methods=read)
    for dialect in dialects.DIALECTS:
        add_routes(app, dialect)
    return app


def _batches(
    runtime: Runtime, opening: Opening, clients: Clients, collector: Collector | None, metrics: Metrics
) -> Batches:
    def answering(batch: BatchObject) -> Callable[[Item], Awaitable[Line]]:
        key = clients.named(batch.key) if batch.key is not None else None

        def used(model: str, tokens: Tokens) -> None:
            clients.used(key, model, requests=1, **msgspec.structs.asdict(tokens))

        client = f"batch {batch.id[-6:]}"
        allow = partial(clients.check_model, key)
        answers = Answers(runtime.sessions, client, batch.key or "", allow, used, collector, batch.id, metrics)
        return answers.line

    settings = runtime.settings
    return Batches(settings.home / "batches", answering, opening.passed, settings.max_concurrency)
