"""The Sanic application of the API: its routes and settings. It knows neither sockets nor what the answers are."""

from __future__ import annotations

import asyncio
import math
import secrets
from types import SimpleNamespace

from sanic import Sanic
from sanic.config import Config

from squish.api import access
from squish.api.chat import create_chat_completion
from squish.api.completions import create_completion
from squish.api.errors import JsonErrors
from squish.api.health import get_health
from squish.api.metrics import Metrics, get_metrics
from squish.api.models import get_model, list_models
from squish.api.opening import Opening
from squish.api.options import Options
from squish.api.transport.connection import MAX_BODY, MAX_HEADER, AnyRequest
from squish.runtime import Runtime

App = Sanic[Config, SimpleNamespace]


def build_app(runtime: Runtime, options: Options, opening: Opening | None = None) -> App:
    """The application. It can be built any number of times in one process."""
    app: App = Sanic(
        f"squish-{secrets.token_hex(6)}",
        config=_config(),
        error_handler=JsonErrors(),
        request_class=AnyRequest,
        configure_logging=False,
    )
    Sanic.unregister_app(app)  # the registry is for Sanic's own command line, and would keep every app for ever
    app.ctx.runtime = runtime
    app.ctx.options = options
    app.ctx.opening = opening or Opening()
    app.ctx.large_body = asyncio.Lock()
    app.ctx.metrics = Metrics(runtime.sessions)
    access.install(app)
    read = ("GET", "HEAD")
    app.add_route(get_health, "/health", methods=read)
    app.add_route(get_metrics, "/metrics", methods=read)
    app.add_route(list_models, "/v1/models", methods=read)
    app.add_route(get_model, "/v1/models/<id:path>", methods=read)
    app.add_route(create_chat_completion, "/v1/chat/completions", methods=("POST",), stream=True)
    app.add_route(create_completion, "/v1/completions", methods=("POST",), stream=True)
    return app


def _config() -> Config:
    """Sanic's settings, not touched by SANIC_… variables."""
    config = Config(env_prefix=None)
    config.AUTO_EXTEND = False
    config.MOTD = False
    config.ACCESS_LOG = False
    config.TOUCHUP = False  # it rewrites Sanic's classes, which works once in a process
    config.RESPONSE_TIMEOUT = math.inf  # type: ignore[assignment]  # an answer takes as long as it takes
    config.REQUEST_MAX_SIZE = MAX_BODY
    config.REQUEST_MAX_HEADER_SIZE = MAX_HEADER
    return config
