"""Traces as OpenTelemetry spans with `gen_ai.*` attributes, for any exporter.

Source: OpenTelemetry semantic conventions for generative AI (status: development)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, IntarsiaError, MissingExtra, first_line
from intarsia.prompting.tracing.events import Event
from intarsia.prompting.tracing.finding import is_talk
from intarsia.prompting.tracing.reading import Trace
from intarsia.prompting.tracing.unpacking import plain
from intarsia.prompting.tracing.values import dumps

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

_OPERATIONS = {"flow": "invoke_workflow", "tool": "execute_tool", "search": "retrieval"}
_MODEL = {"embed": "embeddings", "complete": "text_completion"}  # all else is chat
_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "seed", "frequency_penalty", "presence_penalty")


def spans(trace: Trace, content: bool = False) -> list[ReadableSpan]:
    """Every event as a finished span; ids are those of the trace, so that the same one exported twice is the same.

    - content: also what was said: it may hold what people wrote. Raises `MissingExtra` without opentelemetry-sdk."""
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
        from opentelemetry.trace.status import Status, StatusCode
    except ImportError:
        raise MissingExtra("exporting traces", "server") from None
    from intarsia import __version__

    def context(id: str) -> SpanContext:
        return SpanContext(int(trace.id, 16), int(id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    resource = Resource.create({"service.name": "intarsia"})
    scope = InstrumentationScope("intarsia.prompting.tracing", __version__)
    out = []
    for event in trace.events():
        begun = round(event.begun * 1e9)
        failed = Status(StatusCode.ERROR, event.error) if event.error else Status(StatusCode.UNSET)
        out.append(
            ReadableSpan(
                name=f"{_operation(event)} {event.name}" if event.kind != "step" else event.name,
                context=context(event.id),
                parent=context(event.parent) if event.parent else None,
                resource=resource,
                attributes=attributes(event, content),
                kind=SpanKind.CLIENT if event.kind == "model" else SpanKind.INTERNAL,
                status=failed,
                start_time=begun,
                end_time=begun + round((event.seconds or 0.0) * 1e9),
                instrumentation_scope=scope,
            )
        )
    return out


def _operation(event: Event) -> str:
    if event.kind == "model":
        return _MODEL.get(event.name, "chat")
    return _OPERATIONS.get(event.kind, event.kind)


def attributes(event: Event, content: bool = False) -> dict[str, Any]:
    """What a span says of an event, by the conventions' names; Intarsia's own under `intarsia.`."""
    facts, given = event.facts, plain(event.raw_input)
    said: dict[str, Any] = {
        "intarsia.kind": event.kind, "intarsia.input.hash": event.hash, "intarsia.run": event.run,
        "intarsia.cost": event.cost, "intarsia.replayed": event.replayed or None,
        "intarsia.unfinished": True if event.state == "open" else None,
        "error.type": event.error.partition(":")[0] or None,
    }  # fmt: skip
    if event.place:
        file, _, number = event.place.rpartition(":")
        said |= {"code.file.path": file, "code.line.number": int(number)}
    if event.kind in (*_OPERATIONS, "model"):
        said["gen_ai.operation.name"] = _operation(event)
    if event.kind == "model":
        sampling = (given.get("sampling") if isinstance(given, dict) else None) or plain(facts.get("sampling")) or {}
        said |= {
            "gen_ai.provider.name": facts.get("provider", "intarsia"),
            "gen_ai.request.model": facts.get("model"),
            "gen_ai.usage.input_tokens": event.usage.get("prompt"),
            "gen_ai.usage.output_tokens": event.usage.get("completion"),
            "gen_ai.usage.cache_read.input_tokens": event.usage.get("cached"),
            **{f"gen_ai.request.{name}": sampling.get(name) for name in _SAMPLING},
        }
        if stop := sampling.get("stop"):
            said["gen_ai.request.stop_sequences"] = stop
    if event.kind == "tool":
        said["gen_ai.tool.name"] = event.name
    if event.kind == "flow":
        said["gen_ai.workflow.name"] = event.name
    if content:
        said |= _content(event.kind, given, plain(event.raw_output))
    return {name: value for name, value in said.items() if value is not None}


def _content(kind: str, given: Any, gave: Any) -> dict[str, Any]:
    """What was said, messages in the conventions' form."""
    prompt = given.get("prompt") if isinstance(given, dict) else given
    if kind == "model" and (is_talk(prompt) or isinstance(prompt, str)):
        said = {"gen_ai.input.messages": dumps(_talk(prompt if is_talk(prompt) else [_user(prompt)]))}
        if isinstance(gave, dict) and "text" in gave:
            answer = {"role": "assistant", "content": gave["text"], "calls": gave.get("calls") or []}
            told = _talk([answer])[0] | {"finish_reason": gave.get("finish", "stop")}
            said["gen_ai.output.messages"] = dumps([told])
        elif gave is not None:
            said["intarsia.output"] = dumps(gave)
        return said
    names = {"tool": ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result")}
    before, after = names.get(kind, ("intarsia.input", "intarsia.output"))
    return {before: None if given is None else dumps(given), after: None if gave is None else dumps(gave)}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _talk(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for message in messages:
        content = message["content"]
        parts: list[dict[str, Any]] = [{"type": "text", "content": content}] if content else []
        if message["role"] == "tool":
            parts = [{"type": "tool_call_response", "id": message.get("call", ""), "response": content}]
        for call in message.get("calls") or []:
            parts.append({"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": call["arguments"]})
        out.append({"role": message["role"], "parts": parts})
    return out


def export(trace: Trace, exporter: SpanExporter, content: bool = False) -> int:
    """Give a trace to an OpenTelemetry exporter; returns how many spans it took. Raises `IntarsiaError` if it fails."""
    from opentelemetry.sdk.trace.export import SpanExportResult

    made = spans(trace, content)
    try:
        result = exporter.export(made)
    except Exception as error:
        raise IntarsiaError(f"the spans could not be exported: {first_line(error)}") from error
    if result is not SpanExportResult.SUCCESS:
        raise IntarsiaError("the spans could not be exported: the exporter gave up; is the collector there?")
    return len(made)


def otlp(url: str, headers: dict[str, str] | None = None, timeout: float = 10.0) -> SpanExporter:
    """An exporter to a collector by OTLP over HTTP; `/v1/traces` is added where the URL has no path.

    Raises `BadInput` for what is no http URL, `MissingExtra` without the exporter's package."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadInput(f"'{url}' is no URL of a collector: give http://host:4318")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise MissingExtra("exporting by OTLP", "server") from None
    endpoint = url if parts.path.strip("/") else url.rstrip("/") + "/v1/traces"
    return OTLPSpanExporter(endpoint=endpoint, headers=headers, timeout=timeout)
