"""What a server tells of itself: log, metrics, spans, state."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import os
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import openai
import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from intarsia.errors import MissingExtra
from intarsia.server import spans as spanning
from intarsia.server.log import RequestLog
from intarsia.server.registry import Version
from intarsia.server.service import Serving, service
from intarsia.server.spans import Spans
from tests.server_help import Spelling, running, until


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[str, Serving, Any, InMemorySpanExporter]]:
    serving, spans, provider = Serving(), InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    serving.registry.add("spelling", Spelling(pause=0.001))
    serving.listeners += [RequestLog(tmp_path / "log.jsonl"), Spans(provider)]
    with running(service(serving)) as url:
        yield url, serving, tmp_path / "log.jsonl", spans


def rows(log: Any, count: int) -> list[dict[str, Any]]:
    assert until(lambda: len(log.read_text().splitlines()) >= count)
    return [json.loads(line) for line in log.read_text().splitlines()]


def talk(url: str, **more: Any) -> httpx2.Response:
    body = {"model": "spelling", "messages": [{"role": "user", "content": "private words"}], "max_tokens": 3, **more}
    return httpx2.post(f"{url}/v1/chat/completions", json=body, headers={"x-request-id": "mine-1"})


def test_the_log_says_what_was_done_and_not_what_was_said(served):
    url, _, log, _ = served
    assert talk(url).headers["x-request-id"] == "mine-1" and talk(url, stream=True).status_code == 200
    talk(url, max_tokens=5000)
    httpx2.get(f"{url}/nothing?private=words")
    whole, stream, refused, lost = rows(log, 4)
    assert whole["id"] == "mine-1" and whole["route"] == "/v1/chat/completions" and whole["status"] == 200
    assert whole["model"] == "spelling" and whole["completion_tokens"] == 3 and whole["finish"] == ["length"]
    assert stream["stream"] and 0 < stream["first_token_seconds"] <= stream["seconds"]
    assert (refused["status"], lost["status"], lost["route"]) == (400, 404, "unknown")
    assert "private" not in log.read_text()


def test_content_is_logged_where_that_is_asked_for(tmp_path):
    serving = Serving(keep_content=True)
    serving.registry.add("spelling", Spelling())
    serving.listeners.append(RequestLog(tmp_path / "l", content=True, redact=lambda t: t.replace("private", "...")))
    with running(service(serving)) as url:
        talk(url)
        talk(url, stream=True)
        for row in rows(tmp_path / "l", 2):
            assert row["asked"] == [[{"role": "user", "content": "... words"}]] and row["answered"] == ["tuv"]


def test_metrics(served):
    url, serving, *_ = served
    talk(url)
    talk(url, stream=True)
    talk(url, max_tokens=5000)
    slow = serving.registry.current["spelling"].backend
    slow.pause = 0.02
    with openai.OpenAI(base_url=f"{url}/v1", api_key="n", max_retries=0) as client:
        stream = client.completions.create(model="spelling", prompt="a", max_tokens=900, stream=True)
        next(iter(stream))
        told = httpx2.get(f"{url}/metrics").text
        stream.close()
    lines = dict(line.rsplit(" ", 1) for line in told.splitlines() if not line.startswith("#"))
    chat = 'route="/v1/chat/completions"'
    assert lines[f'intarsia_requests_total{{code="200",method="POST",{chat}}}'] == "2.0"
    assert lines[f'intarsia_requests_total{{code="400",method="POST",{chat}}}'] == "1.0"
    assert lines[f"intarsia_request_seconds_count{{{chat}}}"] == "3.0"
    assert lines['intarsia_first_token_seconds_count{model="spelling"}'] == "1.0"
    assert lines['intarsia_tokens_total{kind="completion",model="spelling"}'] == "6.0"
    assert lines['intarsia_running{model="spelling",version="1"}'] == "1.0"
    assert lines['intarsia_backend{model="spelling",what="prefix_hits"}'] == "3.0" and lines["intarsia_ready"] == "1.0"

    # Whoever leaves early is counted all the same: as gone, with the tokens that were made.
    def gone() -> bool:
        told = httpx2.get(f"{url}/metrics").text
        return 'intarsia_requests_total{code="200",method="POST",route="/v1/completions"} 1.0' in told

    assert until(gone)


def test_spans_follow_the_conventions(served):
    url, _, _, spans = served
    body = {"model": "spelling", "prompt": "a", "max_tokens": 2}
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    httpx2.post(f"{url}/v1/completions", json=body, headers={"traceparent": parent})
    httpx2.post(f"{url}/v1/completions", json={**body, "prompt": "fail"})
    httpx2.get(f"{url}/healthz")
    assert until(lambda: len(spans.get_finished_spans()) == 2)
    good, bad = spans.get_finished_spans()
    assert good.name == "text_completion spelling" and format(good.context.trace_id, "032x") == parent[3:35]
    assert good.attributes["gen_ai.operation.name"] == "text_completion"
    assert (good.attributes["gen_ai.usage.input_tokens"], good.attributes["gen_ai.usage.output_tokens"]) == (1, 2)
    assert good.attributes["http.response.status_code"] == 200 and good.end_time > good.start_time
    assert bad.attributes["error.type"] == "RuntimeError" and not bad.status.is_ok


def test_spans_are_sent_nowhere_unless_the_environment_says_so(monkeypatch):
    for name in spanning.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert spanning.export() is False
    monkeypatch.setenv(spanning.ENDPOINTS[0], "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtra, match="opentelemetry-exporter-otlp-proto-http"):
        spanning.export()


REPORTER = """
from intarsia.prompting.base import Usage
from intarsia.server.record import Record
from intarsia.server.spans import Spans, export
assert export()
record = Record(id="mine-1", method="POST", route="/v1/completions", model="small", operation="text_completion")
record.status, record.seconds, record.usage = 200, 0.25, Usage(prompt=3, completion=5)
Spans()(record)
"""  # (ends at once: what was not sent yet is sent then)


def test_spans_come_to_a_collector():
    """By OTLP over HTTP, from a process of its own: its SDK is set up once."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter", reason="the exporter is not installed")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    came: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            packed = self.headers.get("content-encoding") == "gzip"
            came.append((self.path, gzip.decompress(body) if packed else body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
        done = subprocess.run([sys.executable, "-c", REPORTER], env=env, capture_output=True, text=True, timeout=60)
        collector.shutdown()
    assert (done.returncode, done.stderr) == (0, "")
    ((path, body),) = came
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    (span,) = resource.scope_spans[0].spans
    said = {pair.key: pair.value for pair in span.attributes}
    assert path == "/v1/traces" and span.name == "text_completion small"
    assert any(a.key == "service.name" and a.value.string_value == "intarsia" for a in resource.resource.attributes)
    assert said["gen_ai.usage.output_tokens"].int_value == 5 and said["http.response.status_code"].int_value == 200
    assert span.end_time_unix_nano - span.start_time_unix_nano == 250_000_000


@pytest.mark.parametrize("installed", [True, False], ids=["with its files", "without"])
def test_routes_are_shown_without_any_outside_address(installed, monkeypatch):
    from intarsia.server import routes_page

    if installed:
        pytest.importorskip("fastapi_offline", reason="the part of the extra 'server' that shows routes is not there")
    else:
        monkeypatch.setattr(routes_page, "_files", lambda: None)
    with running(service(Serving())) as url:
        found = httpx2.get(f"{url}/docs")
        files = re.findall(r'(?:src|href)="(/docs/[^"]+)"', found.text)
        for file in files:
            given = httpx2.get(url + file)
            assert given.status_code == 200 and file in routes_page.OPEN and len(given.content) > 1000
        assert "/docs" not in str(httpx2.get(f"{url}/openapi.json").json()["paths"])
    policy = found.headers["content-security-policy"]
    assert "'none'" in policy and "http" not in policy
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", found.text)
    if installed:
        assert len(files) == 3 and "SwaggerUIBundle" in found.text
    else:
        assert "fastapi-offline" in found.text and not files


def test_a_model_that_loads_is_waited_for_and_one_that_fails_is_told_of():
    serving = Serving()

    async def arrive(good: bool) -> Version:
        await asyncio.sleep(0.5)
        if not good:
            raise RuntimeError("broken file")
        return Version(Spelling())

    app = service(serving)

    @contextlib.asynccontextmanager
    async def part() -> Any:
        serving.registry.load("spelling", arrive(True))
        serving.registry.load("broken", arrive(False))
        yield

    serving.parts.append(part)
    with running(app) as url:
        assert httpx2.get(f"{url}/readyz").json() == {"status": "loading"}
        names = [m["id"] for m in httpx2.get(f"{url}/v1/models").json()["data"]]
        assert names == ["spelling", "broken"]
        assert talk(url).json()["choices"][0]["message"]["content"] == "tuv"
        said = talk(url, model="broken")
        assert said.status_code == 503 and said.json()["error"]["code"] == "model_failed"
        page = httpx2.get(url)
        assert "<title>server</title>" in page.text and "{{" not in page.text
        assert "script-src 'unsafe-inline'" in page.headers["content-security-policy"]


def test_the_collector_rests_until_models_are_there(monkeypatch):
    from concurrent.futures import Future

    from intarsia.server import sweeping

    async def started() -> list[bool]:
        good, bad = Future[int](), Future[int]()
        sweeping.hold()
        async with sweeping.after([good, bad])():
            seen = [gc.isenabled()]
            good.set_result(1)
            await asyncio.sleep(0.01)
            seen.append(gc.isenabled())
            bad.set_exception(RuntimeError("no such file"))
            await asyncio.sleep(0.01)
            return [*seen, gc.isenabled(), gc.get_freeze_count() > 1000]

    monkeypatch.setattr(sweeping, "_left_out", False)
    try:
        assert asyncio.run(started()) == [False, False, True, True]
    finally:
        gc.enable()


def test_a_model_that_went_is_let_go(monkeypatch):
    from intarsia.server import sweeping
    from intarsia.server.registry import Registry, Version

    class Cycle(Spelling):
        pass

    async def switched() -> bool:
        first = Cycle()
        first.itself = first  # as networks are
        gone = weakref.ref(first)
        registry = Registry()
        registry.add("m", first)
        gc.freeze()  # as when all is loaded
        monkeypatch.setattr(sweeping, "_left_out", True)
        registry.switch("m", Version(Spelling()))
        del first
        for _ in range(200):
            await asyncio.sleep(0.01)
            if gone() is None:
                break
        return gone() is None

    assert asyncio.run(switched())
