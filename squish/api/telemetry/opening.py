"""Whether a server traces its requests: the collector that OpenTelemetry's variables or config.toml name.

The variables may have been set for other programs, so what is wrong with them is one warning, and no error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from squish.config.settings import Settings
from squish.system.loopback import is_loopback
from squish.text import clean

if TYPE_CHECKING:
    from squish.api.telemetry.collector import Collector

logger = logging.getLogger("squish.api")

NEEDED = "tracing needs a package: pip install 'squish[otel]'"
_HTTP = "http/protobuf"


def open_collector(settings: Settings, environment: Mapping[str, str]) -> Collector | None:
    """The way to the collector; None where none is configured, and where it cannot be used, which is logged."""
    endpoint = traces_endpoint(settings, environment)
    if endpoint is None:
        return None
    if problem := _problem(endpoint, settings, environment):
        logger.warning("Requests are not traced: %s.", clean(problem))
        return None
    from squish.api.telemetry.collector import Collector

    return Collector(endpoint, environment.get("OTEL_SERVICE_NAME") or settings.service_name)


def traces_endpoint(settings: Settings, environment: Mapping[str, str]) -> str | None:
    """Where spans are posted. A general endpoint gets the path that the protocol has for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    if own := environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip():
        return own
    general = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or settings.otlp_endpoint
    return f"{general.rstrip('/')}/v1/traces" if general else None


def _problem(endpoint: str, settings: Settings, environment: Mapping[str, str]) -> str | None:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        return f"{endpoint.rpartition('@')[2][:200]!r} is not an address that begins with http:// or https://"
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", _HTTP):
        return f"Squish speaks OTLP as {_HTTP}, and OTEL_EXPORTER_OTLP_PROTOCOL asks for {protocol[:40]}"
    if settings.offline and not is_loopback(parts.hostname or ""):
        return "the collector is on another computer, and SQUISH_OFFLINE is set"
    return None if _is_installed() else NEEDED


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # not even a package above it: many programs install OpenTelemetry without an exporter
        return False
