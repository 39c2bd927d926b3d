"""A trace seen from outside: the finding and its page, OpenTelemetry spans, retention, and the commands."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from intarsia.errors import BadInput, IntarsiaError
from intarsia.prompting.base import Call, Message, Reply, Sampling, ToolSpec, Usage
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.base.traced import Traced
from intarsia.prompting.tracing import Trace, export, otlp, remove, size, spans, step, trace, traces
from intarsia.report import Finding, render_finding, to_text


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.delenv("INTARSIA_TRACE", raising=False)
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "traces.sqlite"


@pytest.fixture
def made(file):
    """A trace of every kind, whose tool fails."""
    with trace("answer", file, input="why?") as t:
        with step("search", "manual", "why?") as s:
            s.output = ["page 3"]
        with step("model", "generate", [Message("user", "why? <b>secret</b>")]) as s:
            s.facts |= {"model": "tiny", "provider": "openai", "sampling": Sampling(max_tokens=7, stop=("x",), seed=3)}
            s.output = Reply("because", usage=Usage(prompt=90, completion=20, cached=30, cost=0.25))
            s.used(s.output.usage)
            with pytest.raises(ValueError), step("tool", "look", {"at": 1}):
                raise ValueError("nothing there")
    return t.read()


def test_the_finding_adds_up_and_the_page_has_everything_that_was_said(made):
    finding = made.finding()
    rows = {row[0]: row[1:] for row in finding.table().rows}
    assert set(rows) == {"search", "model", "tool"}
    assert rows["model"][3:] == [90, 20, 30, 0.25] and rows["model"][:2] == [1, 0] and rows["tool"][:2] == [1, 1]
    assert [(b.name, b.depth) for b in finding.timeline.bars] == [
        ("answer", 0), ("search: manual", 1), ("model: generate", 1), ("tool: look", 2)
    ]  # fmt: skip
    assert "3 events" in finding.summary and "90 tokens read and 20 written" in finding.summary
    page = render_finding(finding)
    for said in (
        "user:\nwhy? &lt;b&gt;secret&lt;/b&gt;",
        "because",
        "ValueError: nothing there",
        "page 3",
        "cost 0.25",
    ):
        assert said in page
    text = to_text(finding)
    assert "model: generate" in text and "ValueError: nothing there" in text
    assert Finding.from_json(finding.to_json()) == finding


def test_a_trace_that_did_not_end_is_shown_as_far_as_it_came(file):
    with trace("t", file) as t:
        with step("step", "a"):
            finding = t.read().finding()
    assert "did not end" in finding.summary and finding.timeline.bars[1].note == "did not end"


def test_spans_follow_the_conventions_and_leave_out_what_was_said(made):
    root, search, model, tool = spans(made)
    assert [s.name for s in (root, search, model, tool)] == [
        "invoke_workflow answer", "retrieval manual", "chat generate", "execute_tool look"
    ]  # fmt: skip
    assert f"{root.context.trace_id:032x}" == made.id and root.parent is None
    assert model.parent.span_id == root.context.span_id and tool.parent.span_id == model.context.span_id
    got = dict(model.attributes)
    expected = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "tiny",
        "gen_ai.usage.input_tokens": 90, "gen_ai.usage.output_tokens": 20, "gen_ai.usage.cache_read.input_tokens": 30,
        "gen_ai.request.max_tokens": 7, "gen_ai.request.seed": 3, "gen_ai.request.temperature": 0.0,
    }  # fmt: skip
    assert {k: got[k] for k in expected} == expected and list(got["gen_ai.request.stop_sequences"]) == ["x"]
    assert model.kind is SpanKind.CLIENT and tool.kind is SpanKind.INTERNAL
    assert tool.status.status_code is StatusCode.ERROR and tool.attributes["error.type"] == "ValueError"
    assert tool.attributes["code.file.path"] == __file__ and tool.attributes["code.line.number"] > 20
    assert root.start_time <= model.start_time <= model.end_time <= root.end_time + 10**7
    assert not any("secret" in s.to_json() or "because" in s.to_json() for s in spans(made))
    told = spans(made, content=True)
    asked = {"role": "user", "parts": [{"type": "text", "content": "why? <b>secret</b>"}]}
    assert json.loads(told[2].attributes["gen_ai.input.messages"]) == [asked]
    answer = {"role": "assistant", "parts": [{"type": "text", "content": "because"}], "finish_reason": "stop"}
    assert json.loads(told[2].attributes["gen_ai.output.messages"]) == [answer]
    assert json.loads(told[3].attributes["gen_ai.tool.call.arguments"]) == {"at": 1}


def test_what_a_backend_wrote_is_read_as_a_conversation_with_calls(file):
    backend = Traced(FakeBackend([Call("look", {"at": 1}, "c1"), "done"]))
    talk = [Message("user", "go"), Message("assistant", "", calls=(Call("look", {"at": 0}, "c0"),)),
            Message("tool", "found", call="c0", name="look")]  # fmt: skip
    with trace("t", file) as t:
        asyncio.run(backend.generate(talk, Sampling(max_tokens=5), tools=[ToolSpec("look", "", {})]))
        asyncio.run(backend.generate("go on", Sampling(temperature=0.5, seed=1)))
    _, first, second = spans(t.read(), content=True)
    said = json.loads(first.attributes["gen_ai.input.messages"])
    assert said[1]["parts"] == [{"type": "tool_call", "id": "c0", "name": "look", "arguments": {"at": 0}}]
    assert said[2]["parts"] == [{"type": "tool_call_response", "id": "c0", "response": "found"}]
    (answer,) = json.loads(first.attributes["gen_ai.output.messages"])
    assert answer["parts"][0]["name"] == "look" and answer["finish_reason"] == "tool_calls"
    assert first.attributes["gen_ai.request.max_tokens"] == 5 and second.attributes["gen_ai.request.temperature"] == 0.5
    page = render_finding(t.read().finding())
    assert "user:\ngo\n\nassistant:\n\n→ look({&quot;at&quot;: 0})\n\ntool:\nfound" in page


def test_any_exporter_takes_them_and_a_failing_one_is_one_line(made):
    memory = InMemorySpanExporter()
    assert export(made, memory) == 4 and len(memory.get_finished_spans()) == 4
    memory.shutdown()
    with pytest.raises(IntarsiaError, match="could not be exported"):
        export(made, memory)


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, self.headers["x-key"], self.headers["content-encoding"], body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *given):
        pass


@pytest.fixture
def collector():
    server = HTTPServer(("127.0.0.1", 0), Collector)
    server.got = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_collector_gets_them_by_otlp(made, collector, cli):
    url = f"http://127.0.0.1:{collector.server_port}"
    code, out, _ = cli("traces", "export", made.id[:8], "--path", made.path, "--otlp", url, "--header", "x-key=k")
    assert code == 0 and out == f"4 spans sent to {url}\n"
    ((path, key, encoding, body),) = collector.got
    assert (path, key, encoding) == ("/v1/traces", "k", None)
    sent = ExportTraceServiceRequest.FromString(body)
    got = sent.resource_spans[0].scope_spans[0].spans
    assert [s.name for s in got] == ["invoke_workflow answer", "retrieval manual", "chat generate", "execute_tool look"]
    assert got[0].trace_id.hex() == made.id and got[3].parent_span_id == got[2].span_id
    assert b"secret" not in body
    for wrong in ("127.0.0.1:4318", "ftp://x", "http://"):
        with pytest.raises(BadInput, match="no URL of a collector"):
            otlp(wrong)


def test_the_commands_list_show_export_and_remove(made, tmp_path, cli):
    at = ("--path", made.path)
    code, out, errors = cli("traces", "ls", *at)
    assert code == 0 and made.id[:12] in out and "done" in out and "110" in out and "MB" in errors
    assert json.loads(cli("traces", "ls", *at, "--json")[1])[0]["tokens"] == 110
    code, out, _ = cli("traces", "show", *at, "--html", tmp_path / "page.html")
    assert code == 0 and "By kind" in out and "because" in (tmp_path / "page.html").read_text()
    code, _, errors = cli("traces", "show", *at, "--html", tmp_path / "page.html")
    assert code == 2 and "--force" in errors
    shown = json.loads(cli("traces", "show", made.id[:6], *at, "--json")[1])
    assert [e["name"] for e in shown["events"]] == ["answer", "manual", "generate", "look"]
    assert shown["events"][2]["input"][0]["content"] == "why? <b>secret</b>"
    told = json.loads(cli("traces", "export", *at, "--json", "--content")[1])
    assert len(told) == 4 and "gen_ai.input.messages" in told[2]["attributes"]
    assert cli("traces", "rm", made.id[:6], *at)[1].startswith("1 traces removed")
    assert json.loads(cli("traces", "ls", *at, "--json")[1]) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ls", "--path", "nowhere.sqlite"], "nowhere.sqlite: no traces there"),
        (["show", "ffff"], "no trace 'ffff'"),
        (["export"], "say where the spans go"),
        (["export", "--otlp", "nowhere"], "'nowhere' is no URL of a collector: give http://host:4318"),
        (["export", "--otlp", "http://h", "--header", "x"], "--header x: give NAME=VALUE"),
        (["rm"], "say which traces are to go"),
        (["rm", "--older", "soon"], "'soon' is no age: give 12h, 30d, 8w"),
        (["rm", "--larger", "5 apples"], "'5 apples' is no size: give 500MB, 2GB"),
    ],
)
def test_bad_input_is_one_line(made, cli, monkeypatch, arguments, words):
    monkeypatch.setenv("INTARSIA_TRACE", str(made.path))
    code, out, errors = cli("traces", *arguments)
    assert (code, out) == (2, "") and words in errors and errors.count("\n") == 1


def fill(file, count):
    ids = []
    for i in range(count):
        with trace(f"t{i}", file) as t, step("step", "s", "x" * 20_000):
            pass
        ids.append(t.id)
    with sqlite3.connect(file) as connection:  # as if they had been made on different days, the first longest ago
        for i, id in enumerate(ids):
            connection.execute("UPDATE events SET time = time - ? WHERE trace = ?", (86400 * (count - i), id))
    return ids


def test_old_traces_go_and_the_disk_gets_their_space(file):
    ids = fill(file, 20)
    before = size(file)
    assert [t.id for t in remove(file, older=86400 * 10.5)] == ids[:10]
    assert {t.id for t in traces(file)} == set(ids[10:]) and size(file) < before * 0.7
    gone = remove(file, most=100_000)
    assert gone and [t.id for t in gone] == ids[10 : 10 + len(gone)] and size(file) <= 100_000
    assert Trace.open(file, ids[-1]).events()[1].input == "x" * 20_000
    assert remove(file, older=0, ids=[]) and not list(traces(file))


def test_what_may_be_at_work_stays_and_nothing_goes_where_an_id_is_wrong(file):
    ids = fill(file, 2)
    with trace("now", file) as t:
        with pytest.raises(BadInput, match="no trace 'beef"):
            remove(file, [ids[0], "beefbeef"], older=0)
        assert len(list(traces(file))) == 3
        assert {x.id for x in remove(file, older=0, most=0)} == set(ids)
    assert [x.id for x in traces(file)] == [t.id]
