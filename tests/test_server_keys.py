"""Keys: what they open, how often, and that they are nowhere to be found."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from intarsia.cli.app import root, run
from intarsia.errors import BadInput
from intarsia.server import administering, redacting
from intarsia.server.keys import SCOPES, Key, Keys, Limits, Rate
from intarsia.server.keys.callers import OPEN, scope_of
from intarsia.server.keys.store import hashed
from intarsia.server.log import RequestLog
from intarsia.server.service import Serving, service
from intarsia.server.spans import Spans
from intarsia.server.versions import Versions
from tests.server_help import Spelling, running, until


@pytest.fixture
def keys(tmp_path) -> Keys:
    return Keys(tmp_path / "keys.sqlite", make=True)


@pytest.fixture
def served(keys, tmp_path) -> Iterator[tuple[str, Keys, Serving, Path]]:
    serving = Serving()
    serving.registry.add("spelling", Spelling())
    serving.registry.add("other", Spelling("other"))
    serving.listeners.append(RequestLog(tmp_path / "log.jsonl", content=True))
    serving.keep_content = True
    api = service(serving, keys=keys)
    administering.add(api, serving, Versions(serving, lambda source, name: None))  # type: ignore[arg-type, return-value]
    with running(api) as url:
        yield url, keys, serving, tmp_path


def ask(url: str, key: str | None, path: str = "/v1/completions", **more: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key}"} if key is not None else {}
    body = {"model": "spelling", "prompt": "a", "max_tokens": 2, **more}
    return httpx2.post(f"{url}{path}", json=body, headers=headers)


def test_the_file_holds_hashes_alone_and_is_its_owners(keys):
    made = keys.add("ann", scopes=["chat"])
    assert re.fullmatch(r"ia-[A-Za-z0-9_-]{43}", made) and keys.add("ben") != made
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert made.encode() not in keys.path.read_bytes() and hashed(made).encode() in keys.path.read_bytes()
    assert keys.find(made).name == "ann" and keys.find(made + "x") is keys.find("") is None
    keys.path.chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        Keys(keys.path)


def test_what_another_process_changes_is_seen(keys):
    other = Keys(keys.path)
    made = other.add("ann")
    assert keys.find(made) is not None
    other.remove("ann")
    assert keys.find(made) is None
    with pytest.raises(BadInput, match="no key 'ann'"):
        keys.remove("ann")


def test_names_scopes_and_rates_are_checked(keys, tmp_path):
    keys.add("ann")
    for bad in (dict(name="ann"), dict(name=""), dict(name="a b"), dict(name="x", scopes=["chta"]),
                dict(name="x", scopes=[]), dict(name="x", tokens_per_day=0)):  # fmt: skip
        with pytest.raises(BadInput):
            keys.add(**bad)
    for text in ("60", "0/min", "a/min", "5/year", ""):
        with pytest.raises(BadInput, match="60/min"):
            Rate.parse(text)
    with pytest.raises(BadInput, match="intarsia keys add"):
        Keys(tmp_path / "none")
    (tmp_path / "odd").write_bytes(b"no database" * 100)
    (tmp_path / "odd").chmod(0o600)
    with pytest.raises(BadInput, match="no file of keys"):
        Keys(tmp_path / "odd")


def test_every_route_has_a_scope_and_unknown_ones_are_the_admins(served):
    url, *_ = served
    routes = httpx2.get(f"{url}/openapi.json").json()["paths"]
    found = {path: scope_of(path) for path in routes if path not in OPEN}
    assert found["/v1/chat/completions"] == "chat" and found["/v1/embeddings"] == "embed"
    assert found["/admin/models"] == "admin" and found["/metrics"] == "metrics" and found["/v1/models"] is None
    assert set(filter(None, found.values())) <= set(SCOPES) and scope_of("/v2/anything") == "admin"


def test_a_key_opens_its_scopes_and_models_alone(served):
    url, keys, *_ = served
    key = keys.add("ann", scopes=["chat"], models=["spelling"])
    assert ask(url, key).status_code == 200 and ask(url, key, model="other").status_code == 403
    refused = httpx2.post(f"{url}/v1/embeddings", json={}, headers={"authorization": f"Bearer {key}"})
    assert refused.status_code == 403 and "'embed'" in refused.json()["error"]["message"]
    for path in ("/admin/models", "/metrics", "/nothing"):
        assert httpx2.get(f"{url}{path}", headers={"authorization": f"Bearer {key}"}).status_code == 403
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        assert [m.id for m in client.models.list()] == ["spelling"]
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("other")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
    for path in ("/", "/healthz", "/readyz", "/openapi.json"):
        assert httpx2.get(f"{url}{path}").status_code == 200
    keys.remove("ann")
    assert ask(url, key).status_code == 401


def test_limits_of_requests_and_tokens(served):
    url, keys, *_ = served
    key = keys.add("ann", scopes=["chat"], rate=Rate.parse("2/h"))
    first = ask(url, key)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1" and ask(url, key).status_code == 200
    third = ask(url, key)
    assert third.status_code == 429 and 0 < int(third.headers["retry-after"]) <= 1800
    assert third.json()["error"]["code"] == "rate_limit_exceeded"
    day = keys.add("ben", scopes=["chat"], tokens_per_day=6)
    assert [ask(url, day).status_code for _ in range(3)] == [200, 200, 429]  # (1 + 2 tokens each)
    assert ask(url, day).headers["x-ratelimit-remaining-tokens"] == "0"


@given(count=st.integers(1, 50), gaps=st.lists(st.floats(0, 30), max_size=80))
@settings(max_examples=50, deadline=None)
def test_a_bucket_never_lets_through_more_than_its_rate(count, gaps):
    class Nobody:
        def used(self, name: str, day: str) -> int:
            return 0

    now = [1e9]
    limits = Limits(Nobody(), lambda: now[0])  # type: ignore[arg-type]
    key = Key("k", "", ("chat",), rate=Rate(count, "min"))
    passed: list[float] = []
    for gap in gaps:
        now[0] += gap
        ruling = limits.ask(key)
        if ruling.allowed:
            passed.append(now[0])
        else:
            now[0] += ruling.after + 1e-6
            assert limits.ask(key).allowed
            passed.append(now[0])
    for i, start in enumerate(passed):
        inside = sum(start <= at < start + 60 for at in passed[i:])
        assert inside <= 2 * count  # a full bucket, and what flows in meanwhile
        total = now[0] - passed[0] if passed else 0
    assert not passed or len(passed) <= count + total * count / 60 + 1e-3


def test_used_tokens_outlive_the_server(keys):
    limits = Limits(keys, lambda: 1e9)
    made = keys.add("ann", tokens_per_day=10)
    limits.charge("ann", 10)
    limits.flush()
    assert not Limits(Keys(keys.path), lambda: 1e9).ask(keys.find(made)).allowed
    assert Limits(keys, lambda: 1e9 + 86400).ask(keys.find(made)).allowed


class Listed(logging.Handler):
    """Everything that is logged, formatted."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def test_keys_are_nowhere_to_be_found(served):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    url, keys, serving, folder = served
    redacting.install()
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    serving.listeners.append(Spans(provider))
    listed = Listed()
    loggers = [logging.getLogger(name) for name in ("intarsia.server", "uvicorn.error", "uvicorn.access")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(listed)
        logger.setLevel(logging.DEBUG)
    key = keys.add("ann", scopes=["chat", "metrics"])
    said: list[str] = []
    with httpx2.Client(base_url=url) as client:
        good = {"authorization": f"Bearer {key}"}
        body = {"model": "spelling", "prompt": "a", "max_tokens": 2}
        for method, path, more in [
            ("POST", "/v1/completions", {"json": body, "headers": good}),
            ("POST", f"/v1/completions?api_key={key}", {"json": body}),
            ("POST", f"/v1/completions?key={key}", {"json": body, "headers": good}),
            ("GET", f"/v1/models/{key}", {"headers": good}),
            ("GET", f"/{key}", {"headers": good}),
            ("POST", "/v1/completions", {"json": {**body, "model": key}, "headers": good}),
            ("POST", "/v1/completions", {"json": {**body, key: 1}, "headers": good}),
            ("POST", "/v1/completions", {"json": {**body, "prompt": f"{key} bad"}, "headers": good}),
            ("POST", "/v1/completions", {"json": {**body, "prompt": f"fail {key}"}, "headers": good}),
            ("POST", "/v1/completions", {"json": {**body, "prompt": f"my key: {key}"}, "headers": good}),
            ("POST", "/v1/completions", {"json": body, "headers": {"authorization": key}}),
            ("POST", "/v1/completions", {"json": body, "headers": {"authorization": f"Bearer  {key} {key}"}}),
            ("POST", "/v1/completions", {"json": body, "headers": {"authorization": f"Basic {key}"}}),
            ("POST", "/v1/completions", {"json": body, "headers": {**good, "x-request-id": key}}),
            ("POST", "/v1/completions", {"json": body, "headers": {**good, "host": key}}),
            ("POST", "/v1/completions", {"content": f'{{"{key}'.encode(), "headers": good}),
        ]:  # fmt: skip
            said.append(client.request(method, path, **more).headers["x-request-id"])
        metrics = client.get("/metrics", headers=good).text
    assert until(lambda: len((folder / "log.jsonl").read_text().splitlines()) == 17)  # (after the last answer)
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(listed)
        logger.setLevel(level)
    log = (folder / "log.jsonl").read_text()
    assert '"key": "ann"' in log and len(spans.get_finished_spans()) >= 5
    traced = "".join(span.to_json() for span in spans.get_finished_spans())
    everything = "\n".join([log, traced, metrics, *listed.lines, *said])
    assert "gen_ai.usage.input_tokens" in everything and "RuntimeError" in everything
    assert key not in everything and key[3:] not in everything
    assert stat.S_IMODE((folder / "log.jsonl").stat().st_mode) == 0o600


def test_the_commands(tmp_path, monkeypatch):
    file = str(tmp_path / "k" / "keys.sqlite")
    made = CliRunner().invoke(root, ["keys", "add", "ann", "--rate", "5/min", "--models", "a,b", "--file", file])
    key = made.stdout.strip()
    assert made.exit_code == 0 and key.startswith("ia-")
    listed = CliRunner().invoke(root, ["keys", "ls", "--file", file, "--json"])
    assert json.loads(listed.stdout)[0]["models"] == ["a", "b"] and key not in listed.stdout
    assert "5/min" in CliRunner().invoke(root, ["keys", "ls", "--file", file]).stdout
    assert CliRunner().invoke(root, ["keys", "rm", "ann", "--file", file]).exit_code == 0
    assert run(["keys", "rm", "ann", "--file", file]) == 2 and run(["keys", "add", "x", "--rate", "9"]) == 2
    monkeypatch.setenv("INTARSIA_KEYS", str(tmp_path / "none"))
    assert run(["keys", "ls"]) == 2


def test_a_server_that_strangers_can_reach_wants_keys(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("INTARSIA_KEYS", str(tmp_path / "none"))
    assert run(["serve", "fake:", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "--no-keys" in capsys.readouterr().err
    assert run(["serve"]) == 2 and run(["serve", "fake:", "--name", "a", "--name", "b"]) == 2
    assert run(["serve", "fake:", "--keys", str(tmp_path / "none"), "--port", "0"]) == 2
    assert run(["serve", "fake:", "--adapter", "odd"]) == 2
    assert not list(tmp_path.iterdir())


def test_scopes_of_a_file_are_as_written(keys):
    keys.add("ann", scopes=["chat", "detect"], models=["a", "b,c"])
    (row,) = sqlite3.connect(keys.path).execute("SELECT scopes, models FROM keys").fetchall()
    assert row == ("chat,detect", "a\nb,c") and keys.rows()[0].models == ("a", "b,c")
