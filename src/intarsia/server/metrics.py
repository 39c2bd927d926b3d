"""`/metrics` for Prometheus: requests, times, tokens, and what the backends say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Response

from intarsia.server.record import Record
from intarsia.server.serving import Serving

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
METHODS = {"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"}


class Metrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self, serving: Serving):
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.serving = serving
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "intarsia"}
        self.requests = Counter("requests", "Requests by route and status.", ["route", "method", "code"], **own)
        self.seconds = Histogram("request_seconds", "From head to end.", ["route"], buckets=SECONDS, **own)
        self.first = Histogram("first_token_seconds", "To the first token of a stream.", ["model"], buckets=SECONDS,
                               **own)  # fmt: skip
        self.tokens = Counter("tokens", "Tokens read, found in a cache, made.", ["model", "kind"], **own)
        self.registry.register(self)  # type: ignore[arg-type]

    def __call__(self, record: Record) -> None:
        """Count a request that is over."""
        method = record.method if record.method in METHODS else "other"
        self.requests.labels(record.route, method, str(record.status or 499)).inc()
        self.seconds.labels(record.route).observe(record.seconds)
        if record.model:
            if record.first is not None:
                self.first.labels(record.model).observe(record.first)
            for kind, count in (("prompt", record.usage.prompt), ("cached", record.usage.cached),
                                ("completion", record.usage.completion)):  # fmt: skip
                if count:
                    self.tokens.labels(record.model, kind).inc(count)

    def collect(self) -> Iterator[Any]:
        """What is so just now: requests that use each version, and each backend's own statistics."""
        from prometheus_client.core import GaugeMetricFamily

        using = GaugeMetricFamily("intarsia_running", "Requests that use a version.", labels=["model", "version"])
        told = GaugeMetricFamily("intarsia_backend", "What a backend says of itself.", labels=["model", "what"])
        seen: set[int] = set()
        for name, version in list(self.serving.registry.current.items()):
            using.add_metric([name, version.label], version.running)
            statistics = getattr(version.backend, "statistics", None)
            shared = id(getattr(version.backend, "engine", version.backend))
            if statistics is not None and shared not in seen:  # (adapters share an engine)
                seen.add(shared)
                for what, value in statistics().items():
                    told.add_metric([name, what], float(value))
        yield using
        yield told
        ready = GaugeMetricFamily("intarsia_ready", "Whether requests are taken.")
        ready.add_metric([], float(self.serving.registry.ready and not self.serving.draining))
        yield ready


def add(api: FastAPI, serving: Serving) -> None:
    """Count from now on, and add the route."""
    metrics = Metrics(serving)
    serving.listeners.append(metrics)

    @api.get("/metrics", tags=["state"], response_class=Response,
             responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}})  # fmt: skip
    async def told() -> Response:
        """Counts, for Prometheus."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})
