"""GET /metrics: what the server did, and what its models are doing, as Prometheus text.

Counters belong to one application, not to the process. It knows no prompts; a model's label is its installed id.
A named key sees what it has used itself, and the models that it may use; the server's one key sees everything, as does
everybody who may ask a server without keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sanic import HTTPResponse, Request

from squish.api.clients.clients import SINGLE, Clients
from squish.api.clients.keys import ApiKey
from squish.api.transport.response import Response
from squish.generation import Finished
from squish.sessions.model_status import ModelStatus
from squish.system.host import HOST

_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)


class HasStatus(Protocol):
    """What knows which models are loaded: the session manager."""

    def status(self) -> Sequence[ModelStatus]: ...


class Metrics:
    """The numbers of one application."""

    def __init__(self, models: HasStatus) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "squish_http_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._prompt = self._per_model("squish_prompt_tokens", "Prompt tokens of finished answers.")
        self._cached = self._per_model("squish_cached_prompt_tokens", "Prompt tokens that were not computed again.")
        self._completion = self._per_model("squish_completion_tokens", "Tokens of finished answers.")
        self._guessed = self._per_model("squish_draft_tokens", "Tokens that were guessed and checked.")
        self._accepted = self._per_model("squish_accepted_draft_tokens", "Guessed tokens that were right.")
        self._embedded = self._per_model("squish_embedding_tokens", "Tokens of texts that were turned into vectors.")
        self._failures = Counter(
            "squish_generation_failures",
            "Answers that failed in the engine, also within a stream whose status was 200.",
            ("model", "code"),
            registry=self.registry,
        )
        self._key_requests = Counter("squish_key_requests", "Answers by key.", ("key",), registry=self.registry)
        self._key_tokens = Counter(
            "squish_key_tokens", "Tokens by key and kind.", ("key", "kind"), registry=self.registry
        )
        self._cache_hits = self._per_model("squish_prefix_cache_hits", "Answers whose prompt was partly known.")
        self._first_token = Histogram(
            "squish_time_to_first_token_seconds",
            "From a request's arrival to its first text, waiting and loading included.",
            ("model",),
            buckets=_FIRST_TOKEN,
            registry=self.registry,
        )
        self._per_token = Histogram(
            "squish_time_per_token_seconds",
            "Mean time per token of an answer after its first.",
            ("model",),
            buckets=_PER_TOKEN,
            registry=self.registry,
        )
        self.registry.register(_Models(models))

    def request(self, method: str, route: str, status: int) -> None:
        """Count a request that is over."""
        self._requests.labels(method, route, str(status)).inc()

    def used(self, key: str, amounts: Mapping[str, int]) -> None:
        """Count what a key has used: requests, and tokens by kind."""
        for kind, amount in amounts.items():
            if kind == "requests":
                self._key_requests.labels(key).inc(amount)
            else:
                self._key_tokens.labels(key, kind).inc(amount)

    def failed(self, model: str, code: str) -> None:
        """Count an answer that the engine could not give, or not to its end."""
        self._failures.labels(model, code).inc()

    def embedded(self, model: str, tokens: int) -> None:
        """Count the tokens of texts that have become vectors."""
        self._embedded.labels(model).inc(tokens)

    def first_token(self, model: str, seconds: float) -> None:
        self._first_token.labels(model).observe(seconds)

    def finished(self, model: str, event: Finished, first_of_prompt: bool) -> None:
        """Count an answer. first_of_prompt: the prompt's tokens count once, however many answers it has."""
        usage = event.usage
        if first_of_prompt:
            self._prompt.labels(model).inc(usage.prompt_tokens)
            self._cached.labels(model).inc(usage.cached_tokens)
            self._cache_hits.labels(model).inc(usage.cached_tokens > 0)
        self._completion.labels(model).inc(usage.completion_tokens)
        self._guessed.labels(model).inc(event.timings.draft_tokens)
        self._accepted.labels(model).inc(event.timings.accepted_tokens)
        if usage.completion_tokens > 1 and event.timings.decode > 0:
            self._per_token.labels(model).observe(event.timings.decode / (usage.completion_tokens - 1))

    def text(self, sees: Callable[[Mapping[str, str]], bool] = lambda labels: True) -> bytes:
        """sees: whether the client may read what has these labels."""
        return generate_latest(_Seen(self.registry, sees))

    def _per_model(self, name: str, documentation: str) -> Counter:
        return Counter(name, documentation, ("model",), registry=self.registry)


class _Seen(Collector):
    """What a client may read of the numbers."""

    def __init__(self, numbers: Collector, sees: Callable[[Mapping[str, str]], bool]) -> None:
        self._numbers, self._sees = numbers, sees

    def collect(self) -> Iterator[Metric]:
        for metric in self._numbers.collect():
            metric.samples = [sample for sample in metric.samples if self._sees(sample.labels)]
            yield metric


class _Models(Collector):
    """Gauges that are read on request."""

    def __init__(self, models: HasStatus) -> None:
        self._models = models

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = self._models.status()
        loaded = _gauge("squish_model_loaded", "1 when the model is in memory.")
        waiting = _gauge("squish_queue_depth", "Requests that wait for a place.")
        running = _gauge("squish_running_requests", "Requests that are being answered.")
        weights = _gauge("squish_model_weights_bytes", "Bytes of the weights in memory.")
        memory = _gauge("squish_worker_resident_bytes", "Resident memory of the model's process.")
        for status in found:
            loaded.add_metric((status.name,), status.state == "ready")
            waiting.add_metric((status.name,), status.waiting)
            running.add_metric((status.name,), status.running)
            weights.add_metric((status.name,), status.weights_bytes)
            memory.add_metric((status.name,), HOST.footprint(status.pid) or 0 if status.pid else 0)
        yield from (loaded, waiting, running, weights, memory)


async def get_metrics(request: Request) -> HTTPResponse:
    key: ApiKey | None = request.ctx.key
    clients: Clients = request.app.ctx.services.clients

    def sees(labels: Mapping[str, str]) -> bool:
        if key is None or key.name == SINGLE:
            return True
        model = labels.get("model")
        return labels.get("key", key.name) == key.name and (model is None or clients.may_see(key, model))

    return Response(request.app.ctx.metrics.text(sees), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _gauge(name: str, documentation: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, labels=("model",))
