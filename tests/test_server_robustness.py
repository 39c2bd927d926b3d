"""What strangers send: too much, too slowly, half of it, nonsense."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from intarsia.server.errors import ApiError
from intarsia.server.parsing import DEPTH, parse
from intarsia.server.running import Protocol
from intarsia.server.service import Serving, service
from tests.server_help import Spelling, running, until

GOOD = {"model": "spelling", "prompt": "a", "max_tokens": 2}
LIMIT = 20_000


@pytest.fixture(scope="module")
def spelling() -> Spelling:
    return Spelling(context_length=10_000_000)


@pytest.fixture(scope="module")
def url(spelling) -> Iterator[str]:
    serving = Serving(stall=0.5)
    serving.registry.add("spelling", spelling)
    app = service(
        serving, body=LIMIT, patience=0.7, hosts=["127.0.0.1", "own.example"], origins=["https://page.example"]
    )
    with running(app, http=Protocol) as address:
        yield address


@pytest.fixture(scope="module")
def client(url) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=30) as made:
        yield made


def raw(url: str, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What comes back for bytes."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        except OSError:
            pass  # the server has had enough; what it said is read below
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


def head(url: str, *lines: str) -> bytes:
    host = url.removeprefix("http://")
    return "\r\n".join(
        ["POST /v1/completions HTTP/1.1", f"host: {host}", "content-type: application/json", *lines, "", ""]
    ).encode()


def told(answer: bytes, status: int) -> dict[str, Any]:
    first, _, said = answer.partition(b"\r\n\r\n")
    assert first.startswith(f"HTTP/1.1 {status} ".encode()), answer[:300]
    if b"transfer-encoding: chunked" in first.lower():
        said = b"".join(said.split(b"\r\n")[1::2])
    return json.loads(said)["error"]


def test_bodies_have_an_end(url, client):
    said = client.post("/v1/completions", json={**GOOD, "prompt": "a" * LIMIT})
    assert said.status_code == 413 and said.json()["error"]["code"] == "body_too_large"
    # An announced one is refused before it comes.
    assert told(raw(url, head(url, f"content-length: {10**12}")), 413)
    assert told(raw(url, head(url, "content-length: " + "9" * 18)), 413)
    assert told(raw(url, head(url, "content-length: " + "9" * 30)), 400)["code"] == "invalid_http"

    def endless() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(200):
            yield b"a" * 1000

    said = client.post("/v1/completions", content=endless(), headers={"content-type": "application/json"})
    assert said.status_code == 413
    assert client.post("/v1/completions", json={**GOOD, "prompt": "a" * (LIMIT - 100)}).status_code == 200


def test_bodies_that_do_not_come_are_given_up(url):
    assert told(raw(url, head(url, "content-length: 100"), b'{"model"', pause=0.1), 408)["code"] == "body_timeout"
    drops = [b"5\r\naaaaa\r\n"] * 40
    assert told(raw(url, head(url, "transfer-encoding: chunked"), *drops, pause=0.1), 408)
    # Whoever hangs up in the middle costs nothing.
    host, _, port = url.removeprefix("http://").partition(":")
    socket.create_connection((host, int(port)), 5).close()
    assert httpx2.get(f"{url}/healthz").status_code == 200


NESTED = "[" * 500 + "]" * 500


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe{}",
        b'{"model": "spelling", "prompt": "a", "temperature": NaN}',
        b'{"model": "spelling", "prompt": "a", "temperature": Infinity}',
        b'{"model": "spelling", "prompt": "a", "temperature": 1e999}',
        b'{"model": "spelling", "prompt": "a", "max_tokens": 1' + b"0" * 400 + b"}",
        b'{"model": "spelling", "prompt": "a", "max_tokens": 1' + b"0" * 5000 + b"}",
        b'{"model": "spelling", "prompt": "a", "seed": 99999999999999999999999}',
        b'{"model": "spelling", "prompt": [' + b"9" * 30 + b"]}",
        b'{"model": "spelling", "prompt": "\\ud800"}',
        b'{"model": "spelling\\udfff", "prompt": "a"}',
        b'{"\\ud800": 1, "model": "spelling", "prompt": "a"}',
        b'{"model": "spelling", "prompt": ' + NESTED.encode() + b"}",
        b'{"model": "spelling", "prompt": "a", "guided_json": ' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}",
        b'{"model": "spelling", "prompt": "a", "guided_json": ' + b'{"a":' * 70 + b"1" + b"}" * 70 + b"}",
        b'{"model": "spelling", "prompt": "a", "guided_json": {"minimum": NaN}}',
    ],
)
def test_nonsense_is_a_400_of_one_line(client, body):
    said = client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    error = said.json()["error"]
    assert said.status_code == 400 and error["type"] == "invalid_request_error" and "\n" not in error["message"]
    assert said.headers["x-request-id"].startswith("req_")


def test_other_content_types_are_none(client):
    body = json.dumps(GOOD).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        said = client.post("/v1/completions", content=body, headers={"content-type": kind} if kind else {})
        assert said.status_code == 400 and "application/json" in said.json()["error"]["message"]
    for kind in ("application/json", "application/json; charset=utf-8", "APPLICATION/JSON"):
        assert client.post("/v1/completions", content=body, headers={"content-type": kind}).status_code == 200


def test_routes_and_methods(client):
    assert client.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    wrong = client.put("/v1/completions", json=GOOD)
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST" and "PUT" in wrong.json()["error"]["message"]
    whole, bare = client.get("/v1/models"), client.head("/v1/models")
    assert bare.status_code == 200 and bare.content == b"" and bare.headers["content-length"] == str(len(whole.content))
    options = client.options("/v1/completions")
    assert options.status_code == 204 and options.headers["allow"] == "POST" and options.content == b""
    assert client.head("/nothing").status_code == 404


def test_pages_of_others_may_ask_only_where_that_is_said(client):
    asked = {"origin": "https://page.example", "access-control-request-method": "POST"}
    allowed = client.options("/v1/completions", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "https://page.example"
    refused = client.options("/v1/completions", headers={**asked, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers
    with running(service(Serving())) as plain:
        said = httpx2.get(f"{plain}/v1/models", headers={"origin": "https://page.example"})
        assert "access-control-allow-origin" not in said.headers


def test_bent_names_get_nothing(client):
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:80", "[::1", ""):
        said = client.get("/v1/models", headers={"host": host})
        assert said.status_code == 403 and said.json()["error"]["code"] == "wrong_host"
    for host in ("127.0.0.1:1", "OWN.example", "own.example:8000"):
        assert client.get("/v1/models", headers={"host": host}).status_code == 200


def test_a_reader_that_stops_reading_is_given_up(url, spelling):
    before = spelling.cancelled
    said = json.dumps({**GOOD, "max_tokens": 5_000_000, "stream": True}).encode()
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((host, int(port)))
        lazy.sendall(head(url, f"content-length: {len(said)}") + said)
        assert until(lambda: spelling.cancelled == before + 1, 30)
        made = spelling.made
        time.sleep(0.3)
        assert spelling.made == made < 200_000 and spelling.running == 0


def test_pipelined_and_split_requests(url):
    said = json.dumps(GOOD).encode()
    one = head(url, f"content-length: {len(said)}") + said
    last = head(url, f"content-length: {len(said)}", "connection: close") + said
    assert raw(url, one + last).count(b"HTTP/1.1 200") == 2
    assert raw(url, *[last[i : i + 40] for i in range(0, len(last), 40)], pause=0.01).startswith(b"HTTP/1.1 200")
    assert told(raw(url, b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 200_000), 400)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(_JSON)
@settings(max_examples=150, deadline=None)
def test_what_is_json_is_read_as_json_reads_it(value):
    try:
        text = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        text = json.dumps(value).encode()
        with pytest.raises(ApiError):
            parse(text)
        return
    assert parse(text) == json.loads(text)


@given(
    st.binary(max_size=60) | st.text(alphabet='[]{}",:0123456789.eE+-\\u dnultrueNaIify', max_size=60).map(str.encode)
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_json_or_an_error_of_ours(body):
    try:
        value = parse(body)
    except ApiError as error:
        assert error.status == 400
    else:
        json.dumps(value, allow_nan=False).encode()


def test_nesting_has_a_bottom():
    assert parse(b"[" * DEPTH + b"]" * DEPTH)
    for depth in (DEPTH + 2, 5000, 200_000):
        with pytest.raises(ApiError, match="nests deeper"):
            parse(b"[" * depth + b"]" * depth)


ANY = (
    "prompt messages max_tokens stop n logprobs tools tool_choice seed response_format guided_json structured_outputs "
    "temperature colour"
)
FIELDS = st.fixed_dictionaries(
    {"model": st.sampled_from(["spelling", "other"])}, optional=dict.fromkeys(ANY.split(), _JSON)
)


@given(body=FIELDS, route=st.sampled_from(["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/score"]))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_makes_the_server_fail(client, body, route):
    said = client.post(route, content=json.dumps(body), headers={"content-type": "application/json"})
    assert said.status_code in (200, 400, 404, 413), said.text
    if said.status_code != 200:
        assert set(said.json()["error"]) == {"message", "type", "param", "code"}
