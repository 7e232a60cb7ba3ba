"""The application of the API: its routes and what they share. It knows neither sockets nor what the answers are."""

from __future__ import annotations

from squish.api import access, dialects
from squish.api.batches.answers import Answers
from squish.api.batches.jobs import Batches
from squish.api.error_handler import JsonErrors
from squish.api.health import get_health
from squish.api.metrics import Metrics, get_metrics
from squish.api.models import get_model, list_models
from squish.api.opening import Opening
from squish.api.options import Options
from squish.api.routing import add_routes
from squish.api.services import Services
from squish.api.transport.application import App, new_app
from squish.runtime import Runtime


def build_app(runtime: Runtime, options: Options, opening: Opening | None = None) -> App:
    """The application. It can be built any number of times in one process."""
    app = new_app(JsonErrors())
    app.ctx.runtime = runtime
    app.ctx.options = options
    opening = opening or Opening()
    app.ctx.metrics = Metrics(runtime.sessions)
    app.ctx.services = Services(runtime, options, opening, _batches(runtime, opening), app.ctx.metrics)
    access.install(app)
    read = ("GET", "HEAD")
    app.add_route(get_health, "/health", methods=read)
    app.add_route(get_metrics, "/metrics", methods=read)
    app.add_route(list_models, "/v1/models", methods=read)
    app.add_route(get_model, "/v1/models/<id:path>", methods=read)
    for dialect in dialects.DIALECTS:
        add_routes(app, dialect)
    return app


def _batches(runtime: Runtime, opening: Opening) -> Batches:
    directory, at_once = runtime.settings.home / "batches", runtime.settings.max_concurrency
    return Batches(directory, lambda client: Answers(runtime.sessions, client).line, opening.passed, at_once)
