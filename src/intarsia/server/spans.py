"""OpenTelemetry: a span a request to a model, by the conventions for generative AI. No content is in it.

The API's own spans cost nothing where no SDK is set up. `export()` sets one up that sends to where the standard
environment variables say (OTEL_EXPORTER_OTLP_ENDPOINT)."""

from __future__ import annotations

import os
from typing import Any

from intarsia.errors import MissingExtra
from intarsia.server.record import Record
from intarsia.server.redacting import redact

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Spans:
    """Makes a span of each record that names a model. provider: of the SDK; None: the process's own."""

    def __init__(self, provider: Any = None):
        from opentelemetry import trace

        self._trace = trace
        self._tracer = trace.get_tracer("intarsia.server", tracer_provider=provider)

    def __call__(self, record: Record) -> None:
        """The span of a request that is over, with the times that it had."""
        if not record.model:
            return
        begun = int(record.at * 1e9)
        context = None
        if record.parent:
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            context = TraceContextTextMapPropagator().extract({"traceparent": record.parent})
        span = self._tracer.start_span(
            f"{record.operation} {record.model}", context, self._trace.SpanKind.SERVER, start_time=begun
        )
        told: dict[str, Any] = {
            "gen_ai.operation.name": record.operation, "gen_ai.provider.name": "intarsia",
            "gen_ai.request.model": record.model, "gen_ai.response.model": record.model,
            "gen_ai.usage.input_tokens": record.usage.prompt, "gen_ai.usage.output_tokens": record.usage.completion,
            "gen_ai.response.finish_reasons": record.finish, "http.request.method": record.method,
            "http.route": record.route, "http.response.status_code": record.status,
            "intarsia.request.id": redact(record.id),
        }  # fmt: skip
        if record.first is not None:
            told["gen_ai.server.time_to_first_token"] = record.first
        if record.error:
            told["error.type"] = redact(record.error)
            span.set_status(self._trace.StatusCode.ERROR)
        span.set_attributes(told)
        span.end(begun + int(record.seconds * 1e9))


def export() -> bool:
    """Send spans to where the environment says; whether it says so. Raises `MissingExtra` where the exporter is not
    installed."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return False
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingExtra("sending spans by OTLP (opentelemetry-exporter-otlp-proto-http)", "server") from None
    provider = TracerProvider(resource=Resource.create({"service.name": "intarsia"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return True
