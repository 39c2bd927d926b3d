"""The life of a server: its end under load, and versions that change under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from intarsia.errors import BadInput
from intarsia.server import administering
from intarsia.server.registry import Version
from intarsia.server.service import Serving, service
from intarsia.server.versions import Versions, resolved
from tests.server_help import Spelling, running, until

ROOT = Path(__file__).parents[1]
PROCESS = """
import sys
from intarsia.server.listening import listening
from intarsia.server.running import serve
from intarsia.server.service import Serving, service
from tests.server_help import Spelling
serving = Serving()
serving.registry.add("spelling", Spelling(pause=0.01, context_length=100_000))
listener = listening("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
serve(service(serving), serving, listener, grace=float(sys.argv[1]), head_patience=float(sys.argv[2]))
"""


@contextmanager
def process(grace: float = 20, head: float = 10) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process, and its address."""
    made = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(grace), str(head)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        port = made.stdout.readline().strip()
        assert port, made.stderr.read()
        url = f"http://127.0.0.1:{port}"
        with httpx2.Client() as client:
            assert until(lambda: client.get(f"{url}/readyz").status_code == 200)
        yield made, url
    finally:
        if made.poll() is None:
            made.kill()
        made.communicate()


def body(tokens: int, stream: bool) -> dict[str, Any]:
    return {"model": "spelling", "prompt": "a", "max_tokens": tokens, "stream": stream}


def test_no_request_is_lost_when_a_server_ends_under_load():
    counts = {"served": 0, "told": 0, "refused": 0, "lost": 0}
    lock, stop = threading.Lock(), threading.Event()
    lost: list[str] = []

    def count(what: str) -> None:
        with lock:
            counts[what] += 1

    def talk(number: int, url: str) -> None:
        with httpx2.Client(timeout=30) as client:
            while not stop.is_set():
                stream = number % 2 == 0
                try:
                    if stream:
                        with client.stream("POST", f"{url}/v1/completions", json=body(30, True)) as answer:
                            text = "".join(answer.iter_text())
                        whole = answer.status_code == 200 and text.endswith("data: [DONE]\n\n")
                    else:
                        answer = client.post(f"{url}/v1/completions", json=body(30, False))
                        whole = answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 30
                except httpx2.ConnectError:
                    count("refused")  # nobody was there any more: nothing was accepted
                    return
                except httpx2.TransportError as error:
                    count("lost")
                    lost.append(f"{error!r} of a {'stream' if stream else 'request'}")
                    return
                if answer.status_code == 503:
                    assert answer.headers["retry-after"] == "1"
                    count("told")
                    return
                count("served" if whole else "lost")

    with process() as (server, url):
        threads = [threading.Thread(target=talk, args=(i, url)) for i in range(12)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        stop.set()
        for thread in threads:
            thread.join(30)
    assert counts["lost"] == 0, lost
    assert counts["served"] > 12 and counts["told"] + counts["refused"] == 12


def test_nobody_who_connects_while_a_server_ends_is_reset():
    ends: list[str] = []
    stop = threading.Event()

    def knock(url: str) -> None:
        while not stop.is_set():
            try:
                with httpx2.Client(timeout=30) as client:  # a connection of its own each time
                    ends.append(str(client.get(f"{url}/readyz").status_code))
            except httpx2.ConnectError:
                ends.append("refused")
                return
            except httpx2.TransportError as error:
                ends.append(repr(error))

    with process() as (server, url):
        threads = [threading.Thread(target=knock, args=(url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        for thread in threads:
            thread.join(30)
        stop.set()
    assert set(ends) <= {"200", "503", "refused"} and "503" in ends and ends.count("refused") == 8


def test_what_does_not_end_in_time_ends_with_an_error_of_its_own():
    with process(grace=0.5) as (server, url), httpx2.Client(timeout=30) as client:
        with client.stream("POST", f"{url}/v1/completions", json=body(5000, True)) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.send_signal(signal.SIGTERM)
            with httpx2.Client() as other:
                assert other.get(f"{url}/readyz").json() == {"status": "stopping"}
                assert other.get(f"{url}/healthz").status_code == 200
            last = [line for line in lines if line][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "server_stopping"
        assert server.wait(20) == 0


def test_a_request_that_was_begun_when_the_server_was_stopped_is_served():
    said = json.dumps(body(3, False)).encode()
    with process() as (server, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 20) as half:
            head = f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            half.sendall(f"{head}content-length: {len(said)}\r\n\r\n".encode() + said[:10])
            time.sleep(0.3)
            server.send_signal(signal.SIGTERM)
            time.sleep(0.8)
            half.sendall(said[10:])
            answer = half.recv(65536).decode()
        assert answer.startswith("HTTP/1.1 200") and "connection: close" in answer
        assert server.wait(20) == 0


def test_slow_heads_and_what_is_no_http_are_told_of_in_json():
    with process(head=0.5) as (_, url):
        host, port = url.removeprefix("http://").split(":")
        for sent, status in (
            (b"", 408),
            (b"POST /v1/comp", 408),
            (b"GET / HTTP/1.1\r\nhost", 408),
            (b"\0\r\n\r\n", 400),
        ):
            with socket.create_connection((host, int(port)), 20) as slow:
                slow.sendall(sent)
                answer = b""
                while piece := slow.recv(65536):
                    answer += piece
                head, _, said = answer.partition(b"\r\n\r\n")
                assert head.startswith(f"HTTP/1.1 {status}".encode()) and json.loads(said)["error"]["message"]


def test_versions_change_under_load_and_come_back():
    opened: list[Spelling] = []

    def open_one(source: str, name: str) -> Version:
        if source == "broken":
            raise BadInput("broken: no model there")
        opened.append(Spelling(fingerprint=source * 8, pause=0.005))
        return Version(opened[-1])

    serving = Serving()
    versions = Versions(serving, open_one)
    first = Spelling(fingerprint="first" * 4, pause=0.005)
    serving.registry.add("m", first, source="first")
    app = service(serving)
    administering.add(app, serving, versions)
    seen: set[str] = set()

    async def load(url: str) -> int:
        over = asyncio.Event()
        served = 0

        async def talk(client: Any) -> None:
            nonlocal served
            while not over.is_set():
                answer = await client.post(f"{url}/v1/completions", json={**body(20, False), "model": "m"})
                assert answer.status_code == 200 and answer.json()["choices"][0]["text"] == "bcdefghijklmnopqrstu"
                seen.add(answer.json()["system_fingerprint"])
                served += 1

        async def change(client: Any) -> None:
            for said in ({"source": "second", "label": "v2"}, {"source": "third"}, {"source": "broken"},
                         {"rollback": True}):  # fmt: skip
                await asyncio.sleep(0.3)
                answer = await client.post(f"{url}/admin/models", json={"name": "m", **said})
                assert answer.status_code == (400 if said.get("source") == "broken" else 200), answer.text
            await asyncio.sleep(0.3)
            over.set()

        async with httpx2.AsyncClient(timeout=30) as client:
            await asyncio.gather(*[talk(client) for _ in range(6)], change(client))
            rows = (await client.get(f"{url}/admin/models")).json()["data"]
            assert [(r["version"], r["source"], r["state"]) for r in rows] == [("v2", "second", "serving")]
            twice = await client.post(f"{url}/admin/models", json={"name": "m", "source": "x", "rollback": True})
            assert twice.status_code == 400
            assert (await client.delete(f"{url}/admin/models/m")).json() == {"name": "m", "deleted": True}
            assert (await client.get(f"{url}/v1/models/m")).status_code == 404
        return served

    with running(app) as url:
        assert asyncio.run(load(url)) > 20
        assert seen == {f"fp_{(s * 8)[:12]}" for s in ("first", "second", "third")}
        assert until(lambda: first.closed and all(one.closed for one in opened))


def test_a_link_is_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("intarsia.server.versions.WATCH", 0.05)
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("1")
    serving = Serving()
    versions = Versions(serving, lambda source, name: Version(Spelling(source)))

    async def live() -> str:
        await versions.put("m", str(tmp_path / "1"), "1")
        async with versions.watching("m", tmp_path)():
            (tmp_path / "new").symlink_to("2")
            (tmp_path / "new").rename(tmp_path / "current")
            for _ in range(100):
                await asyncio.sleep(0.02)
                if serving.registry.current["m"].label == "2":
                    break
        return serving.registry.current["m"].source

    assert asyncio.run(live()) == str(tmp_path / "2")


def test_a_source_is_resolved(tmp_path):
    assert resolved("smollm2-135m") == "smollm2-135m"
    run = tmp_path / "run" / "bundle"
    (run / "model" / "export" / "gguf").mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"model": {"source": "base"}}))
    (run / "model" / "model.safetensors").touch()
    assert resolved(str(tmp_path / "run")) == str(run / "model")
    assert resolved(str(tmp_path / "run"), "gguf") == str(run / "model" / "export" / "gguf")
    with pytest.raises(BadInput, match="no export 'onnx'"):
        resolved(str(tmp_path / "run"), "onnx")
    (run / "model" / "intarsia.json").write_text(json.dumps({"extras": {"compression.fit": {"engine": "gguf"}}}))
    assert resolved(str(tmp_path / "run")) == str(run / "model" / "export" / "gguf")
    (tmp_path / "current").symlink_to("run")
    assert resolved(str(tmp_path)) == str(run / "model" / "export" / "gguf")
